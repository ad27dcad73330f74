"""Images that an earlier run has made are found by what decides them, and by nothing else."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import fs

from raydream.applications.reuse import EarlierImages, note_reused
from raydream.config import CoefficientsConfig, SynthesisConfig
from raydream.errors import ShardError
from raydream.runs.run_folder import check_teacher, resume
from raydream.store.folders import LocalFolder, RemoteFolder
from raydream.store.records import BatchId, ImageBatch, Order, Snapshot, _digest
from raydream.store.shards import ShardStore
from raydream.synthesis.batch import BatchMaker
from raydream.teachers.teacher import Teacher, to_arrays
from tests.tiny import finished_images, shard_path, tiny_student, tiny_synthesis, tiny_teacher

TEACHER = tiny_teacher()
BATCH = BatchId(0, 1)
ORDER = Order(BATCH, np.arange(20) % 10, 1)
CONFIG = tiny_synthesis(method="deep_inversion", batch_size=20)


def recipe(
    config: SynthesisConfig = CONFIG, order: Order = ORDER, source: ImageBatch | None = None, teacher: Teacher = TEACHER
) -> str:
    return BatchMaker("own", teacher, config).recipe(order, None, source)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one finished run, of two batches."""
    finished_images(tmp_path / "runs" / "images" / "first")
    check_teacher(resume(str(tmp_path / "runs" / "images" / "first"))[0], TEACHER.fingerprint)
    return tmp_path / "runs"


@pytest.fixture
def own(tmp_path: Path) -> ShardStore:
    (tmp_path / "own").mkdir()
    return ShardStore(tmp_path / "own" / "images")


def earlier(runs: Path, own: ShardStore) -> EarlierImages:
    return EarlierImages(str(runs), own, TEACHER.fingerprint)


def test_what_is_taken_is_what_would_be_made_and_lies_on_the_disk_once(runs, own):
    assert earlier(runs, own).take(BATCH, recipe())
    made = BatchMaker("own", TEACHER, CONFIG).make(ORDER, None, None).batch
    taken = own.read(BATCH)
    assert (taken.images == made.images).all() and (taken.teacher_logits == made.teacher_logits).all()
    assert taken.provenance.recipe == made.provenance.recipe == recipe()
    assert taken.provenance.run != made.provenance.run == "own"
    theirs = runs / "images" / "first" / "images" / shard_path(own, BATCH).name
    assert shard_path(own, BATCH).samefile(theirs)
    assert not list(shard_path(own, BATCH).parent.glob(".*")), "nothing half-written"
    # It outlives the run that made it.
    theirs.unlink()
    assert own.read(BATCH).provenance == taken.provenance


OTHER = {
    "one coefficient": {"config": replace(CONFIG, coefficients=CoefficientsConfig(feature=9.0))},
    "one setting": {"config": replace(CONFIG, jitter=2)},
    "the method": {"config": replace(CONFIG, method="deepdream")},
    "seed": {"order": replace(ORDER, seed=2)},
    "targets": {"order": replace(ORDER, targets=ORDER.targets[::-1])},
    "the teacher's weights": {"teacher": tiny_teacher(3)},
    "normalization": {"teacher": replace(TEACHER, config=replace(TEACHER.config, mean=(0.5,)))},
}


@pytest.mark.parametrize("what", OTHER)
def test_another_recipe_is_made_anew(what, runs, own):
    assert recipe(**OTHER[what]) != recipe()
    assert not earlier(runs, own).take(BATCH, recipe(**OTHER[what]))
    assert not own.has(BATCH)


@pytest.mark.parametrize("version", [1, 2, 10**6])
def test_images_of_another_engine_version_are_not_taken(version, runs, own, monkeypatch):
    current = recipe()
    monkeypatch.setattr("raydream.synthesis.recipe.ENGINE_VERSION", version)
    assert recipe() != current
    assert not earlier(runs, own).take(BATCH, recipe()) and not own.has(BATCH)


def test_arithmetic_and_what_is_started_from_are_in_the_recipe():
    source = BatchMaker("own", TEACHER, CONFIG).make(ORDER, None, None).batch
    brighter = replace(source, images=np.minimum(source.images, 254) + np.uint8(1))
    assert len({recipe(), recipe(source=source), recipe(source=brighter)}) == 3
    one = recipe()
    torch.set_num_threads(2)
    try:
        assert recipe() != one
    finally:
        torch.set_num_threads(1)
    assert recipe() == one
    assert recipe(replace(CONFIG, precision="auto")) in (one, recipe(replace(CONFIG, precision="bf16")))


def test_adaptive_images_without_a_student_are_those_of_deep_inversion():
    adaptive = replace(CONFIG, method="adaptive", coefficients=CoefficientsConfig(competition=3.0))
    assert recipe(adaptive) == recipe()
    made = [BatchMaker("own", TEACHER, config).make(ORDER, None, None).batch for config in (CONFIG, adaptive)]
    assert (made[0].images == made[1].images).all(), "which is why they have one recipe"


def test_what_a_student_or_other_batches_decide_has_no_recipe():
    snapshot = Snapshot(5, to_arrays(tiny_student()))
    maker = BatchMaker("own", TEACHER, replace(CONFIG, method="adaptive"), tiny_student)
    assert maker.recipe(ORDER, snapshot, None) == "" != maker.recipe(ORDER, None, None)
    assert maker.make(ORDER, snapshot, None).batch.provenance.recipe == ""
    learning = BatchMaker("own", TEACHER, tiny_synthesis(method="dafl", batch_size=20))
    assert learning.recipe(ORDER, None, None) == ""


def test_no_recipe_is_no_reason_to_take_anything(runs, own):
    assert not earlier(runs, own).take(BATCH, "")


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty"])
def test_a_damaged_shard_is_passed_over_for_a_whole_one(damage, runs, own):
    path = runs / "images" / "first" / "images" / shard_path(own, BATCH).name
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes({"cut short": content[:-20], "one bit": content, "empty": b""}[damage])
    with pytest.raises(ShardError):
        ShardStore(path.parent).read(BATCH)
    assert not earlier(runs, own).take(BATCH, recipe()) and not own.has(BATCH)
    finished_images(runs / "second")
    check_teacher(resume(str(runs / "second"))[0], TEACHER.fingerprint)
    assert earlier(runs, own).take(BATCH, recipe())


def test_what_is_committed_stays(runs, own):
    made = BatchMaker("own", TEACHER, replace(CONFIG, jitter=2)).make(ORDER, None, None).batch
    own.write(made)
    earlier(runs, own).take(BATCH, recipe())
    assert own.read(BATCH).provenance == made.provenance


def test_runs_of_other_teachers_and_folders_that_are_none(runs, own, tmp_path):
    assert not EarlierImages(str(runs), own, "another").take(BATCH, recipe())
    assert not earlier(tmp_path / "nowhere", own).take(BATCH, recipe())
    assert not EarlierImages("", own, TEACHER.fingerprint).take(BATCH, recipe())
    (runs / "images" / "first" / "run.json").write_text("{")
    assert not earlier(runs, own).take(BATCH, recipe())


def test_nothing_is_shared_with_a_store(runs, tmp_path):
    remote = ShardStore(RemoteFolder("test", fs.LocalFileSystem(), str(tmp_path / "remote")))
    assert not earlier(runs, remote).take(BATCH, recipe()) and not (tmp_path / "remote").exists()


def test_a_shard_from_before_recipes_is_read_and_not_taken(runs, own):
    path = runs / "images" / "first" / "images" / shard_path(own, BATCH).name
    batch = ShardStore(path.parent).read(BATCH)
    table = batch.to_table()
    old = {name: value for name, value in asdict(batch.provenance).items() if name != "recipe"}
    metadata = dict(table.schema.metadata) | {b"provenance": json.dumps(old).encode()}
    text = {key.decode(): value.decode() for key, value in metadata.items()}
    metadata[b"digest"] = _digest(text).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path, write_page_checksum=True)
    assert ShardStore(path.parent).read(BATCH).provenance.recipe == ""
    assert not earlier(runs, own).take(BATCH, recipe())


def test_it_is_told_whose_batches_they_are(runs, own):
    told: list[str] = []
    earlier(runs, own).take(BATCH, recipe())
    own.write(BatchMaker("own", TEACHER, CONFIG).make(replace(ORDER, batch=BatchId(0, 7)), None, None).batch)
    competing = BatchMaker("pruning", TEACHER, tiny_synthesis(method="adaptive"), tiny_student)
    snapshot = Snapshot(5, to_arrays(tiny_student()))
    own.write(competing.make(replace(ORDER, batch=BatchId(1, 0)), snapshot, None).batch)  # by a name that is no run's
    first = json.loads((runs / "images" / "first" / "run.json").read_text())["run"]
    assert note_reused(own, "own", str(runs), told.append) == {first: 1}
    assert len(told) == 1 and "1 batches" in told[0] and str(runs / "images" / "first") in told[0]
    assert note_reused(ShardStore(LocalFolder(runs / "none")), "own", str(runs), told.append) == {}
