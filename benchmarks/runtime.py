"""What the runtime costs beside the work it carries: each figure is a ratio, or a rate, within one run.

    python benchmarks/runtime.py --json OUT

Generation through Ray is timed against the bare synthesizer in a loop, one and two generators against each other,
turn by turn; a checkpoint of a batch in progress against the seconds between two; reading minibatches through the
buffer against plain `ray.get` of the same arrays; the buffer's calls with 10 and with 10,000 batches held. The
student's waits are those of a whole digits run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import raydream.runtime  # isort: skip  # noqa: F401  (Ray reads its settings when it is imported)
import numpy as np
import pandas as pd
import ray
import ray.experimental
import torch
import yaml

from raydream.buffer.index import gather
from raydream.buffer.limiter import SamplesPerInsert
from raydream.compute import use_device
from raydream.config import DistillConfig, GeneratorsConfig
from raydream.config.conversion import validate
from raydream.config.runtime import CHECKPOINT_S
from raydream.machine import machine_cpus
from raydream.runtime.buffer import Buffer, BufferPlan
from raydream.runtime.generator import Generator, GeneratorPlan
from raydream.runtime.learner import Waits
from raydream.runtime.messages import ReportQueue
from raydream.runtime.session import machine_text
from raydream.runtime.student import BufferFeed, StudentPlan
from raydream.schedule import Schedule
from raydream.store.atomic import write_json
from raydream.store.folders import folder_at
from raydream.store.records import BatchId, ImageBatch, Order, Provenance, Snapshot
from raydream.store.shards import ShardStore, file_name
from raydream.store.unfinished import UnfinishedBatches
from raydream.supervised.library import trained_teacher
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.checkpoint import Checkpoint, Record
from raydream.synthesis.resuming import BatchInProgress, Checkpointing
from raydream.teachers.teacher import Teacher, teacher_from_arrays, to_arrays

ROOT = Path(__file__).parents[1]
TURNS = 7
BATCHES = 6
"""made in each turn"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    settings = yaml.safe_load((ROOT / "configs/digits.yaml").read_text(encoding="utf-8"))
    settings["synthesis"]["method"] = "deep_inversion"
    config = validate(DistillConfig, settings)
    result: dict[str, Any] = {"machine": machine_text()}
    with tempfile.TemporaryDirectory() as folder:
        result |= _checkpointing(Path(folder) / "unfinished")
        result |= _student_waits(Path(folder) / "run")
        teacher, _ = trained_teacher(config.teacher, config.training, config.data)
        ray.init(address="local", num_cpus=machine_cpus(), include_dashboard=False, log_to_driver=False)
        try:
            (Path(folder) / "made").mkdir()
            result |= _generation(config, teacher, Path(folder) / "made")
            result |= _reading(config, Path(folder) / "read")
            for held in (10, 10_000):
                result |= _buffer_rate(config, held, Path(folder) / f"held{held}")
        finally:
            ray.shutdown()
    print(json.dumps(result, indent=1))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, result)


def _generation(config: DistillConfig, teacher: Teacher, folder: Path) -> dict[str, Any]:
    """The bare synthesizer in this process, one generator, and two, each making the same batches with one thread."""
    use_device("cpu", 1, 0)
    schedule = Schedule.of(config)
    orders = [schedule.order(BatchId(0, index), config) for index in range(BATCHES)]
    maker = BatchMaker("bare", teacher, config.synthesis)
    actor = ray.remote(num_cpus=0.5)(Generator)
    weights, reports = ray.put(to_arrays(teacher.network)), ReportQueue()
    one_thread = GeneratorsConfig(cpus=0.5)
    counter = iter(range(10**6))

    def plan(name: str) -> GeneratorPlan:
        place = folder_at(folder / name)
        return GeneratorPlan("bench", "cpu", config.teacher, config.synthesis, None, one_thread, place, place)

    pair = [actor.remote(index, plan(f"pair{index}")) for index in range(2)]

    def bare() -> None:
        for order in orders:
            maker.make(order, None, None)

    def through(generators: list[Any]) -> Callable[[], None]:
        def turn() -> None:
            waiting = [_fresh(order, next(counter)) for order in orders * len(generators)]
            busy: dict[Any, Any] = {}
            while waiting or busy:
                for generator in generators:
                    if waiting and generator not in busy.values():
                        make = generator.make.options(num_returns=2)
                        busy[make.remote(waiting.pop(0), weights, None, None, reports)[0]] = generator
                for done in ray.wait(list(busy), num_returns=1)[0]:
                    ray.get(done)
                    busy.pop(done)

        return turn

    processes = ProcessPoolExecutor(2, get_context("spawn"), _Bare.begin, (config, to_arrays(teacher.network)))
    with processes:

        def two_bare() -> None:
            list(processes.map(_Bare.make, [orders, orders]))

        seconds = _alternating({"bare": bare, "one": through(pair[:1]), "two": through(pair), "two bare": two_bare})
    store, batch = ShardStore(folder / "bare"), maker.make(orders[0], None, None).batch

    def commit() -> None:
        store.folder.delete(file_name(batch.id))  # what is committed would stay
        store.write(batch)

    writes = _alternating({"write": commit})
    return {
        "runtime_efficiency": _ratio(seconds["bare"], seconds["one"]),
        "two_generator_speedup": 2 * _ratio(seconds["one"], seconds["two"]),
        "two_bare_processes_speedup": 2 * _ratio(seconds["bare"], seconds["two bare"]),
        "seconds_per_batch": statistics.median(seconds["bare"]) / BATCHES,
        "durability_share_of_batch": statistics.median(writes["write"]) * BATCHES / statistics.median(seconds["bare"]),
        "generator_mib": statistics.mean(_bytes_of(generator) for generator in pair) / 2**20,
    }


def _checkpointing(folder: Path) -> dict[str, Any]:
    """A checkpoint of the published ImageNet batch, 84 images of 3x224x224, which competes with a ResNet-18."""
    pixels = torch.randn(84, 3, 224, 224).contiguous(memory_format=torch.channels_last).requires_grad_()
    optimizer = torch.optim.Adam([pixels], fused=True)
    pixels.grad = torch.zeros_like(pixels)
    optimizer.step()
    student = Snapshot(0, {"weights": np.zeros(11_700_000, np.float32)})
    settings = Checkpointing(UnfinishedBatches(folder_at(folder)), every_s=1e-9)

    def write() -> None:
        progress, random = BatchInProgress(settings, BatchId(0, 0), "key"), torch.Generator()
        progress.keep(lambda: Checkpoint.of(0, Record(1, {}, []), random, optimizer), student, lambda: "")

    seconds = statistics.median(_alternating({"write": write})["write"])
    return {
        "checkpoint_s": seconds,
        "checkpoint_share_of_batch": seconds / CHECKPOINT_S,
        "checkpoint_mib": sum(size for size, _ in folder_at(folder).stamps().values()) / 2**20,
    }


class _Bare:
    """A synthesizer in a process of its own that Ray knows nothing of."""

    maker: BatchMaker

    @classmethod
    def begin(cls, config: DistillConfig, weights: dict[str, np.ndarray]) -> None:
        use_device("cpu", 1, 0)
        cls.maker = BatchMaker("bare", teacher_from_arrays(config.teacher, weights), config.synthesis)

    @classmethod
    def make(cls, orders: list[Order]) -> None:
        for order in orders:
            cls.maker.make(order, None, None)


def _bytes_of(actor: Any) -> int:
    """Resident memory of an actor's process."""
    pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _fresh(order: Order, index: int) -> Order:
    """The same work under another id, as a committed batch would not be made again."""
    return replace(order, batch=BatchId(1, index))


def _ratio(one: list[float], other: list[float]) -> float:
    """The median of the ratios of turns that followed each other, as a machine's speed drifts."""
    return statistics.median(first / second for first, second in zip(one, other, strict=True))


def _alternating(turns: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(1 + TURNS):
        for name, turn in turns.items():
            began = time.perf_counter()
            turn()
            seconds[name].append(time.perf_counter() - began)
    return {name: values[1:] for name, values in seconds.items()}


def _buffer(config: DistillConfig, handles: dict[BatchId, Any], images: int, folder: Path) -> tuple[Any, Schedule]:
    """A buffer actor that holds batches of so many images, for a student of a million steps."""
    counts = {"initial_batches": len(handles), "rounds": 0, "batch_images": images, "final_steps": 10**6}
    schedule = replace(Schedule.of(config), **counts)
    limiter, block = SamplesPerInsert(schedule), config.buffer.block_steps
    plan = BufferPlan(schedule, limiter, config.seed, folder_at(folder), block, len(handles), 60.0)
    buffer = ray.remote(num_cpus=0)(Buffer).remote(plan)
    for batch, handle in handles.items():
        ray.get(buffer.insert.remote(batch, [handle]))
    return buffer, schedule


def _reading(config: DistillConfig, folder: Path) -> dict[str, Any]:
    """Steps of 256 images of 3x32x32 from ten batches of 256: by the student's feed, and by plain ray.get."""
    config = replace(config, student=replace(config.student, batch_size=256))
    random, handles = np.random.default_rng(0), {}
    for index in range(10):
        pixels = random.integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
        provenance = Provenance("bench", str(BatchId(0, index)), 0, 0, "none", "", None, None, 0, {}, {}, {}, 0.0)
        made = ImageBatch(pixels, np.zeros(256, np.int64), np.zeros((256, 10), np.float32), provenance)
        handles[BatchId(0, index)] = ray.put(made)
    buffer, schedule = _buffer(config, handles, 256, folder)
    steps = 2000
    plan = StudentPlan(config, schedule, [], buffer, ReportQueue(), folder_at(folder), 10)
    first_steps = iter(range(0, 10**6, steps))

    def through_feed() -> None:
        first = next(first_steps)
        feed = BufferFeed(plan, first, 0, 1, Waits())
        for step in range(first, first + steps):
            feed.images(step)

    def by_get() -> None:
        for _ in range(steps):
            arrays = [batch.images for batch in ray.get(list(handles.values()))]
            which, rows = np.divmod(random.choice(2560, 256, replace=False), 256)
            gather(arrays, np.stack([which, rows], axis=1))

    seconds = _alternating({"feed": through_feed, "get": by_get})
    return {
        "store_read_ratio": _ratio(seconds["get"], seconds["feed"]),
        "read_step_ms": 1e3 * statistics.median(seconds["feed"]) / steps,
        "store_bytes_per_image": statistics.mean(_object_sizes(list(handles.values()))) / 256,
        "pixel_bytes_per_image": 3 * 32 * 32,
    }


def _object_sizes(references: list[ray.ObjectRef]) -> list[int]:
    """Bytes in the object store, by reference."""
    found = ray.experimental.get_object_locations(references)
    return [found[reference]["object_size"] for reference in references]


def _buffer_rate(config: DistillConfig, held: int, folder: Path) -> dict[str, Any]:
    """Draws of one block each, and repeated insertions, answered per second, and the buffer's memory."""
    handle = ray.put(b"")
    buffer, _ = _buffer(config, {BatchId(0, index): handle for index in range(held)}, 256, folder)
    first_steps = iter(range(0, 10**6, config.buffer.block_steps))

    def turn() -> None:
        for _ in range(200):
            ray.get(buffer.draw.remote(next(first_steps), 0, 1))
            ray.get(buffer.insert.remote(BatchId(0, 0), [handle]))

    return {
        f"buffer_ops_per_s_{held}": 400 / statistics.median(_alternating({"calls": turn})["calls"]),
        f"buffer_mib_{held}": _bytes_of(buffer) / 2**20,
    }


def _student_waits(run_dir: Path) -> dict[str, Any]:
    """Of a digits run that learns from images which are there already: the share of its time spent waiting."""
    options = ["--rounds.count", "0", "--rounds.initial_batches", "8", "--rounds.final_steps", "600"]
    options += [
        "--synthesis.method",
        "deep_inversion",
        "--synthesis.iterations",
        "50",
        "--reuse",
        "",
        "--run-dir",
        str(run_dir),
    ]
    command = [sys.executable, "jobs/distill.py", "--config", "configs/digits.yaml", *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    metrics = pd.read_parquet(run_dir / "metrics.parquet")
    waited = metrics.loc[metrics["name"] == "student/waited_s", "value"].iloc[1:].sum()
    busy = metrics.loc[metrics["name"] == "span/train", "duration_s"].iloc[1:].sum()
    return {"student_wait_share": float(waited / (waited + busy)), "student_steps": 600}


if __name__ == "__main__":
    main()
