"""Which job a run is of, and what it is after."""

from pathlib import Path

import pytest

import raydream
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
from raydream.runs.catalogue import SIGNS, job_of, main_figure
from raydream.runs.summaries import SUMMARIES

TEACHER = TeacherConfig()
CONFIGS = {
    "ablate": AblateConfig(),
    "extend": ContinualConfig(teacher=TeacherConfig(classes=7), steps=(DataConfig(classes=(7, 8)),)),
    "distill": DistillConfig(),
    "evaluate": EvaluateConfig(images="runs/first"),
    "prune": PruneConfig(teacher=TEACHER),
    "reproduce": ReproduceConfig(table=1),
    "search": SearchConfig(space={"search": {}}),
    "synthesize": SynthesizeConfig(),
    "train": TeacherJobConfig(),
    "transfer": TransferConfig(teacher=TEACHER),
}
"""settings of the jobs of version 0.1"""


@pytest.mark.parametrize("job", CONFIGS)
def test_settings_tell_the_job_of_a_run_of_version_0_1(job):
    assert job_of(as_dict(CONFIGS[job])) == job


def test_a_run_says_its_job():
    assert job_of(as_dict(DistillConfig()), "prune") == "prune"
    assert job_of(as_dict(DistillConfig()), "of a later version") is None


def test_every_job_has_a_summary():
    root = Path(raydream.__file__).parent / "jobs"
    jobs = {path.stem for path in root.glob("*.py") if "\nJOB = Job(" in path.read_text(encoding="utf-8")}
    assert jobs == SUMMARIES.keys() and {signs.job for signs in SIGNS} == CONFIGS.keys() <= jobs


def test_other_settings_are_of_no_job():
    assert job_of({"experiment": "x"}) is None


def test_a_run_that_is_not_done_has_no_figure():
    assert main_figure("distill", None) is None
