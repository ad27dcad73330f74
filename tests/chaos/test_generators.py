"""Generators that hang, and generators that fail again and again: the run goes on."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.processes import descendants
from raydream.applications.rounds import run_rounds
from raydream.config import DistillConfig, SynthesizeConfig
from raydream.config.conversion import validate
from raydream.store.folders import folder_at
from raydream.store.records import BatchId
from raydream.store.unfinished import UnfinishedBatches
from raydream.supervised.library import trained_teacher
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.tasks import tasks_of
from raydream.teachers.checkpoints import save_network
from raydream.teachers.loading import load_teacher
from tests.calls import TINY, assert_same_images, images_of, lockstep_options, start, wait_until
from tests.chaos.faults import kill, noted
from tests.chaos.faulty import Faulty
from tests.conftest import Job
from tests.tiny import WIDTH, tiny_network

pytestmark = pytest.mark.chaos


def test_a_generator_that_hangs_is_replaced(tmp_path: Path, library: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir,
        "--generators.patience_s", "12", "--synthesis.iterations", "400",
    )  # fmt: skip
    wait_until((run_dir / "images" / "r0000-b0000.parquet").exists, process)
    victims = [pid for pid, command in descendants(process.pid).items() if command.startswith("ray::Generator")]
    os.kill(victims[0], signal.SIGSTOP)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 3 * 2
    assert "is replaced: nothing was heard of it for too long" in noted(run_dir), out
    assert "What happened on the way" in (run_dir / "report.html").read_text()
    assert not Path(f"/proc/{victims[0]}").exists()


def test_a_generator_that_fails_again_and_again_is_taken_out(tmp_path: Path) -> None:
    run_dir, checkpoint = tmp_path / "run", tmp_path / "teacher.safetensors"
    teacher = Faulty(WIDTH)
    teacher.network.load_state_dict(tiny_network().state_dict())
    save_network(teacher, checkpoint)
    process = start(
        "synthesize", "--teacher.network", "tests.chaos.faulty:network", "--teacher.checkpoint", checkpoint,
        "--data.name", "none", "--images", "160", "--synthesis.batch_size", "8", "--synthesis.iterations", "300",
        "--generators.cpus", "0.4", "--run-dir", run_dir,
    )  # fmt: skip
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 20
    assert {made.provenance.generator for made in images_of(run_dir).values()} == {0}
    assert noted(run_dir).count("generator 1 failed at batch") == 2
    assert "generator 1 failed again and again and is taken out: " in noted(run_dir)
    assert "the device of this machine is broken" in noted(run_dir)


LEARNING = ["--synthesis.generator.width", "4", "--synthesis.generator.latent", "16", "--synthesis.iterations", "40"]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_what_is_learned_survives_the_death_of_generators_and_of_the_driver(
    tmp_path: Path, library: Path, job: Job
) -> None:
    run_dir = tmp_path / "run"
    options = [*lockstep_options(library), *LEARNING, "--synthesis.method", "fast", "--synthesis.generator.chains", "2"]
    process = start("distill", *options, "--run-dir", run_dir)
    wait_until((run_dir / "images" / "r0000-b0001.parquet").exists, process)
    assert kill(process.pid, "ray::Generator")
    wait_until((run_dir / "images" / "r0001-b0001.parquet").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    config = validate(DistillConfig, yaml.safe_load((run_dir / "config.yaml").read_text()))
    reference = run_rounds(config, trained_teacher(config.teacher, config.training, config.data)[0])
    assert_same_images(images_of(run_dir), {str(made.id): made for made in reference.batches})
    made = images_of(run_dir)
    assert [made[batch].provenance.after for batch in sorted(made)] == [None, None, *sorted(made)[:-2]]


@pytest.mark.usefixtures("one_thread")
def test_a_batch_in_progress_survives_the_death_of_its_generator(tmp_path: Path) -> None:
    run_dir, checkpoint = tmp_path / "run", tmp_path / "teacher.safetensors"
    save_network(tiny_network(), checkpoint)
    process = start(
        "synthesize", "--teacher.arguments.width", str(WIDTH), "--teacher.checkpoint", checkpoint,
        "--data.name", "none", "--images", "16", "--synthesis.batch_size", "16", "--synthesis.iterations", "2000",
        "--reuse", "", "--synthesis.method", "deep_inversion", "--synthesis.compile", "off",
        "--generators.checkpoint_s", "0.2", "--generators.count", "1", "--run-dir", run_dir,
    )  # fmt: skip
    files, batch = UnfinishedBatches(folder_at(run_dir / "images")), BatchId(0, 0)

    def reached() -> int:
        found = files.read(batch) if (run_dir / "images").exists() else None
        return 0 if found is None else int(found.facts["updates"])

    wait_until(lambda: reached() > 0, process)
    assert kill(process.pid, "ray::Generator")
    left = reached()
    assert 0 < left < 2000 and not (run_dir / "images" / f"{batch}.parquet").exists()
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, out + error
    assert re.findall(r"the batch resumes after update (\d+)", noted(run_dir)) == [str(left)]
    assert reached() == 0, "its checkpoint is left"
    config = validate(SynthesizeConfig, yaml.safe_load((run_dir / "config.yaml").read_text()))
    maker = BatchMaker("alone", load_teacher(config.teacher), config.synthesis)
    made = maker.make(tasks_of(config)[batch].order, None, None).batch
    assert_same_images(images_of(run_dir), {str(batch): made})
