"""Networks of few bits."""

from docs.figures.text import figure, label, mean, results, table
from raydream.evaluation.intervals import summarize

METHODS = {"post_training": "ranges from these images", "distillation": "distillation on these images"}
SOURCES = ("deep_inversion", "noise", "deepdream", "real")


def _differences(file: str, splits: dict[str, str], digits: int) -> str:
    """Table: accuracy minus the float network's, in points, paired over seeds, by bits, method and images."""
    runs, lines = results(file), []
    for bits in sorted({run["bits"] for run in runs}, reverse=True):
        for method, words in METHODS.items():
            for source in SOURCES:
                found = [run for run in runs if (run["bits"], run["method"], run["source"]) == (bits, method, source)]
                if found:
                    shown = [
                        mean(
                            summarize([run[split]["accuracy"] - run[split]["float_accuracy"] for run in found]),
                            digits,
                            unit="",
                            signed=True,
                        )
                        for split in splits
                    ]
                    lines.append([bits, words, label(source), *shown])
    return table(" | ".join(["bits", "how", "images", *splits.values()]), lines)


@figure
def quantization_digits() -> str:
    """Table: the digits' teacher with few bits."""
    return _differences("digits_quantization", {"validation": "validation", "test": "test"}, 2)


@figure
def quantization_cifar10() -> str:
    """Table: the CIFAR-10 ResNet-20 with few bits."""
    return _differences("cifar10_quantization", {"lossless": "training images", "test": "test images"}, 1)
