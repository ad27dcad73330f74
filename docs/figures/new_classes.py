"""New classes."""

import statistics
from typing import Any

from docs.figures.text import FIGURES, figure, label, mean, number, percent, results, table
from raydream.evaluation.intervals import half_width


def _course(told: dict[str, Any], name: str, digits: int = 1) -> str:
    """A figure of a method: mean, and the interval where there are several courses, from their standard deviation."""
    half = None if told["courses"] == 1 else half_width(told[f"{name}_spread"], told["courses"])
    return mean({"mean": told[name], "interval": half}, digits)


def _new_classes(methods: dict[str, Any]) -> str:
    order = ("deep_inversion", "adaptive", "deepdream", "balanced", "abd", "lwf_mc", "finetune")
    lines = []
    for name in (*order, "oracle_distill", "oracle_classify"):
        if told := methods.get(name):
            old, new = percent(told["accuracy_old"]), percent(told["accuracy_new"])
            lines.append([label(name), _course(told, "accuracy_all"), old, new, number(100 * told["forgetting"])])
    return table("method | all classes | old | new | forgetting, points", lines)


def _digits_courses(steps: str) -> dict[str, Any]:
    told = results("digits_continual")
    return {**told[steps]["methods"], **told[f"{steps}_balanced"]["methods"]}


FIGURES["new_classes"] = lambda: _new_classes(_digits_courses("one_step"))
FIGURES["new_classes_two_steps"] = lambda: _new_classes(_digits_courses("two_steps"))
FIGURES["new_classes_cifar10"] = lambda: _new_classes(results("cifar10_continual")["methods"])
FIGURES["new_classes_cifar10_before"] = lambda: percent(results("cifar10_continual")["teacher_accuracy"])
FIGURES["new_classes_cifar10_hours"] = lambda: f"{number(results('cifar10_continual')['cpu_hours'])} CPU-hours"
FIGURES["balanced_other_teacher"] = lambda: _course(
    results("digits_continual")["two_steps_balanced_other_teacher"]["methods"]["balanced"], "accuracy_all"
)


@figure
def balanced_gain() -> str:
    """Phrase: `balanced` beside eq. 11 in two steps."""
    told = _digits_courses("two_steps")
    return f"{percent(told['balanced']['accuracy_all'])} instead of {percent(told['deep_inversion']['accuracy_all'])}"


@figure
def abd_losses() -> str:
    """Phrase: ABD's losses beside eq. 11, in one step and in two."""
    parts = []
    for steps, words in (("one_step", "three new classes"), ("two_steps", "in two steps")):
        abd, ours = (_digits_courses(steps)[name]["accuracy_all"] for name in ("abd", "deep_inversion"))
        parts.append(f"{words} {percent(abd)}, eq. 11 on the same kind of images {percent(ours)}")
    return "; ".join(parts)


def _tried(name: str, seed: int, tag: str) -> float:
    """Validation accuracy in percent after the last step of a prototype's run."""
    runs = results("digits_continual")["tried"]
    (run,) = (each for each in runs if (each["name"], each["seed"], each["tag"]) == (name, seed, tag))
    return float(run["steps"][-1]["val"][0])


@figure
def losses_chosen_from() -> str:
    """Table: the losses that `balanced` was chosen from."""
    seeds, later = range(100, 104), " PBN WT"
    chosen_from = {
        "eq. 11": ("di", {100: "", 101: later}),
        "eq. 11, balanced softmax": ("prior", dict.fromkeys(seeds, later)),
        "eq. 11, balanced softmax, feature distance: `balanced`": ("prior.1", dict.fromkeys(seeds, later)),
        "ABD's losses": ("abd", {101: later}),
    }
    lines = []
    for words, (name, tags) in chosen_from.items():
        told = {seed: _tried(name, seed, tag) for seed, tag in tags.items()}
        by_seed = [number(told[seed]) if seed in told else "" for seed in seeds]
        lines.append([words, *by_seed, number(statistics.mean(told.values()))])
    return table("loss | seed 100 | 101 | 102 | 103 | mean", lines)


@figure
def images_tried() -> str:
    """Table: what was tried with the images, on one seed."""
    view = "student.view.zoom=0.2 student.view.rotation=15 student.view.brightness=0.3 student.view.contrast=0.3"
    tried = {
        "as above": "",
        "300 images a class": "images_per_class=300",
        "coefficient of the features 3": "synthesis.coefficients.feature=3",
        "coefficient of the features 10": "synthesis.coefficients.feature=10",
        "learning rate of the inversion 0.3, five times the class loss": "synthesis.learning_rate=0.3 "
        "synthesis.coefficients.classification=5.0 PBN WT",
        "classes drawn as often as the BN statistics have seen them": " PBN WT1",
        "a quarter of the epochs": "epochs=10",
        "stronger augmentation": view,
        "BN statistics estimated again from images of both kinds, all classes alike": "1",
    }
    return table(
        "what | validation accuracy, %", [[words, number(_tried("di", 100, tag))] for words, tag in tried.items()]
    )
