"""Generators as actors, with no run around them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from raydream.config import DistillConfig
from raydream.runs.run_folder import check_teacher, resume
from raydream.runtime import generator
from raydream.runtime.generator import Generator, GeneratorPlan
from raydream.runtime.messages import Receipt, ReportQueue
from raydream.schedule import Schedule
from raydream.store.folders import Folder, LocalFolder, folder_at
from raydream.store.records import BatchId, ImageBatch, Order
from raydream.store.shards import ShardStore
from raydream.synthesis import resuming
from raydream.teachers.teacher import to_arrays
from tests.synthesis.test_checkpoint import Killed
from tests.tiny import finished_images, tiny_network, tiny_synthesis, tiny_teacher

BATCH = BatchId(0, 1)
CONFIG = DistillConfig(
    teacher={"arguments": {"width": 8}},
    synthesis=tiny_synthesis(method="deep_inversion", iterations=300, compile="off"),
)


def test_two_who_make_one_batch_answer_with_what_is_committed(joined: None, tmp_path: Path) -> None:
    reports = ReportQueue()
    folder = LocalFolder(tmp_path)
    plan = GeneratorPlan("a run", "cpu", CONFIG.teacher, CONFIG.synthesis, None, CONFIG.generators, folder, folder)
    generators = [ray.remote(num_cpus=0.1)(Generator).remote(index, plan) for index in range(2)]
    ray.get([generator.ready.remote() for generator in generators], timeout=120)
    order, teacher = Schedule.of(CONFIG).order(BATCH, CONFIG), to_arrays(tiny_network())
    made = [generator.make.remote(order, teacher, None, None, reports) for generator in generators]
    receipts, batches = zip(*ray.get(made, timeout=120), strict=True)
    ends = [receipt.started_at + receipt.seconds for receipt in receipts]
    assert max(receipt.started_at for receipt in receipts) < min(ends), "they were not at it at once"
    committed = ShardStore(tmp_path).read(BATCH)
    for receipt, batch in zip(receipts, batches, strict=True):
        assert receipt.provenance == batch.provenance == committed.provenance
        assert (batch.images == committed.images).all()


def test_in_a_store_a_batch_resumes_from_its_checkpoint_which_its_commit_deletes(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "MOST_SHARE", float("inf"))
    left = {"updates": 5}

    def progress(share: float) -> None:
        left["updates"] -= 1
        if not left["updates"]:
            raise Killed

    monkeypatch.setattr(generator, "Throttled", lambda reports, message: progress)
    synthesis = replace(CONFIG.synthesis, iterations=12)

    def make(folder: Folder) -> tuple[Receipt, ImageBatch]:
        often = replace(CONFIG.generators, checkpoint_s=1e-3)
        plan = GeneratorPlan("a run", "cpu", CONFIG.teacher, synthesis, None, often, folder, folder)
        order = Order(BATCH, np.arange(20) % 10, 1)
        return Generator(0, plan).make(order, to_arrays(tiny_network()), None, None, None)  # type: ignore[arg-type]

    folder = folder_at(f"{bucket}/images")
    with pytest.raises(Killed):
        make(folder)
    assert folder.names() == ["_unfinished-r0000-b0001.safetensors"]
    receipt, batch = make(folder)
    assert 1 <= -left["updates"] < 12 and "the batch resumes after update" in receipt.notes[0]
    assert folder.names() == ["r0000-b0001.parquet"]
    for whole in (ShardStore(folder).read(BATCH), make(LocalFolder(tmp_path))[1]):
        assert (batch.images == whole.images).all() and (batch.teacher_logits == whole.teacher_logits).all()


def test_what_an_earlier_run_has_made_is_not_made_again(tmp_path: Path) -> None:
    teacher, synthesis = tiny_teacher(), tiny_synthesis(method="deep_inversion", batch_size=20)
    first, _ = resume(str(finished_images(tmp_path / "runs" / "first")))
    check_teacher(first, teacher.fingerprint)
    folder = LocalFolder(tmp_path / "own")
    plan = GeneratorPlan(
        "a run", "cpu", teacher.config, synthesis, None, CONFIG.generators, folder, folder, reuse=str(tmp_path / "runs")
    )
    order = Order(BATCH, np.arange(20) % 10, 1)
    # Nothing takes progress reports: none is made.
    receipt, batch = Generator(0, plan).make(order, to_arrays(teacher.network), None, None, None)  # type: ignore[arg-type]
    assert receipt.provenance == batch.provenance and batch.provenance.run == first.run and not receipt.curve
    assert (batch.images == ShardStore(first.images).read(BATCH).images).all()
    assert (batch.images == ShardStore(folder).read(BATCH).images).all()
    other = Order(BATCH, np.arange(20) % 10, 2)
    with pytest.raises(AttributeError, match="send"):
        Generator(0, replace(plan, shards=LocalFolder(tmp_path / "other"))).make(
            other,
            to_arrays(teacher.network),
            None,
            None,
            None,  # type: ignore[arg-type]
        )
