"""Metrics of trials: their direction, and their requirements."""

from dataclasses import dataclass

from raydream.config import SearchConfig
from raydream.errors import InputError

BEST_DATA_FREE = "exam_agreement"
"""the metric without real data that predicts a student's real accuracy best (docs/tuning.md)"""


@dataclass(frozen=True)
class Measure:
    """A metric of trials.

    Attributes:
        what: a short description.
        higher_is_better: whether higher values are better, not lower ones.
        of_student: whether it needs a student, and not only images.
    """

    what: str
    higher_is_better: bool = True
    of_student: bool = True


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(
        "share of real held-out images that the student classifies rightly; of the validation split, in an "
        "ablation of the test split"
    ),
    "exam_agreement": Measure(
        "share of the exam's images, made once before the trials with settings drawn from the space, on which student "
        "and teacher name the same class"
    ),
    "own_agreement": Measure(
        "share of images made with the trial's settings and another seed on which student and teacher name the same "
        "class"
    ),
    "verifier_agreement": Measure(
        "share of images that independent networks classify as their target, mean over the networks", of_student=False
    ),
    "target_share": Measure("share of images that the teacher classifies as their target", of_student=False),
    "feature_distance": Measure(
        "R_feature of the images as they are stored, mean over batches", higher_is_better=False, of_student=False
    ),
    "diversity": Measure(
        "mean distance of the teacher's features between two images of one target, relative to that between two images "
        "of any",
        of_student=False,
    ),
}


def metric_of(config: SearchConfig) -> str:
    """Return a search's objective metric; raises InputError as `check_metrics` does."""
    if config.metric != "auto":
        return config.metric
    if config.images_only:
        return "feature_distance"
    return BEST_DATA_FREE if config.data.name == "none" else "accuracy"


def measured(config: SearchConfig) -> set[str]:
    """Return all metrics that are recorded for each trial: those without cost, and those requested."""
    free = {"target_share", "feature_distance", "diversity"} | ({"verifier_agreement"} if config.verifiers else set())
    if not config.images_only and config.data.name != "none":
        free.add("accuracy")
    return free | {metric_of(config), *config.also} - {"auto"}


def check_metrics(config: SearchConfig) -> None:
    """Check that the metrics' requirements are met.

    Raises:
        InputError: real data, verifiers or a student are missing.
    """
    for field, name in [("metric", metric_of(config)), *(("also", name) for name in config.also)]:
        if name == "accuracy" and config.data.name == "none":
            allowed = "a data-free metric, such as exam_agreement, where data.name is none"
            raise InputError(field, name, allowed, "there are no real images to measure on: name some, or leave it out")
        if name == "verifier_agreement" and not config.verifiers:
            remedy = "give independent networks as --verifiers NETWORK=CHECKPOINT"
            raise InputError(field, name, "another metric where there are no verifiers", remedy)
        if config.images_only and name != "auto" and MEASURES[name].of_student:
            others = ", ".join(other for other, measure in MEASURES.items() if not measure.of_student)
            raise InputError(field, name, f"one of {others} where images_only is true", "it needs a student")


def score_of(metric: str, values: dict[str, float]) -> float:
    """Return a trial's score from its metrics: the higher, the better."""
    value = values[metric]
    return value if MEASURES[metric].higher_is_better else -value
