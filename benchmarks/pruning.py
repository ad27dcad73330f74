"""What is left of a network's accuracy after pruning: by image source, criterion, share removed, and eta of eq. 10.

    python benchmarks/pruning.py --config PRUNE.yaml --images-config DISTILL.yaml --json OUT \
        --sources none noise deepdream deep_inversion adaptive real --criteria taylor --ratios 0.5 --seeds 5

PRUNE.yaml is a configuration of jobs/prune.py, DISTILL.yaml one of jobs/distill.py, which says how many images are made
of the teacher and how. Sources: its four methods; `none`, DeepInversion images to measure importance on, and no
distillation after it; `real`, as many real images of --train, without their labels; `proxy`, as many of --proxy. Each
combination and seed is one run of `applications/pruning.py` (one process, no Ray). Beside a run with real images,
--against-torch-pruning makes another whose channels torch-pruning's Taylor importance chooses, by the labels of these
images, to the same FLOPs in each step, with the same distillation.

Files of real data: .npz with `x`, uint8 [N,H,W,C], and `y`; or .parquet with `jpeg` and `label`. Without --train and
--measure those of the configuration's `data` are used. A run that is in OUT is not made again, nor are images in DIR.
"""

import argparse
import copy
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
import yaml
from students import image_store
from torch import nn
from torch.nn import functional

from raydream.applications.pruning import Pruning, RecoveryStage, StageReport
from raydream.applications.rounds import run_rounds
from raydream.compute import use_device
from raydream.config import DistillConfig, PruneConfig
from raydream.config.conversion import validate
from raydream.data import Split, load_data
from raydream.data.files import open_files
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.intervals import summarize
from raydream.evaluation.latency import filters_of, flops_of, measure_latencies
from raydream.networks import parameters_of
from raydream.networks.pruned import SelectedShortcut
from raydream.schedule import Schedule
from raydream.search.space import merged
from raydream.seeds import derive_seed
from raydream.store.atomic import write_json
from raydream.store.shards import ShardStore
from raydream.supervised.library import trained_teacher
from raydream.synthesis.batch import BatchMaker
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher

SYNTHETIC = ("noise", "deepdream", "deep_inversion", "adaptive")
LATENCY_BATCHES = (1, 32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write after each run."""
    given = _options(arguments)
    use_device("cpu", given.threads, 0)
    settings = yaml.safe_load(given.images_config.read_text(encoding="utf-8"))
    making = validate(DistillConfig, settings)
    teacher = _teacher(making)
    measured = _measured(given, making)
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    base = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    fixed = {"of": given.of, "block": given.block}
    base = merged(base, {"pruning": {name: value for name, value in fixed.items() if value is not None}})
    choices = itertools.product(range(given.seeds), given.sources, given.criteria, given.ratios, given.etas)
    for seed, source, criterion, ratio, eta in choices:
        keys = {"source": source, "criterion": criterion, "ratio": ratio, "eta": eta, "seed": seed, **fixed}
        pruning = {"criterion": criterion, "ratio": ratio, "eta": eta}
        if source == "none":
            pruning |= {"between_epochs": 0, "epochs": 0}
        changes = {"seed": seed, "pruning": pruning, "images": source, "teacher": {"checkpoint": "given"}}
        config = validate(PruneConfig, merged(base, changes))
        config = replace(config, teacher=replace(making.teacher, checkpoint="given"))
        rivals = [Pruning, Rival] if given.against_torch_pruning and source == "real" else [Pruning]
        for kind in rivals:
            keys["by"] = "torch-pruning" if kind is Rival else "raydream"
            if any(all(each.get(key) == value for key, value in keys.items()) for each in done):
                continue
            images, labels = _images(given, making, settings, teacher, source, seed)
            run = kind(config, teacher, images)
            if isinstance(run, Rival):
                ours = {**keys, "by": "raydream"}
                (same,) = (each for each in done if all(each.get(key) == value for key, value in ours.items()))
                run.labels, run.goals = labels, same["flops_by_step"]
            done.append({**keys, **_run(run, teacher, images, measured)})
            write_json(given.json, done)
            print(json.dumps({key: value for key, value in done[-1].items() if key != "flops_by_step"}), flush=True)
    _print(done)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--images-config", type=Path, required=True)
    parser.add_argument(
        "--sources", nargs="+", default=["deep_inversion"], choices=["none", *SYNTHETIC, "proxy", "real"]
    )
    parser.add_argument("--criteria", nargs="+", default=["taylor"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5])
    parser.add_argument("--etas", nargs="+", type=float, default=[0.0])
    parser.add_argument("--of", choices=["filters", "flops"], help="what a ratio is of, instead of the configuration's")
    parser.add_argument("--block", type=int, help="channels that go together, instead of the configuration's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=Path, default=Path("runs/images"), help="folder to keep images in")
    parser.add_argument("--train", type=Path, help="real images to prune with")
    parser.add_argument("--proxy", type=Path, help="other real images to prune with")
    parser.add_argument("--measure", nargs="*", default=[], metavar="NAME=FILE", help="real images to measure on")
    parser.add_argument("--against-torch-pruning", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def _teacher(making: DistillConfig) -> Teacher:
    if making.teacher.checkpoint is not None:
        return load_teacher(making.teacher)
    return trained_teacher(making.teacher, making.training, making.data)[0]


def _measured(given: argparse.Namespace, making: DistillConfig) -> dict[str, Split]:
    if given.measure:
        shape = making.teacher.input_shape
        return {name: _split(Path(path), shape) for name, _, path in (each.partition("=") for each in given.measure)}
    real = load_data(making.data, making.teacher)
    assert real is not None, "name real images to measure on: --measure NAME=FILE"
    return {"validation": real.validation, "test": real.test}


def _split(path: Path, shape: tuple[int, int, int], most: int | None = None, seed: int = 0) -> Split:
    """Real images in a file; all of them, or some, drawn by a seed."""
    source = open_files(str(path), "--measure", shape)
    order = np.random.default_rng(derive_seed(seed, "real images")).permutation(sum(source.parts))
    rows = np.sort(order[:most])
    return Split(source.read(rows), source.labels()[rows])


def _images(
    given: argparse.Namespace, making: DistillConfig, settings: dict[str, Any], teacher: Teacher, source: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N,C,H,W] and labels [N] (targets, where the images are synthetic), as many of each source."""
    schedule = Schedule.of(making)
    count = schedule.total_batches * schedule.batch_images
    if source in ("real", "proxy"):
        if (path := getattr(given, {"real": "train"}.get(source, source))) is not None:
            split = _split(path, making.teacher.input_shape, count, seed)
            return split.images, split.labels
        real = load_data(making.data, making.teacher)
        assert real is not None, f"name the {source} images in a file"
        rows = np.random.default_rng(derive_seed(seed, "real images")).permutation(len(real.train.labels))[:count]
        return real.train.images[rows], real.train.labels[rows]
    method = "deep_inversion" if source == "none" else source
    config = validate(DistillConfig, merged(settings, {"seed": seed, "synthesis": {"method": method}}))
    store = image_store(given.images, config, teacher)
    _make(config, teacher, schedule, store)
    batches = [store.read(batch) for batch in schedule.batch_ids()]
    return np.concatenate([made.images for made in batches]), np.concatenate([made.targets for made in batches])


def _make(config: DistillConfig, teacher: Teacher, schedule: Schedule, store: ShardStore) -> None:
    missing = [batch for batch in schedule.batch_ids() if not store.has(batch)]
    if missing and config.synthesis.competes:
        assert config.rounds.count, "adaptive images compete in rounds: raise rounds.count in --images-config"
        run_rounds(config, teacher, store=store)
    elif missing:
        store.folder.path.mkdir(parents=True, exist_ok=True)  # type: ignore[attr-defined]
        maker = BatchMaker("benchmark", teacher, config.synthesis)
        for batch in missing:
            store.write(maker.make(schedule.order(batch, config), None, None).batch)


class Rival(Pruning):
    """The same run with channels chosen and removed by torch-pruning, as many as come closest to given FLOPs.

    Attributes:
        labels: of the images.
        goals: FLOPs after each step.
    """

    labels: np.ndarray
    goals: list[int]

    def change(self, stage: RecoveryStage) -> None:
        state, goal, candidates = self._state, self.goals[stage.index], []
        low, high = 0.0, 1.0
        for _ in range(12):
            share = 0.5 * (low + high)
            candidates.append(self._without(share, stage))
            low, high = (low, share) if flops_of(candidates[-1], self._shape) <= goal else (share, high)
        state.network = min(candidates, key=lambda network: abs(flops_of(network, self._shape) - goal))
        self.report(StageReport(stage, state.network, state.step))

    def _without(self, share: float, stage: RecoveryStage) -> nn.Module:
        network, shortcuts = _with_convolutions(self._state.network)
        for rows in self._drawn(stage):
            logits = network(self._teacher.normalization(torch.from_numpy(self._images[rows])))
            torch.autograd.backward(functional.cross_entropy(logits, torch.from_numpy(self.labels[rows])))
        torch_pruning.pruner.BasePruner(
            network,
            torch.zeros(1, *self._shape),
            importance=torch_pruning.importance.GroupTaylorImportance(),
            global_pruning=True,
            pruning_ratio=share,
            max_pruning_ratio=0.9,
            ignored_layers=[layer for layer in network.modules() if isinstance(layer, nn.Linear)],
        ).step()
        network.zero_grad(set_to_none=True)
        for name in shortcuts:
            network.set_submodule(name, _shortcut(network.get_submodule(name)))
        return network


def _with_convolutions(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy whose selected shortcuts are the convolutions that do the same, which torch-pruning can follow."""
    copied, names = copy.deepcopy(network).eval().requires_grad_(True), []
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, SelectedShortcut):
            convolution = nn.Conv2d(layer.channels_in, len(layer.sources), 1, layer.stride, bias=False)
            weight = functional.one_hot(layer.sources, layer.channels_in + 1)[:, :-1].float()
            convolution.weight.data = weight[:, :, None, None].contiguous()
            copied.set_submodule(name, convolution)
            names.append(name)
    return copied, names


def _shortcut(convolution: nn.Module) -> SelectedShortcut:
    """What such a convolution does, at no FLOPs."""
    assert isinstance(convolution, nn.Conv2d)
    weight = convolution.weight.detach()[:, :, 0, 0]
    sources = torch.where(weight.any(1), weight.argmax(1), convolution.in_channels)
    return SelectedShortcut(convolution.in_channels, sources, convolution.stride[0])


def _run(pruning: Pruning, teacher: Teacher, images: np.ndarray, measured: dict[str, Split]) -> dict[str, Any]:
    began, flops, shape = time.perf_counter(), [], teacher.config.input_shape

    def report(ended: StageReport) -> None:
        if ended.stage.kind == "remove":
            flops.append(flops_of(ended.network, shape))
        if ended.note:
            print(ended.note, flush=True)

    pruning.report = report
    network = pruning.run()
    seconds = time.perf_counter() - began
    ratios = {
        f"{name}_ratio": of(network) / of(teacher.network)
        for name, of in (
            ("filters", filters_of),
            ("flops", lambda each: flops_of(each, shape)),
            ("parameters", parameters_of),
        )
    }
    for size in LATENCY_BATCHES:
        before, after = measure_latencies([teacher.network, network], shape, size)
        ratios[f"latency_ratio_{size}"] = after.median_s / before.median_s
        ratios[f"teacher_latency_{size}_s"], ratios[f"latency_{size}_s"] = before.median_s, after.median_s
    accuracies = {
        f"{who}_{name}": accuracy(each, teacher.normalization, split.images, split.labels)
        for name, split in measured.items()
        for who, each in (("teacher", teacher.network), ("pruned", network))
    }
    return {**accuracies, **ratios, "images": len(images), "flops_by_step": flops, "seconds": seconds}


def _print(done: list[dict[str, Any]]) -> None:
    """Means over seeds, with 95 % intervals."""
    names = [name for name in done[0] if name.startswith("pruned_")] if done else []
    figures = [*names, "flops_ratio", "latency_ratio_1", "latency_ratio_32"]
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in done:
        rows.setdefault(
            tuple(run.get(key, "") for key in ("source", "criterion", "by", "ratio", "of", "eta", "block")), []
        ).append(run)
    for key, runs in rows.items():
        summaries = {name: summarize([run[name] for run in runs]) for name in figures}
        spread = {name: f" ± {row['interval']:.1%}" if len(runs) > 1 else "" for name, row in summaries.items()}
        words = "  ".join(f"{name} {row['mean']:.1%}{spread[name]}" for name, row in summaries.items())
        print(f"{' '.join(map(str, key)):>48}  {words}  ({len(runs)} seeds)")


if __name__ == "__main__":
    main()
