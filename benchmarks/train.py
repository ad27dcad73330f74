"""How `raydream train` compares with a plain loop: CPU-seconds for the same steps, and accuracy after some epochs.

    OMP_NUM_THREADS=1 python benchmarks/train.py --config configs/cifar10_vgg11_teacher.yaml --train TRAIN.parquet \
        --test TEST.parquet --steps 10 --turns 5 --images 10000 --epochs 3 --seeds 3 --json OUT

Both train the network of the configuration, on the same images, by SGD with the same schedule, in its precision. The
plain loop is what a user writes with torch alone: it draws its own order, crops and flips. For the speed the two take
turns, and CPU-seconds are counted, as they depend little on other work on the machine. For the accuracy each is trained
from scratch once a seed. The validation split, a share of the training images, may choose; the test split is reported.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn import functional

from raydream.compute import autocast, choose_dtype, use_device
from raydream.config import DataConfig, TeacherConfig, TeacherJobConfig, TrainingConfig
from raydream.config.conversion import as_dict, validate
from raydream.data import check_data
from raydream.data.sources import evenly_spread
from raydream.data.splits import Split
from raydream.evaluation.accuracy import accuracy_on
from raydream.networks import build_teacher
from raydream.store.atomic import write_json
from raydream.students.learning import learn_epochs
from raydream.supervised.training import begin_teacher
from raydream.teachers.normalization import Normalization

Run = Callable[[TeacherConfig, TrainingConfig, Split, torch.device, int | None], tuple[nn.Module, list[float]]]
"""trains to the end, or for a number of steps; returns the network, and the CPU-seconds of each step"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10, help="of a turn, before which two are not counted")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000, help="training images of the runs for the accuracy")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="0: the speed alone")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    device = use_device(given.device, torch.get_num_threads(), torch.cuda.device_count())
    config = validate(TeacherJobConfig, yaml.safe_load(given.config.read_text(encoding="utf-8")))
    data = DataConfig(name="files", train=given.train, test=given.test, resize=config.data.resize)
    real = check_data(data, config.teacher, train=True)
    assert real is not None
    rows = evenly_spread(range(len(real.train.labels)), given.images)  # files may be sorted by class
    part = Split(real.train.images[rows], real.train.labels[rows])
    found: dict[str, Any] = {"settings": as_dict(config.training), "threads": torch.get_num_threads()}
    found |= {"device": device.type, "torch": torch.__version__, "dtype": str(choose_dtype("auto", device))}
    found["speed"] = _speed(config, part, device, given.steps, given.turns)
    write_json(given.json, found)
    steps = given.epochs * (len(part.labels) // config.training.batch_size)
    warm_up = min(config.training.warm_up, steps // 10)  # that of a long run would not end within a short one
    training = replace(config.training, epochs=given.epochs, warm_up=warm_up)
    normalization = Normalization(config.teacher.mean, config.teacher.std)
    accuracies: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        for name, run in LOOPS.items():
            network, _ = run(config.teacher, replace(training, seed=seed), part, device, None)
            measure = partial(accuracy_on, device, network.eval(), normalization)
            splits = {"validation": real.validation, "test": real.test}
            shares = {split: measure(each.images, each.labels) for split, each in splits.items()}
            accuracies.append({"loop": name, "seed": seed, **shares})
            found |= {"images": len(part.labels), "epochs": given.epochs, "warm_up": warm_up, "accuracies": accuracies}
            write_json(given.json, found)
    print(json.dumps(found, indent=1))


def _speed(config: TeacherJobConfig, part: Split, device: torch.device, steps: int, turns: int) -> dict[str, Any]:
    """Return the CPU-seconds per step of both loops (medians of a turn), turn by turn, and the median of the ratios."""
    medians: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(turns):
        for name, run in LOOPS.items():
            _, seconds = run(config.teacher, config.training, part, device, steps + 2)
            medians[name].append(statistics.median(seconds[2:]))
    ratios = [plain / own for plain, own in zip(medians["plain"], medians["raydream"], strict=True)]
    return {"cpu_s_per_step": medians, "speed_of_plain": statistics.median(ratios), "ratios": ratios}


class _EnoughError(Exception):
    """Ends a loop after the asked number of steps."""


class _Clock:
    """Notes the CPU-seconds of each step; raises _EnoughError after the last."""

    def __init__(self, device: torch.device, steps: int | None) -> None:
        self._device, self._steps, self.seconds = device, steps, list[float]()
        self._began = time.process_time()

    def __call__(self, *_: object) -> None:
        if self._steps is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        now = time.process_time()
        self.seconds.append(now - self._began)
        self._began = now
        if len(self.seconds) == self._steps:
            raise _EnoughError


def _raydream(
    teacher: TeacherConfig, config: TrainingConfig, part: Split, device: torch.device, steps: int | None
) -> tuple[nn.Module, list[float]]:
    learning, feed = begin_teacher(teacher, config, part, device, lambda network: network.to(device))
    clock = _Clock(device, steps)
    with contextlib.suppress(_EnoughError):
        learn_epochs(learning, feed.epochs, 0, feed.epoch, on_step=clock)
    return learning.learned, clock.seconds


def _plain(
    teacher: TeacherConfig, config: TrainingConfig, part: Split, device: torch.device, steps: int | None
) -> tuple[nn.Module, list[float]]:
    """Train as a user would with torch alone: SGD, warm-up and cosine, padded crops and flips of a whole batch."""
    torch.manual_seed(1_000 + config.seed)
    network = build_teacher(teacher).to(device).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (teacher.mean, teacher.std))
    x, labels = torch.tensor(part.images, device=device), torch.tensor(part.labels, device=device)
    per_epoch, dtype = len(x) // config.batch_size, choose_dtype(config.precision, device)
    total = config.epochs * per_epoch
    optimizer = torch.optim.SGD(
        network.parameters(), config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / max(1, config.warm_up), total_iters=config.warm_up - 1)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - config.warm_up))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [config.warm_up])
    clock, (height, width), most = _Clock(device, steps), x.shape[2:], config.shift
    network.train()
    for _ in range(config.epochs):
        for rows in torch.split(torch.randperm(len(x))[: per_epoch * config.batch_size].to(device), config.batch_size):
            padded = functional.pad(x[rows], (most,) * 4)
            corners = torch.randint(0, 2 * most + 1, (len(rows), 2)).tolist()
            crops = [image[:, top : top + height, left : left + width] for image, (top, left) in zip(padded, corners)]  # noqa: B905
            view = ((torch.stack(crops).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            mirrored = (torch.rand(len(rows), device=device) < 0.5).view(-1, 1, 1, 1)
            view = torch.where(mirrored, view.flip(3), view)
            with autocast(dtype, device):
                loss = functional.cross_entropy(network(view), labels[rows], label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            try:
                clock()
            except _EnoughError:
                return network, clock.seconds
    return network, clock.seconds


LOOPS: dict[str, Run] = {"plain": _plain, "raydream": _raydream}


if __name__ == "__main__":
    main()
