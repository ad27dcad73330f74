"""Time the inversion engine against the plain loop and against the limit, in one run, alternating.

    python benchmarks/inversion.py --json OUT [--config configs/X.yaml ...] [--verifier NETWORK=CHECKPOINT]

Three things are timed for each method, precision and stage: (a) the engine, as `jobs/synthesize.py` runs it; (b) the
plain loop as commonly published (raydream/device_check/plain_loop.py), in a process of its own, as the engine changes
how its process handles memory; (c) the limit, which is the same networks' forward pass and backward pass to the input
without any loss term, with the engine's compiler, precision and memory layout. Beside them stands the machine's matrix
rate. With a verifier, the images of both loops are compared over seeds as well.
"""

import argparse
import contextlib
import copy
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import yaml

from raydream.compute import DTYPES, autocast, counted, use_device
from raydream.config import SynthesisConfig, SynthesizeConfig
from raydream.config.conversion import validate
from raydream.device_check.plain_loop import PlainLoop
from raydream.machine import machine_cpus
from raydream.networks import build_teacher
from raydream.networks.observed import frozen_copy
from raydream.search.space import merged
from raydream.store.atomic import write_json
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.synthesis.stages import Stage, stages_of
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher, make_teacher

LONG = 1000
"""batches of the run that the engine's updates are part of, by which it decides how to compile"""
COMPETITION = 10.0
"""alpha_c of the adaptive timings (the paper's)"""


@dataclass(frozen=True)
class Bench:
    """What is timed."""

    config: SynthesizeConfig
    teacher: Teacher
    repeats: int
    updates: int

    @property
    def device(self) -> torch.device:
        return self.teacher.device

    def targets(self) -> torch.Tensor:
        count = self.config.synthesis.batch_size
        return torch.arange(count, device=self.device) % self.config.teacher.classes

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", help="as for jobs/synthesize.py; several override each other")
    parser.add_argument("--random-weights", action="store_true", help="ignore the checkpoint: do for timing")
    parser.add_argument("--verifier", help="NETWORK=CHECKPOINT: compare images over seeds, too")
    parser.add_argument("--methods", default="deep_inversion,adaptive")
    parser.add_argument("--precisions", default="bf16,fp32")
    parser.add_argument("--plain-precision", default="fp32", help="autocast for the plain loop")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each")
    parser.add_argument("--updates", type=int, default=10, help="in each turn")
    parser.add_argument("--quality-updates", type=int, default=200)
    parser.add_argument("--quality-seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args(arguments)
    bench = _bench(given, use_device(given.device, machine_cpus(), torch.cuda.device_count()))
    peer = Peer(given, bench.device)
    result: dict[str, Any] = {"machine": _machine(bench)}
    for method in given.methods.split(","):
        result[method] = _method(bench, peer, method, given.precisions.split(","))
        print(json.dumps({method: result[method]}, indent=1), flush=True)
    if given.verifier:
        result["quality"] = _quality(bench, given.verifier, given.quality_updates, given.quality_seeds)
        print(json.dumps(result["quality"], indent=1), flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.json, result)


def _bench(given: argparse.Namespace, device: torch.device) -> Bench:
    settings: dict[str, Any] = {}
    for path in given.config or ["configs/cifar10_resnet20.yaml"]:
        settings = merged(settings, yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    config = validate(SynthesizeConfig, settings)
    if given.random_weights:
        torch.manual_seed(0)
        teacher = make_teacher(build_teacher(config.teacher), config.teacher)
    else:
        teacher = load_teacher(config.teacher)
    return Bench(config, teacher.to(device), given.repeats, given.updates)


class Peer:
    """The plain loop in a process of its own, one turn at a time.

    Args:
        given: the command line.
        device: to compute on.
    """

    def __init__(self, given: argparse.Namespace, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve_plain, args=(theirs, given, device), daemon=True).start()

    @contextlib.contextmanager
    def turns(self, method: str, stage: Stage) -> Iterator[Callable[[], None]]:
        """What does one turn of a method at a stage."""

        def turn() -> None:
            self._pipe.send(True)
            self._pipe.recv()

        self._pipe.send((method, stage))
        yield turn
        self._pipe.send(False)


def _serve_plain(pipe: Connection, given: argparse.Namespace, device: torch.device) -> None:
    torch.set_num_threads(machine_cpus())
    bench = _bench(given, device)
    with contextlib.suppress(EOFError):  # the other end is gone: all is measured
        while True:
            method, stage = pipe.recv()
            turn = _plain(bench, method, stage, DTYPES[given.plain_precision])
            while pipe.recv():
                turn()
                bench.wait()
                pipe.send(None)


def _method(bench: Bench, peer: Peer, method: str, precisions: list[str]) -> dict[str, Any]:
    """All stages of one method; seconds per update are medians, a batch's seconds are those times its updates."""
    stages = stages_of(bench.config.synthesis, bench.teacher.config.input_shape[1:])
    by_stage = [_stage(bench, peer, method, stage, precisions) for stage in stages]
    result: dict[str, Any] = {"stages": by_stage}
    for name in [key for key in by_stage[0] if key.endswith("_s")]:
        total = sum(figures[name] * stage.iterations for figures, stage in zip(by_stage, stages, strict=True))
        result[name.replace("_s", "_batch_s")] = total
    for precision in precisions:
        engine = result[f"engine_{precision}_batch_s"]
        result[f"speedup_{precision}"] = result["plain_batch_s"] / engine
        result[f"over_limit_{precision}"] = engine / result[f"limit_{precision}_batch_s"]
    result["over_limit"] = result[f"over_limit_{precisions[0]}"]
    return result


def _stage(bench: Bench, peer: Peer, method: str, stage: Stage, precisions: list[str]) -> dict[str, Any]:
    student = copy.deepcopy(bench.teacher.network) if method == "adaptive" else None
    turns: dict[str, Callable[[], None]] = {}
    for precision in precisions:
        for name, make in (("engine", _engine), ("limit", _limit)):
            turns[f"{name}_{precision}"] = make(bench, method, stage, student, precision)
    with peer.turns(method, stage) as plain:
        return {"size": list(stage.size), **_timed(bench, {"plain": plain, **turns})}


def _timed(bench: Bench, turns: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds per update of each, turn by turn, after two turns that compile and warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(2 + bench.repeats):
        for name, turn in turns.items():
            bench.wait()
            began = time.perf_counter()
            turn()
            bench.wait()
            seconds[name].append(time.perf_counter() - began)
    first = {f"{name}_first_turn_seconds": values[0] for name, values in seconds.items()}
    medians = {f"{name}_s": statistics.median(values[2:]) / bench.updates for name, values in seconds.items()}
    return first | medians


def _synthesis(bench: Bench, method: Any, stage: Stage, precision: Any) -> SynthesisConfig:
    """A single stage of so many updates, at the stage's size."""
    coefficients = replace(bench.config.synthesis.coefficients, competition=COMPETITION)
    return replace(
        bench.config.synthesis,
        method=method,
        iterations=bench.updates,
        stages=(),
        warm_up=0,
        jitter=stage.jitter,
        precision=precision,
        compile="on",
        coefficients=coefficients,
    )


def _at(bench: Bench, stage: Stage) -> Teacher:
    shape = (bench.teacher.config.input_shape[0], *stage.size)
    return replace(bench.teacher, config=replace(bench.teacher.config, input_shape=shape))


def _engine(
    bench: Bench, method: str, stage: Stage, student: torch.nn.Module | None, precision: str
) -> Callable[[], None]:
    synthesizer = SYNTHESIZERS[method](_at(bench, stage), _synthesis(bench, method, stage, precision), LONG)
    request = Request(bench.targets(), seed=0, student=student)

    def turn() -> None:
        made = synthesizer.synthesize(request)
        if made.notes:
            raise SystemExit(f"the engine did not run as asked: {made.notes}")

    return turn


def _plain(bench: Bench, method: str, stage: Stage, dtype: torch.dtype) -> Callable[[], None]:
    own = replace(bench.teacher, network=copy.deepcopy(bench.teacher.network))
    student = copy.deepcopy(bench.teacher.network) if method == "adaptive" else None
    config = _synthesis(bench, method, stage, "fp32")
    short = replace(stage, iterations=bench.updates)
    loop = PlainLoop(own, student, config, short, dtype)

    def turn() -> None:
        loop.run(bench.targets(), seed=0)

    return turn


def _limit(
    bench: Bench, method: str, stage: Stage, student: torch.nn.Module | None, precision: str
) -> Callable[[], None]:
    networks = [frozen_copy(bench.teacher.network)] + ([frozen_copy(student)] if student is not None else [])
    channels = bench.teacher.config.input_shape[0]
    x = torch.randn(bench.config.synthesis.batch_size, channels, *stage.size, device=bench.device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_(True)

    def both(images: torch.Tensor) -> torch.Tensor:
        with autocast(DTYPES[precision], images.device):
            return torch.stack([network(images).float().sum() for network in networks]).sum()

    compiled = torch.compile(both, dynamic=False)

    def turn() -> None:
        for _ in range(bench.updates):
            torch.autograd.grad(compiled(x), x)

    return turn


def _quality(bench: Bench, verifier: str, updates: int, seeds: int) -> dict[str, Any]:
    """Images of the engine (its fastest setting) and of the plain fp32 loop, over seeds."""
    network, _, checkpoint = verifier.partition("=")
    other = load_teacher(replace(bench.config.teacher, network=network, checkpoint=checkpoint)).to(bench.device)
    stage = replace(stages_of(bench.config.synthesis, bench.teacher.config.input_shape[1:])[-1], iterations=updates)
    result: dict[str, Any] = {"updates": updates, "images": bench.config.synthesis.batch_size, "seeds": seeds}
    targets = bench.targets()
    engine_config = replace(
        bench.config.synthesis, method="deep_inversion", iterations=updates, stages=(), precision="auto", compile="on"
    )
    engine = SYNTHESIZERS["deep_inversion"](bench.teacher, engine_config)
    own = replace(bench.teacher, network=copy.deepcopy(bench.teacher.network))
    loop = PlainLoop(own, None, replace(engine_config, precision="fp32"), stage, torch.float32)
    rows: dict[str, list[dict[str, float]]] = {"engine": [], "plain": []}
    for seed in range(seeds):
        made = engine.synthesize(Request(targets, seed))
        rows["engine"].append(_judged(bench.teacher, other, made.images, targets, made.losses["feature"]))
        x, feature = loop.run(targets, seed)
        images = bench.teacher.normalization.quantize(x)
        rows["plain"].append(_judged(bench.teacher, other, images, targets, feature))
    for name, found in rows.items():
        result[name] = {key: _spread([row[key] for row in found]) for key in found[0]}
    return result


def _judged(
    teacher: Teacher, verifier: Teacher, images: torch.Tensor, targets: torch.Tensor, feature: float
) -> dict[str, float]:
    shares = [float((network.logits(images).argmax(1) == targets).float().mean()) for network in (teacher, verifier)]
    return {"teacher_share": shares[0], "verifier_share": shares[1], "feature_distance": feature}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": statistics.mean(values), "spread": statistics.stdev(values), "values": values}


def _machine(bench: Bench) -> dict[str, Any]:
    """What the figures were taken on; operations per second of square matrix products, and of a batch's update."""
    rates = {}
    for precision in ("fp32", "bf16"):
        a = torch.randn(2048, 2048, device=bench.device, dtype=DTYPES[precision])
        a @ a
        bench.wait()
        began = time.perf_counter()
        for _ in range(5):
            a @ a
        bench.wait()
        rates[precision] = 5 * 2 * 2048**3 / (time.perf_counter() - began)
    image = torch.zeros(1, *bench.teacher.config.input_shape, device=bench.device)
    with torch.no_grad():
        forwards = counted(lambda: bench.teacher.network(image)).operations
    cuda = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matrix_operations_per_s": rates,
        "network": bench.config.teacher.network,
        "batch_size": bench.config.synthesis.batch_size,
        "operations_per_update": 2 * forwards * bench.config.synthesis.batch_size,  # backwards as many again
    }


if __name__ == "__main__":
    main()
