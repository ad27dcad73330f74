"""A user's network: what the doctor finds, coefficients without a search, and how fast a teacher trains."""

from typing import Any

from docs.figures.text import FIGURES, figure, label, mean, number, over, percent, results, table

FIGURES["train_speed"] = lambda: number(results("train_speed")["speed"]["speed_of_plain"], 2)

MISTAKES = {
    "pixels": "pixels of 0 to 255",
    "swapped": "mean and standard deviation swapped",
    "bgr": "BGR",
    "size": "twice the size",
    "untrained": "untrained BN statistics",
    "nan": "NaN",
    "none": "false alarms without a mistake",
}
EVIDENCE = {"nothing": "without images", "images": "with real images", "labels": "with labeled images"}


@figure
def doctor_hits() -> str:
    """Table: mistakes that the doctor finds, of those seeded, by what it is shown."""
    lines = []
    for mistake, words in MISTAKES.items():
        right = {"false alarm"} if mistake == "none" else {"hit", "refused"}
        cells = []
        for evidence in EVIDENCE:
            runs = [run for run in results("doctor") if (run["mistake"], run["evidence"]) == (mistake, evidence)]
            runs = [run for run in runs if run["outcome"] != "not applicable"]
            refused = sum(run["outcome"] == "refused" for run in runs)
            note = f", {refused} refused" if refused and mistake != "none" else ""
            cells.append(f"{sum(run['outcome'] in right for run in runs)} of {len(runs)}{note}")
        lines.append([words, *cells])
    return table(" | ".join(["mistake", *EVIDENCE.values()]), lines)


@figure
def unlike_networks() -> str:
    """Table: unlike networks through the jobs."""
    lines = []
    for run in results("unlike"):
        cells = [run["network"], percent(run["accuracy"]) if run["trained"] else "random weights"]
        count = len(run.get("findings", []))
        cells.append(f"{count} finding{'s' * (count > 1)}" if count else "nothing wrong")
        cells.append(
            f"{percent(run['target_share'], 0)} ({label(run['method'])})" if "target_share" in run else "refused"
        )
        for step in ("transfer", "prune", "quantize"):
            works = isinstance(run.get(step), float)
            accuracy = run.get(f"{step}_accuracy")
            cells.append(("works" if accuracy is None else percent(accuracy)) if works else "refused")
        lines.append(cells)
    return table("network | accuracy | doctor | on target | small student | half of the filters | 8 bits", lines)


SETTINGS = {"auto": "`auto`", "preset": "by hand", "default": "the paper's"}
BALANCED = {
    "digits": "CNN of digits",
    "digits_mobile": "MobileNet of digits",
    "resnet8": "ResNet-8 of CIFAR-10",
    "slim_vgg": "narrow VGG of CIFAR-10",
    "wrn16_1": "WRN-16-1 of CIFAR-10",
    "mobile": "MobileNet of CIFAR-10",
    "plain": "plain CNN of CIFAR-10",
}
"""networks by what the documents call them; others keep their names"""


@figure
def automatic_coefficients() -> str:
    """Table: images by automatic coefficients, by those that were set by hand, and by the paper's for CIFAR-10."""
    lines = []
    for network in dict.fromkeys(run["network"] for run in results("balance")):
        for setting, words in SETTINGS.items():
            runs = [run for run in results("balance") if (run["network"], run["setting"]) == (network, setting)]
            if runs:
                lines.append([BALANCED.get(network, network), words, *_measured(runs)])
    return table("network | coefficients | on target | by another network | student | seeds", lines)


GATHERED = {
    "digits": "deep_inversion, statistics of 300 unlabeled digits",
    "photos": "deep_inversion, statistics of 300 patches of photographs",
    "deepdream": "deepdream, no statistics",
    "noise": "noise, no statistics",
}


@figure
def gathered_statistics() -> str:
    """Table: images of a network without BN, with statistics of a user's images and without."""
    lines = []
    for setting, words in GATHERED.items():
        runs = [run for run in results("gathered") if run["setting"] == setting]
        lines.append([words, *_measured(runs)])
    return table("images | on target | by another network | student | seeds", lines)


def _measured(runs: list[dict[str, Any]]) -> list[str]:
    """Cells of a table: what benchmarks/balance.py measures, and the number of seeds."""
    return [
        *(mean(over(runs, name)) for name in ("target_share", "verifier_share", "student_accuracy")),
        str(len(runs)),
    ]
