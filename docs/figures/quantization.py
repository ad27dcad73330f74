"""Networks of few bits."""

import statistics
from collections.abc import Sequence
from typing import Any

from docs.figures.text import figure, label, mean, number, results, table
from raydream.evaluation.intervals import summarize

METHODS = {"post_training": "ranges from these images", "distillation": "distillation on these images"}
SOURCES = ("deep_inversion", "noise", "deepdream", "real")


def _lost(runs: Sequence[dict[str, Any]], split: str, digits: int) -> str:
    """Accuracy minus the float network's, in points, paired over seeds."""
    lost = summarize([run[split]["accuracy"] - run[split]["float_accuracy"] for run in runs])
    return mean(lost, digits, unit="", signed=True)


def _differences(file: str, splits: dict[str, str], digits: int) -> str:
    """Table: what is lost by bits, method and images."""
    runs, lines = results(file), []
    usual = runs[0]["images"]
    for bits in sorted({run["bits"] for run in runs}, reverse=True):
        for method, words in METHODS.items():
            for source in SOURCES:
                cell = bits, method, source, usual
                found = [run for run in runs if (run["bits"], run["method"], run["source"], run["images"]) == cell]
                if found:
                    lines.append([bits, words, label(source), *(_lost(found, split, digits) for split in splits)])
    return table(" | ".join(["bits", "how", "images", *splits.values()]), lines)


@figure
def quantization_digits() -> str:
    """Table: the digits' teacher with few bits."""
    return _differences("digits_quantization", {"validation": "validation", "test": "test"}, 2)


@figure
def quantization_cifar10() -> str:
    """Table: the CIFAR-10 ResNet-20 with few bits."""
    return _differences("cifar10_quantization", {"lossless": "training images", "test": "test images"}, 1)


@figure
def quantization_mobilenet() -> str:
    """Table: a MobileNetV2 on digits with few bits."""
    return _differences("mobilenet_quantization", {"validation": "validation", "test": "test"}, 2)


@figure
def quantization_counts() -> str:
    """Table: what is lost by the number of calibration images."""
    lines = []
    for file, network in (("digits_counts", "digits"), ("mobilenet_quantization", "MobileNetV2")):
        runs = [run for run in results(file) if (run["source"], run["method"]) == ("deep_inversion", "post_training")]
        for bits in dict.fromkeys(run["bits"] for run in runs):
            for count in sorted({run["images"] for run in runs}):
                found = [run for run in runs if (run["bits"], run["images"]) == (bits, count)]
                lines.append([network, bits, str(count), _lost(found, "validation", 2), _lost(found, "test", 2)])
    return table("network | bits | images | validation | test", lines)


@figure
def quantization_latency() -> str:
    """Phrase: latency of the 8-bit file of the CIFAR-10 ResNet-20 against its float one, 1 and 32 images."""
    ratios = []
    for size in ("1", "32"):
        costs = [run["costs"] for run in results("cifar10_quantization") if "costs" in run]
        medians = [[cost[of]["latencies"][size]["median_s"] for of in ("int8", "float")] for cost in costs]
        ratios.append(statistics.median(int8 / whole for int8, whole in medians))
    return f"{number(ratios[0], 2)} and {number(ratios[1], 2)} times"
