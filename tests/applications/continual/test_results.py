"""What is committed of courses, what is read again of it, and what it adds up to."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from raydream.applications.continual.course import LearnedStep
from raydream.applications.continual.measures import accuracies
from raydream.applications.continual.results import FIGURES, CourseResults, figures_of, summarized, table_of
from raydream.applications.continual.widening import widened
from raydream.store.folders import LocalFolder
from tests.tiny import tiny_network

TEACHER = np.diag([5] * 10)
SIZES = [10, 2, 1]


def learned(step: int, wrong: int = 0) -> LearnedStep:
    classes = sum(SIZES[: step + 1])
    confusion = np.diag([5] * classes)
    confusion[0, 0], confusion[0, classes - 1] = 5 - wrong, wrong
    network = widened(tiny_network(), 10, classes - 10, step).eval()
    images = np.full((sum(SIZES[:step]), 1, 8, 8), step, np.uint8)
    return LearnedStep(step, network, confusion, [{"epoch": 1, "loss": 0.5, "old": 1.0, "new": 0.0}], images)


@pytest.fixture
def results(tmp_path: Path) -> CourseResults:
    made = CourseResults(LocalFolder(tmp_path / "courses"))
    for step in (1, 2):
        made.commit("abd", 7, learned(step), 1.5)
    return made


def test_what_is_committed_is_read_again_to_the_bit(results: CourseResults) -> None:
    done, state = results.begin("abd", 7)
    expected = learned(2).network.state_dict()
    assert done == 2 and state is not None and state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert [step["confusion"] for step in results.steps("abd", 7)] == [learned(i).confusion.tolist() for i in (1, 2)]
    assert np.array_equal(results.images("abd", 7, 2), learned(2).images)
    assert results.begin("abd", 8) == (0, None) and results.steps("lwf_mc", 7) == []


def test_steps_without_images_have_none(results: CourseResults) -> None:
    results.commit("finetune", 7, dataclasses.replace(learned(1), images=None), 1.0)
    assert results.images("finetune", 7, 1) is None and results.begin("finetune", 7)[0] == 1


@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_a_course_goes_on_from_the_last_weights_that_are_whole(
    results: CourseResults, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "courses" / "abd-7-2.safetensors"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-40] if damage == "cut" else (tmp_path / "courses/abd-7-1.safetensors").read_bytes())
    assert results.begin("abd", 7)[0] == 1


def test_a_step_without_its_json_was_not_taken(results: CourseResults, tmp_path: Path) -> None:
    (tmp_path / "courses" / "abd-7-1.json").write_text('{"half')
    assert results.steps("abd", 7) == [] and results.begin("abd", 7) == (0, None)


def test_courses_add_up_to_means_and_spreads() -> None:
    courses = []
    for wrong in (0, 2):
        steps = [{"confusion": learned(step, wrong).confusion.tolist()} for step in (1, 2)]
        courses.append(figures_of(steps, TEACHER, SIZES))
    assert [course["forgetting"] for course in courses] == [0.0, pytest.approx(0.02)]
    summary = summarized(courses)
    assert summary["courses"] == 2 and {*FIGURES} <= {*summary}
    assert summary["accuracy_all"] == pytest.approx((1 + 63 / 65) / 2)
    assert summary["accuracy_all_spread"] == pytest.approx(2 / 65 / np.sqrt(2))
    assert summary["steps"][0] == {
        "accuracy_all": 1.0,
        "accuracy_old": None,
        "accuracy_new": 1.0,
        "accuracy_average": 1.0,
        "accuracy_by_group": [1.0],
    }
    assert summary["steps"][2]["accuracy_by_group"] == pytest.approx([0.98, 1.0, 1.0])
    assert summarized(courses[:1])["forgetting_spread"] is None
    table = table_of("abd", 7, courses[1]["steps"])
    assert table["step"].tolist() == [0, 1, 2] and table["accuracy_group_0"].tolist() == pytest.approx([1, 0.96, 0.96])


def test_the_last_steps_figures_are_those_of_its_matrix() -> None:
    steps = [{"confusion": learned(step, 3).confusion.tolist()} for step in (1, 2)]
    told, last = figures_of(steps, TEACHER, SIZES), accuracies(learned(2, 3).confusion, SIZES)
    assert [told[name] for name in FIGURES[:4]] == [last.all, last.old, last.new, last.average]
