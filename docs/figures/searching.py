"""Searches of coefficients: what they can be judged by, and what they find."""

from docs.figures.text import FIGURES, figure, mean, number, percent, percents, results, table
from raydream.evaluation.intervals import summarize

METRICS = (
    "exam_agreement",
    "feature_distance",
    "own_agreement",
    "verifier_agreement",
    "target_share",
    "diversity",
)


@figure
def search_metrics() -> str:
    """Table: rank correlation of each metric with real accuracy."""
    told = results("digits_searching")
    rows = told["rank_correlation_with_real_accuracy"]
    best = percents(each["none"]["best"] for each in told["asha_against_none"])
    pair = max((name for name in rows if " + " in name), key=lambda name: rows[name]["pooled"])
    words = {name: f"`{name}`" for name in METRICS}
    words[pair] = "mean rank of " + " and ".join(f"`{each}`" for each in pair.split(" + ")) + ", the best of all pairs"
    lines = []
    for name, shown in words.items():
        row = rows[name]
        low, high = (number(each, 2) for each in row["interval"])
        by_search = ", ".join(number(each, 2) for each in row["by_search"])
        chosen = percents(row["accuracy_of_the_best_by_it"])
        lines.append([shown, f"{number(row['pooled'], 2)} [{low}, {high}]", by_search, chosen])
    return table(f"metric | pooled | by search | real accuracy of the trial that it would choose (best: {best})", lines)


@figure
def search_accuracies() -> str:
    """Phrase: the real accuracies of all trials."""
    told = results("digits_searching")["real_accuracy"]
    return f"{number(100 * told['lowest'])} to {percent(told['highest'])}, median {percent(told['median'])}"


@figure
def search_asha() -> str:
    """Table: ASHA against no scheduler, on the same random points."""
    head = "search | best trial | best under ASHA | updates under ASHA, of all | trials done under ASHA"
    lines = []
    for each in results("digits_searching")["asha_against_none"]:
        bests = [percent(each[name]["best"]) for name in ("none", "asha")]
        done = f"{each['asha']['done']} of {each['none']['done']}"
        lines.append([str(each["seed"]), *bests, percent(each["updates_ratio"], 0), done])
    return table(head, lines)


@figure
def search_digits() -> str:
    """Table: what a search of the digits found, beside its start and settings tuned by hand."""
    head = "settings | student | learning rate | α_f / class loss | distillation steps | images on target"
    lines = []
    for name, words in (
        ("start", "the start"),
        ("found", "`best.yaml`"),
        ("tuned", "the demo's, tuned by hand, at the same images and updates"),
    ):
        told = results(f"digits_search_{name}")
        row, synthesis = told["rows"]["adaptive"], told["config"]["synthesis"]
        weights = synthesis["coefficients"]
        settings = [number(synthesis["learning_rate"], 2), number(weights["feature"] / weights["classification"])]
        steps, target = number(told["budget"]["distillation_steps"], 0), percent(row["target_share"], 0)
        lines.append([words, mean(row), *settings, steps, target])
    return table(head, lines)


@figure
def search_cifar10() -> str:
    """Table: what a search of CIFAR-10's images found, beside its start and the presets."""
    told = results("cifar10_search")
    rate = number(told["search"]["best_settings"]["synthesis.learning_rate"], 2)
    lines = []
    for name, words in (
        ("start", "the start"),
        ("found", f"found: learning rate {rate}, little weight on the statistics, mirrored, no jitter"),
        ("students", "preset for students (`cifar10_students`, α_f 10)"),
        ("pictures", "preset for pictures (`configs/cifar10_resnet20.yaml`, α_f 1)"),
    ):
        teacher, verifier, distance = (summarize(list(column)) for column in zip(*told["rows"][name], strict=True))
        lines.append([words, mean(teacher, 0), mean(verifier, 0), mean(distance, scale=1, unit="")])
    return table("settings | teacher | ResNet-56 | feature distance", lines)


FIGURES["search_cifar10_minutes"] = lambda: (
    f"{number(results('cifar10_search')['search']['trial_seconds'] / 60, 0)} minutes"
)
