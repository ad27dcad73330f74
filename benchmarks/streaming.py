"""A finished set of images through both feeds of `jobs/transfer.py`, in a Train worker.

  python benchmarks/streaming.py --json OUT

Memory and stream take turns over the same set in one run: first alone, then with a small student that learns. Then a
set that is larger than a small object store is streamed, and the memory that it takes is watched.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import raydream.runtime  # isort: skip  # noqa: F401  (Ray reads its settings when it is imported)
import numpy as np
import ray
import ray.train
import ray.train.torch
import torch

from raydream.config import StudentConfig, TeacherConfig
from raydream.data.sources import Images, Shards
from raydream.machine import machine_cpus
from raydream.networks import build_student, build_teacher
from raydream.runtime.feeds import Feed, make_feed
from raydream.runtime.learner import Waits
from raydream.runtime.session import machine_text, object_store_bytes
from raydream.schedule import Epochs
from raydream.store.atomic import write_json
from raydream.store.records import BatchId, ImageBatch, Provenance
from raydream.store.shards import ShardStore
from raydream.students.distillation import Distiller
from raydream.teachers.teacher import make_teacher

SHAPE, PER_SHARD = (3, 32, 32), 256
SHARDS = 40
LARGE_SHARDS = 533
"""400 MiB of images"""
SMALL_STORE = 150 * 2**20
TURNS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    result: dict[str, Any] = {"machine": machine_text(), "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        with _session():
            store, epochs = _make_set(Path(folder) / "set", SHARDS)
            feeds = {
                name: make_feed(name, Images.of(Shards.of(store)), SHAPE, epochs, 0, object_store_bytes())
                for name in ("memory", "stream")
            }
            result |= {"images": epochs.images} | _in_worker(_take_turns, feeds, Path(folder))
        with _session(object_store_memory=SMALL_STORE):
            store, epochs = _make_set(Path(folder) / "large", LARGE_SHARDS)
            feed = make_feed("auto", Images.of(Shards.of(store)), SHAPE, epochs, 0, object_store_bytes())
            result["large_set"] = {"images": epochs.images, "feed": feed.name, "object_store_mib": SMALL_STORE / 2**20}
            result["large_set"] |= _in_worker(_watch_memory, {feed.name: feed}, Path(folder))
    print(json.dumps(result, indent=1))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, result)


@contextmanager
def _session(**options: Any) -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=machine_cpus(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **options,
    )
    try:
        yield
    finally:
        ray.shutdown()


def _make_set(folder: Path, shards: int) -> tuple[ShardStore, Epochs]:
    """Shards of noise, which no compression makes smaller."""
    store, random = ShardStore(folder), np.random.default_rng(0)
    targets, logits = np.zeros(PER_SHARD, np.int64), np.zeros((PER_SHARD, 10), np.float32)
    for index in range(shards):
        provenance = Provenance("bench", str(BatchId(0, index)), 0, 0, "none", "", None, None, 0, {}, {}, {}, 0.0)
        pixels = random.integers(0, 256, (PER_SHARD, *SHAPE), dtype=np.uint8)
        store.write(ImageBatch(pixels, targets, logits, provenance))
    return store, Epochs(shards * PER_SHARD, PER_SHARD, 100)


def _in_worker(measure: Any, feeds: dict[str, Feed], folder: Path) -> dict[str, Any]:
    """What is measured in one Train worker, which gets its images by these feeds."""
    answer = folder / "answer.json"

    def work(given: dict[str, Feed]) -> None:
        torch.set_num_threads(1)
        answer.write_text(json.dumps(measure(given)), encoding="utf-8")

    ray.get(ray.remote(num_cpus=0)(_train).remote(work, feeds, str(folder / "train")))
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _train(work: Any, feeds: dict[str, Feed], storage: str) -> None:
    datasets = {name: dataset for feed in feeds.values() for name, dataset in feed.datasets(0).items()}
    ray.train.torch.TorchTrainer(
        work,
        train_loop_config=feeds,
        datasets=datasets,
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(storage_path=storage),
    ).fit()


def _take_turns(feeds: dict[str, Feed]) -> dict[str, Any]:
    """Images per second of each feed alone; with a student, its images per second and the share of time it waits."""
    config = TeacherConfig(arguments={"width": 4}, input_shape=SHAPE, mean=(0.5,) * 3, std=(0.25,) * 3)
    teacher, student = (
        make_teacher(build_teacher(config), config),
        StudentConfig(arguments={"width": 4}, precision="fp32"),
    )
    distiller = Distiller(teacher, build_student(student, config), student, 10**6, 0)
    alone: dict[str, list[float]] = {name: [] for name in feeds}
    learning: dict[str, list[float]] = {name: [] for name in feeds}
    shares: dict[str, list[float]] = {name: [] for name in feeds}
    steps = SHARDS  # as many as there are batches
    for turn in range(1 + TURNS):
        for name, feed in feeds.items():
            began, seen = time.perf_counter(), 0
            for images in feed.epoch(turn, 0, 1):
                seen += len(images)
            alone[name].append(seen / (time.perf_counter() - began))
    for turn in range(1 + TURNS):
        for name, feed in feeds.items():
            began, waits, seen, batches = time.perf_counter(), Waits(), 0, feed.epoch(turn, 0, 1)
            for _ in range(steps):
                with waits.waiting():
                    images = next(batches)
                distiller.step(images, turn)
                seen += len(images)
            next(batches, None)
            seconds = time.perf_counter() - began
            learning[name].append(seen / seconds)
            shares[name].append(waits.waited_s / seconds)
    return {
        name: {
            "images_per_s": statistics.median(alone[name][1:]),
            "images_per_s_with_student": statistics.median(learning[name][1:]),
            "wait_share_with_student": statistics.median(shares[name][1:]),
        }
        for name in feeds
    }


def _watch_memory(feeds: dict[str, Feed]) -> dict[str, Any]:
    """The most memory that this process has of its own (without the object store's) in two epochs of a feed."""
    (feed,) = feeds.values()
    before, peak, done = _own_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, _own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, seen = time.perf_counter(), 0
    for epoch in range(2):
        for images in feed.epoch(epoch, 0, 1):
            seen += len(images)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return {
        "images_mib": seen / 2 * int(np.prod(SHAPE)) / 2**20,
        "images_per_s": seen / seconds,
        "worker_mib_before": before / 2**20,
        "worker_mib_peak": peak / 2**20,
    }


def _own_bytes() -> int:
    """Anonymous memory of this process."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
