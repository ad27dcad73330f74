"""An update of the pixels, and a step of a student, by several versions of the code, in turns.

    python benchmarks/updates.py --trees before=../before after=. --turns 7 --json benchmarks/results/updates.json

A tree is a folder with a checkout, by a name for the table. Each has a process, which stays, so that all compile and
warm up once, and take turns after that. Networks have random weights. Beside them stands what no version can go below:
forward and backward pass of the same networks to the pixels, uncompiled, in the first tree's process. Measured is CPU
time of one thread, which other work on the machine disturbs least.
"""

import argparse
import copy
import inspect
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

DIGITS = ("digits", {"width": 16}, (1, 8, 8), 64, "fp32", "off")
RESNET20: tuple[Any, ...] = ("cifar_resnet20", {}, (3, 32, 32), 256)
WORKS: dict[str, tuple[Any, ...]] = {
    "digits, 64 images, DeepInversion": ("deep_inversion", *DIGITS),
    "digits, 64 images, adaptive": ("adaptive", *DIGITS),
    "digits, 64 images, both networks' passes": ("bare", *DIGITS),
    "digits, 128 images, distillation": ("distill", "digits", {"width": 16}, (1, 8, 8), 128, "fp32", "off"),
    "ResNet-20, 256 images, DeepInversion, bf16": ("deep_inversion", *RESNET20, "bf16", "on"),
    "ResNet-20, 256 images, adaptive, bf16": ("adaptive", *RESNET20, "bf16", "on"),
    "ResNet-20, 256 images, distillation, bf16": ("distill", *RESNET20, "bf16", "off"),
}
UPDATES = {"digits": 50, "cifar_resnet20": 5}
"""in a turn"""
LONG = 1000
"""batches of the run that each update is one of, by which an engine decides how to compile"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write after each turn, and print medians and ratios to the first tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", nargs="+", required=True, help="NAME=FOLDER, the first is compared with")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    folders = {name: Path(folder).resolve() for name, _, folder in (each.partition("=") for each in given.trees)}
    found: dict[str, dict[str, list[float]]] = {}
    for work in WORKS:
        processes = {name: _process(folder, work) for name, folder in folders.items()}
        found[work] = {name: [] for name in processes}
        for turn in range(given.turns + 1):
            for name, process in processes.items():
                ms = _turn(process)
                if turn:  # the first one compiles
                    found[work][name].append(ms)
        for process in processes.values():
            process.communicate()
        given.json.write_text(json.dumps({"rows": rows(found), "ms": found}, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(rows(found)[-1]), flush=True)


def rows(found: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Medians of each work and tree, in ms of CPU, and their ratios to the first tree's."""
    table = []
    for work, by_tree in found.items():
        medians = {name: statistics.median(ms) for name, ms in by_tree.items()}
        first = next(iter(medians.values()))
        table.append({"work": work, "ms": medians, "ratio": {name: ms / first for name, ms in medians.items()}})
    return table


def _process(folder: Path, work: str) -> subprocess.Popen[str]:
    # Of this file with that tree's package.
    code = f"import sys; sys.path[:0] = {[str(folder / 'platform'), str(Path(__file__).parent)]}\n"
    code += f"import updates; updates.serve({work!r})"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdin=pipe, stdout=pipe, text=True)


def _turn(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("turn\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def serve(work: str) -> None:
    """Answer each line on the standard input with the ms of CPU that an update took, on average over a turn."""
    from raydream.compute import use_device

    use_device("cpu", 1, 0)
    updates = UPDATES[WORKS[work][1]]
    turn = _loop(updates, *WORKS[work])
    for _ in sys.stdin:
        began = time.process_time()
        turn()
        print(1000 * (time.process_time() - began) / updates, flush=True)


def _loop(
    updates: int,
    does: str,
    network: str,
    arguments: dict[str, Any],
    shape: tuple[int, int, int],
    images: int,
    precision: Any,
    compiled: Any,
) -> Callable[[], object]:
    """Return a turn of one of `WORKS`, by whatever version of the package is imported."""
    from raydream.config import CoefficientsConfig, StudentConfig, SynthesisConfig, TeacherConfig
    from raydream.networks import build_teacher
    from raydream.students.distillation import Distiller
    from raydream.synthesis import SYNTHESIZERS, Request
    from raydream.teachers.teacher import make_teacher

    own: Any = {"network": network, "arguments": arguments, "input_shape": shape, "classes": 10}
    described = TeacherConfig(mean=(0.5,) * shape[0], std=(0.225,) * shape[0], **own)
    torch.manual_seed(0)
    teacher, student = make_teacher(build_teacher(described), described), build_teacher(described)
    if does == "distill":
        config = StudentConfig(network=network, batch_size=images, precision=precision)
        distiller = Distiller(teacher, student, config, 10_000, 0)
        batch = torch.randint(0, 256, (images, *shape), dtype=torch.uint8)
        return lambda: [distiller.step(batch, step) for step in range(updates)]
    if does == "bare":
        networks = [copy.deepcopy(each).eval().requires_grad_(False) for each in (teacher.network, student)]
        return lambda: _passes(networks, torch.randn(images, *shape), updates)
    synthesis = SynthesisConfig(
        method=does,
        batch_size=images,
        iterations=updates,
        jitter=2,
        precision=precision,
        compile=compiled,
        coefficients=CoefficientsConfig(competition=10.0 if does == "adaptive" else 0.0),
    )
    kind = SYNTHESIZERS[does]
    run = {"batches": LONG} if "batches" in inspect.signature(kind).parameters else {}  # version 0.1 has none
    synthesizer = kind(teacher, synthesis, **run)
    request = Request(torch.arange(images) % 10, 0, student if does == "adaptive" else None)
    return lambda: synthesizer.synthesize(request)


def _passes(networks: list[torch.nn.Module], images: torch.Tensor, updates: int) -> None:
    for _ in range(updates):
        x = images.contiguous(memory_format=torch.channels_last).detach().requires_grad_(True)
        torch.autograd.backward(sum((network(x).sum() for network in networks), start=torch.zeros(())))


if __name__ == "__main__":
    main()
