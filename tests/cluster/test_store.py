"""A run whose folder is in an S3 store: begun, killed, gone on with, read from there."""

import json
import os
import signal

import pyarrow.parquet as pq
import pytest

from raydream.runs.lease import LAPSE_S
from raydream.store.folders import Folder, folder_at
from raydream.store.shards import ShardStore
from tests.calls import TINY, run, start, wait_until

pytestmark = pytest.mark.cluster


def committed(place: Folder) -> dict[str, bytes]:
    """Shards by name, to the byte."""
    images = place / "images"
    return {name: images.read(name) for name in images.names() if name.endswith(".parquet")}


@pytest.mark.parametrize("lockstep", ["false", "true"])
def test_a_killed_run_goes_on_from_its_store(bucket: str, lockstep: str) -> None:
    where = f"{bucket}/runs/lockstep-{lockstep}"
    place = folder_at(where)
    process = start("distill", "--config", TINY, "--rounds.lockstep", lockstep, "--run-dir", where)
    wait_until(lambda: bool((place / "checkpoints").names()), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = committed(place)
    assert len(kept) >= 3 and not place.has("summary.json")
    done = run("distill", "--resume", where, timeout_s=300 + LAPSE_S)
    assert done.returncode == 0, done.stderr
    assert f"{where}/report.html" in done.stdout.replace("\n", "") and "student, last" in done.stdout
    whole = committed(place)
    assert len(whole) == 9 and kept.items() <= whole.items()
    assert ShardStore(place / "images").quarantine_damaged() == []
    summary = json.loads(place.read("summary.json"))
    assert summary["images"] == 9 * 20 and summary["student_accuracy"] > 0.2
    assert {"config.yaml", "run.json", "metrics.parquet", "student.safetensors", "teacher.safetensors", "images.png",
            "report.html"} <= set(place.names())  # fmt: skip
    assert not [name for name in place.names() if name.startswith(".")]
    (name,) = (place / "tensorboard").folders()
    assert len((place / "tensorboard" / name).names()) >= 2, "each session has events of its own"
    system, path = place.for_arrow()
    steps = pq.read_table(f"{path}/metrics.parquet", filesystem=system).to_pandas()["step"]
    assert steps.max() >= 210


def test_a_run_in_a_store_is_one_to_read_from(bucket: str) -> None:
    where = f"{bucket}/runs/images"
    few = ["--images", "20", "--synthesis.batch_size", "10", "--synthesis.iterations", "5", "--png", "true"]
    made = run("synthesize", *few, "--generators.cpus", "0.5", "--run-dir", where)
    assert made.returncode == 0, made.stderr
    assert set((folder_at(where) / "png").folders()) == {f"{target:04d}" for target in range(10)}
    judged = run("evaluate", "--images", where, "--verifiers", f"run:{where}", "--run-dir", f"{bucket}/runs/judged")
    assert judged.returncode == 0, judged.stderr
    shares = json.loads(folder_at(f"{bucket}/runs/judged").read("summary.json"))["target_share"]
    assert len(shares) == 2 and len(set(shares.values())) == 1, "the verifier is the teacher itself"
