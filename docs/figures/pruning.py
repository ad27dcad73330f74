"""Smaller networks."""

from collections.abc import Sequence
from typing import Any

from docs.figures.text import FIGURES, figure, label, mean, number, over, percent, percents, results, table


def _pruned(file: str, **wanted: Any) -> list[dict[str, Any]]:
    """The runs of a file that were made with these settings."""
    given = {"source": "deep_inversion", "criterion": "taylor", "by": "raydream", "eta": 0.0, "of": None, "block": None}
    return [run for run in results(file) if all(run.get(key) == value for key, value in (given | wanted).items())]


def pruned_digits(source: str) -> list[dict[str, Any]]:
    """The runs that removed half of the filters of the digits' teacher."""
    return _pruned("digits_pruning", source=source, ratio=0.5)


def pruned_cifar10(source: str, ratio: float) -> list[dict[str, Any]]:
    """The runs that removed this share of the filters of the CIFAR-10 ResNet-20."""
    return _pruned("cifar10_pruning", source=source, ratio=ratio)


FIGURES["pruned_accuracy"] = lambda: mean(over(pruned_digits("deep_inversion"), "pruned_test"))
FIGURES["pruned_flops"] = lambda: percent(over(pruned_digits("deep_inversion"), "flops_ratio")["mean"], 0)


@figure
def pruning_digits() -> str:
    """Table: half of the filters of the digits' teacher, by source of the images."""
    head = "images | test accuracy | FLOPs left | parameters left | latency, 1 image | 32 images"
    lines = []
    for source in ("none", "deepdream", "noise", "deep_inversion", "adaptive", "real"):
        runs = pruned_digits(source)
        shares = [percent(over(runs, name)["mean"], 0) for name in ("flops_ratio", "parameters_ratio")]
        latencies = [number(over(runs, f"latency_ratio_{size}")["mean"], 2) for size in (1, 32)]
        lines.append([label(source), mean(over(runs, "pruned_test")), *shares, *latencies])
    return table(head, lines)


def _at_equal_flops(name: str, **wanted: Any) -> list[str]:
    runs = [_pruned("digits_pruning", of="flops", ratio=ratio, **wanted) for ratio in (0.6, 0.8)]
    return [label(name), *(mean(over(each, "pruned_test")) for each in runs)]


@figure
def pruning_criteria() -> str:
    """Table: criteria at equal FLOPs."""
    names = ("taylor", "random", "magnitude")
    head = "criterion | 40 % of the FLOPs | 20 % of the FLOPs"
    return table(head, [_at_equal_flops(name, criterion=name) for name in names])


@figure
def pruning_libraries() -> str:
    """Table: beside torch-pruning, on the digits."""
    names = ("raydream", "torch-pruning")
    head = "by | 40 % of the FLOPs | 20 % of the FLOPs"
    return table(head, [_at_equal_flops(name, source="real", by=name) for name in names])


def _cifar10(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Accuracy of the only run on both sets, and its FLOPs."""
    (run,) = runs
    return [percents([run["pruned_test"], run["pruned_lossless"]]), percent(run["flops_ratio"], 0)]


@figure
def pruning_cifar10() -> str:
    """Table: a fifth and half of the filters of a ResNet-20, by source of the images."""
    head = "images | −20 % filters: test, lossless | FLOPs left | −50 % filters: test, lossless | FLOPs left"
    lines = []
    for source in ("none", "deepdream", "noise", "deep_inversion", "adaptive", "real"):
        runs = [pruned_cifar10(source, ratio) for ratio in (0.2, 0.5)]
        lines.append([label(source), *_cifar10(runs[0]), *_cifar10(runs[1])])
    return table(head, lines)


@figure
def pruning_cifar10_libraries() -> str:
    """Table: beside torch-pruning, on a ResNet-20 and real images."""
    head = "by | removed by | test, lossless | FLOPs left | test, lossless | FLOPs left"
    lines = []
    for by, of, ratios in (
        ("raydream", None, (0.2, 0.5)),
        ("raydream", "flops", (0.35, 0.7)),
        ("torch-pruning", None, (0.2, 0.5)),
    ):
        runs = [_pruned("cifar10_pruning", source="real", by=by, of=of, ratio=ratio) for ratio in ratios]
        lines.append(
            [by, "FLOPs" if of or by == "torch-pruning" else "filters", *_cifar10(runs[0]), *_cifar10(runs[1])]
        )
    return table(head, lines)


@figure
def pruning_latency() -> str:
    """Table: hardware-aware pruning beside the plain criterion."""
    head = "η | filters left | test, lossless | FLOPs left | parameters left | latency, 1 image | 32 images"
    lines = []
    for eta, ratio in ((0.0, 0.3), (0.0, 0.42), (1.0, 0.3)):
        runs = _pruned("cifar10_pruning", source="adaptive", block=4, eta=eta, ratio=ratio)
        (run,) = runs
        ratios = [percent(run["parameters_ratio"], 0), *(number(run[f"latency_ratio_{size}"], 2) for size in (1, 32))]
        lines.append([number(eta, 0), percent(run["filters_ratio"], 0), *_cifar10(runs), *ratios])
    return table(head, lines)


@figure
def eta_latency() -> str:
    """Phrase: the latency of 32 images with and without eta, at equal accuracy."""
    runs = [
        _pruned("cifar10_pruning", source="adaptive", block=4, eta=eta, ratio=ratio)
        for eta, ratio in ((1, 0.3), (0, 0.42))
    ]
    with_eta, without = (number(run["latency_ratio_32"], 2) for (run,) in runs)
    return f"{with_eta} with η = 1, {without} without"


FIGURES["cifar10_teacher"] = lambda: percent(results("cifar10_pruning")[0]["teacher_test"])
FIGURES["cifar10_teacher_lossless"] = lambda: percent(results("cifar10_pruning")[0]["teacher_lossless"])
