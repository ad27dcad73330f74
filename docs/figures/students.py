"""Students: methods, coefficients, sources of images, an hour of CIFAR-10."""

import statistics
from typing import Any

from docs.figures.text import FIGURES, figure, label, mean, number, older, over, percent, percents, results, table


@figure
def methods() -> str:
    """Table: four methods at one budget."""
    told = results("digits_methods")
    head = "method | student accuracy | minus DeepInversion, paired by seed | on target | median seconds, one thread"
    lines = []
    for name, row in told["rows"].items():
        paired = "" if name == "deep_inversion" else mean(row["minus_deep_inversion"], unit="", signed=True)
        seconds = number(statistics.median(run["seconds"] for run in told["runs"][name]), 0)
        lines.append([older(name), mean(row), paired, percent(row["target_share"], 0), seconds])
    return table(head, lines)


@figure
def coefficients() -> str:
    """Table: what alpha_c and alpha_f do to a student."""
    head = "α_c | α_f | seeds | student accuracy (validation) | minus α_c = 0, paired by seed | images on target"
    told = [("digits_alpha_c", name, "0.3", name) for name in results("digits_alpha_c")["rows"]]
    told += [("digits_alpha_f", name, name, "30") for name in results("digits_alpha_f")["rows"]]
    lines = []
    for file, name, alpha_f, alpha_c in told:
        row = results(file)["rows"][name]
        paired = mean(row["minus_first"], unit="", signed=True) if file == "digits_alpha_c" and name != "0" else ""
        seeds = str(len(row["values"]))
        lines.append([alpha_c, alpha_f, seeds, mean(row), paired, percent(row["target_share"], 0)])
    return table(head, lines)


@figure
def alpha_c_gains() -> str:
    """Phrase: the range of what a student gains by competition."""
    rows = results("digits_alpha_c")["rows"]
    gains = [100 * rows[name]["minus_first"]["mean"] for name in ("10", "30", "100")]
    return f"{number(min(gains))} to {number(max(gains))} points"


@figure
def sources() -> str:
    """Table: students from scratch by source of the images."""
    head = "images | student | behind the teacher | minus DeepInversion | agrees with the teacher | calibration error"
    lines = []
    for name, row in results("digits_transfer_sources")["table"].items():
        paired = "" if name == "deep_inversion" else mean(row["minus_deep_inversion"], unit="", signed=True)
        behind, agreement = mean(row["behind_teacher"], unit=""), percent(row["agreement"]["mean"])
        error = percent(row["student_calibration_error"]["mean"])
        lines.append([label(name), mean(row["student_accuracy"]), behind, paired, agreement, error])
    return table(head, lines)


def _transfer(name: str) -> dict[str, Any]:
    return dict(results("digits_transfer")["table"]["deep_inversion"][name])


FIGURES["transfer_student"] = lambda: mean(_transfer("student_accuracy"))
FIGURES["transfer_behind"] = lambda: mean(_transfer("behind_teacher"), unit=" points")
FIGURES["digits_teacher"] = lambda: percent(results("digits_transfer")["runs"][0]["teacher_accuracy"])


# CIFAR-10: images to learn from


@figure
def cifar10_students() -> str:
    """Table: students of CIFAR-10 by alpha_f."""
    lines = []
    for name, words in (("deep_inversion", "2,048, α_f 10"), ("alpha_f_1", "2,048, α_f 1")):
        runs = cifar10_runs(name)
        shares = [percent(statistics.mean(run[key] for run in runs), 0) for key in ("teacher_share", "verifier_share")]
        told = [run["student_accuracy"] for run in runs]
        lines.append([words, *shares, percents(told), mean(over(runs, "student_accuracy"))])
    return table("images | teacher | ResNet-56 | student, by seed | mean", lines)


def cifar10_runs(name: str) -> list[dict[str, Any]]:
    """The runs of CIFAR-10 students of this name, by seed."""
    return [run for run in results("cifar10_students") if run["name"] == name]


@figure
def hour_curve() -> str:
    """Table: the student of an hour, by distillation steps."""
    curve = results("cifar10_hour")[0]["curve"]
    shown = [point for point in curve if point[0] % 2000 == 0 or point == curve[-1]]
    return table(
        "steps | " + " | ".join(number(step, 0) for step, _ in shown),
        [["accuracy", *(percent(share) for _, share in shown)]],
    )


FIGURES["cifar10_student"] = lambda: mean(over(cifar10_runs("deep_inversion"), "student_accuracy"))
FIGURES["hour_student"] = lambda: percent(results("cifar10_hour")[0]["student_accuracy"])
FIGURES["distance_200"] = lambda: number(
    results("inversion_cifar10")["quality"]["engine"]["feature_distance"]["mean"], 0
)
FIGURES["distance_500"] = lambda: number(over(cifar10_runs("deep_inversion"), "feature_distance")["mean"], 0)


# Accuracy against time


@figure
def clock_digits() -> str:
    """Table: digits' students by method and updates of each batch."""
    rows, lines = results("digits_clock")["rows"], []
    methods = list(dict.fromkeys(row["method"] for row in rows.values()))
    names = dict.fromkeys(each.rpartition("_")[0] for each in rows)
    for name in sorted(names, key=lambda name: methods.index(name.removesuffix("_more"))):
        of = {budget: rows.get(f"{name}_{budget}") for budget in (10, 30, 100, 300)}
        seconds = [each["seconds"]["mean"] for each in of.values() if each]
        words = label(name.removesuffix("_more")) + (", more" if name.endswith("_more") else "")
        between = f"{number(min(seconds), 0)} to {number(max(seconds), 0)}"
        lines.append([words, *(mean(each["accuracy"], unit="") if each else "" for each in of.values()), between])
    return table("method | 10 | 30 | 100 | 300 | seconds", lines)


@figure
def clock_generators() -> str:
    """Table: digits' students of generator networks that make 32 batches of ten updates, beside adaptive ones."""
    lines = []
    for words, name, of in (
        ("fast, version 0.1.0", "fast_more_10", "digits_clock"),
        ("fast", "fast_more_10", "digits_generators"),
        ("noisy", "noisy_more_10", "digits_generators"),
        ("adaptive, 8 batches of 300 updates", "adaptive_300", "digits_clock"),
    ):
        runs = [run for run in results(of)["runs"] if run["name"] == name]
        cpu_s = number(over(runs, "cpu_s")["mean"], 0)
        lines.append([words, mean(over(runs, "target_share")), mean(over(runs, "accuracy")), cpu_s])
    return table("method | images on target | student | CPU seconds", lines)


@figure
def clock_95() -> str:
    """Phrase: how long the budgets take that reach some 95 %."""
    rows = results("digits_clock")["rows"]
    ours, *theirs = (
        number(rows[name]["seconds"]["mean"], 0) for name in ("deep_inversion_100", "fast_100", "fast_more_30")
    )
    return f"{ours} s, `fast` {' to '.join(theirs)}"


@figure
def clock_dafl_range() -> str:
    """Phrase: the widest range of DAFL's students over seeds."""
    rows = [row["accuracy"]["values"] for row in results("digits_clock")["rows"].values() if row["method"] == "dafl"]
    return f"{number(100 * max(max(values) - min(values) for values in rows), 0)} points"


@figure
def clock_cifar10() -> str:
    """Table: CIFAR-10's students after at most half an hour."""
    runs, lines = {run["method"]: run for run in results("cifar10_clock")["runs"]}, []
    for name in results("cifar10_clock")["rows"]:
        run = runs[name]
        words = label(name) + (", cut off" if run["step"] < max(each["step"] for each in runs.values()) else "")
        counts = [number(run[key], 0) for key in ("images", "updates_per_batch", "step")]
        accuracy, target = percent(run["accuracy"]), percent(run["target_share"], 0)
        lines.append([words, *counts, accuracy, target, number(run["seconds"] / 60, 0)])
    return table("method | images | updates of each batch | steps | student | images on target | minutes", lines)


@figure
def clock_equal_steps() -> str:
    """Phrase: adaptive and DeepInversion's students of CIFAR-10 after as many steps as the former lasted."""
    runs = {run["method"]: run for run in results("cifar10_clock")["runs"]}
    step = runs["adaptive"]["step"]
    (ours,) = (point["accuracy"] for point in runs["deep_inversion"]["curve"] if point["step"] == step)
    return f"{step}: {percent(runs['adaptive']['accuracy'])}, DeepInversion {percent(ours)}"


@figure
def unit_students() -> str:
    """Phrase: digits students before and after the change of the unit that pixels are optimized in."""
    before, after = (results(f"digits_unit_{when}")["rows"] for when in ("before", "after"))
    return "; ".join(f"{label(name)} {mean(before[name])}, then {mean(after[name])}" for name in before)


GENERATOR_BATCHES = {
    "version_0.1.0": "version 0.1.0: cosine, β₁ 0.9, no momentum",
    "momentum_0": "constant rate, β₁ 0.5, no momentum",
    "momentum_0_alpha_f_0.1": "as above, a tenth of α_f",
    "momentum_0.9": "momentum 0.9, which `fast` has now",
}


@figure
def generator_batches() -> str:
    """Table: what the momentum of the statistics does to the images of `fast`."""
    rows, lines = results("digits_generator_batches")["rows"], []
    for name, words in GENERATOR_BATCHES.items():
        distance = mean(rows[name]["feature_distance"], unit="", scale=1)
        lines.append([words, mean(rows[name]["target_share"]), distance])
    return table("variant | on target | R_feature of the stored images", lines)


@figure
def momentum_gain() -> str:
    """Phrase: the share of images on target before and with the momentum."""
    rows = results("digits_generator_batches")["rows"]
    return " → ".join(mean(rows[name]["target_share"]) for name in ("version_0.1.0", "momentum_0.9"))
