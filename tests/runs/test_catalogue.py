"""Which job a run is of, and what it is after."""

import pytest

from raydream.commands import COMMANDS, NAMES
from raydream.config import (
    AblateConfig,
    ContinualConfig,
    DataConfig,
    DistillConfig,
    EvaluateConfig,
    PruneConfig,
    ReproduceConfig,
    SearchConfig,
    SynthesizeConfig,
    TeacherConfig,
    TeacherJobConfig,
    TransferConfig,
)
from raydream.config.conversion import as_dict
from raydream.runs.catalogue import KINDS, Figure, kind_of, main_figure

TEACHER = TeacherConfig()
CONFIGS = {
    "ablate": AblateConfig(),
    "continual": ContinualConfig(teacher=TeacherConfig(classes=7), steps=(DataConfig(classes=(7, 8)),)),
    "distill": DistillConfig(),
    "evaluate": EvaluateConfig(images="runs/first"),
    "prune": PruneConfig(teacher=TEACHER),
    "reproduce": ReproduceConfig(table=1),
    "search": SearchConfig(space={"search": {}}),
    "synthesize": SynthesizeConfig(),
    "train_teacher": TeacherJobConfig(),
    "transfer": TransferConfig(teacher=TEACHER),
}


@pytest.mark.parametrize("job", CONFIGS)
def test_settings_tell_the_job(job):
    kind = kind_of(as_dict(CONFIGS[job]))
    assert kind is not None and kind.job == job


def test_every_job_with_runs_is_known():
    of_runs = {entry for entry in COMMANDS if entry.config and not entry.given}
    assert {kind.job for kind in KINDS} >= CONFIGS.keys()
    assert of_runs == {NAMES[job] for job in CONFIGS}


def test_other_settings_are_of_no_job():
    assert kind_of({"experiment": "x"}) is None


FIGURES = [
    ("distill", {"student_accuracy": 0.9512, "images": 5}, "student accuracy 95.1 %"),
    ("distill", {"images": 5}, None),
    ("synthesize", {"target_share": 0.5}, "target share 50.0 %"),
    ("transfer", {"student_accuracy": 1.0}, "student accuracy 100.0 %"),
    ("prune", {"pruned_accuracy": 0.25, "parameters_ratio": 0.5}, "pruned accuracy 25.0 %"),
    ("prune", {"parameters_ratio": 0.5}, "parameters ratio 50.0 %"),
    (
        "continual",
        {"methods": {"abd": {"accuracy_all": 0.5}, "lwf_mc": {"accuracy_all": 0.75}}},
        "accuracy of all classes, lwf mc 75.0 %",
    ),
    ("continual", {"methods": {}}, None),
    ("train_teacher", {"teacher_accuracy": 0.994}, "teacher accuracy 99.4 %"),
    ("search", {"metric": "feature_distance", "best_value": 12.3456}, "best feature distance 12.35"),
    ("ablate", {"metric": "accuracy", "rows": [{"accuracy_mean": 0.5}]}, "best accuracy 50.0 %"),
    ("evaluate", {"target_share": {"teacher": 1.0, "other": 0.4}}, "least target share 40.0 %"),
    ("distill", {"student_accuracy": "?"}, None),
]


@pytest.mark.parametrize(("job", "summary", "words"), FIGURES)
def test_the_main_figure(job, summary, words):
    figure = main_figure(as_dict(CONFIGS[job]), summary)
    assert (None if figure is None else str(figure)) == words


def test_a_table_is_told_by_its_best_row():
    reached = {"teacher": {"mean": 0.99}, "noise": {"mean": 0.1}, "adaptive": {"mean": 0.9}}
    summary = {"table": 4, "headline": "accuracy", "accuracy": reached}
    figure = main_figure(as_dict(CONFIGS["reproduce"]), summary)
    assert figure == Figure("table 4, accuracy, adaptive", 0.9)


def test_a_run_that_is_not_done_has_no_figure():
    assert main_figure(as_dict(DistillConfig()), None) is None
