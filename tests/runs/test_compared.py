import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydream.config import TransferConfig
from raydream.config.conversion import as_dict, validate
from raydream.errors import InputError
from raydream.reporting.student import class_figure, compared_rows, reliability_figure
from raydream.runs.compared import compared, with_teachers
from tests.summaries import example

SUMMARY: dict[str, Any] = example("transfer") | {
    "images_of": "this run, by noise",
    "images": 1024,
    "distillation_steps": 720,
    "teacher_fingerprint": "f00",
    "student_accuracy": 0.9,
    "agreement": 0.91,
    "student_calibration_error": 0.02,
    "teacher_calibration_error": 0.01,
    "student_accuracy_by_class": [0.8, None, 0.7],
    "teacher_accuracy_by_class": [1.0, None, 0.9],
    "student_reliability": [{"answers": 5, "confidence": 0.7, "accuracy": 0.6}],
    "teacher_reliability": [{"answers": 5, "confidence": 0.9, "accuracy": 1.0}],
}


def settings(**changes: Any) -> dict[str, Any]:
    return as_dict(validate(TransferConfig, {"teacher": {"checkpoint": "weights"}, **changes}))


def some_run(path: Path, config: dict[str, Any], summary: dict[str, Any] | None = SUMMARY) -> str:
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"format": 1, "run": "some"}))
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    return str(path)


def test_another_run_is_told_with_the_settings_in_which_it_differs(tmp_path):
    theirs = settings(
        experiment="theirs", device="cpu", epochs=40, synthesis={"method": "noise"}, student={"view": {"mixup": 0.2}}
    )
    (told,) = compared(settings(epochs=90), [some_run(tmp_path / "a", theirs)])
    assert told["student_accuracy"] == 0.9 and told["agreement"] == 0.91 and told["images_of"] == "this run, by noise"
    assert told["differs"] == {"epochs": 40, "synthesis.method": "noise", "student.view.mixup": 0.2}


def test_a_student_of_another_teacher_is_told_of(tmp_path):
    runs = compared(settings(), [some_run(tmp_path / "a", settings())])
    assert with_teachers(runs, "f00") == runs and runs[0]["differs"] == {}
    assert with_teachers(runs, "ba4")[0]["differs"] == {"teacher": "of other weights"}


def test_how_images_are_made_is_no_difference_to_a_run_that_was_given_its_images(tmp_path):
    theirs = settings(images="proxy.parquet", share=0.1, new_images=7)
    (told,) = compared(settings(synthesis={"method": "noise"}), [some_run(tmp_path / "a", theirs)])
    assert told["differs"] == {"images": "proxy.parquet", "share": 0.1}


def test_runs_without_real_data_have_no_accuracy(tmp_path):
    bare = example("transfer", teacher_fingerprint="f00")
    config = settings(data={"name": "none"})
    (told,) = compared(config, [some_run(tmp_path / "a", config, bare)])
    assert "student_accuracy" not in told and told["differs"] == {}


def test_a_run_of_version_0_1_is_compared_which_knew_no_downloads(tmp_path):
    theirs = settings()
    del theirs["data"]["download"]
    (told,) = compared(settings(), [some_run(tmp_path / "a", theirs)])
    assert told["differs"] == {}


def test_a_download_makes_no_other_data(tmp_path):
    data = {"name": "torchvision:CIFAR10", "folder": "data"}
    theirs = some_run(tmp_path / "a", settings(data=data))
    (told,) = compared(settings(data=data | {"download": True}), [theirs])
    assert told["differs"] == {}


BAD = [
    (lambda tmp: str(tmp / "none"), "the folder of a run"),
    (lambda tmp: some_run(tmp / "a", settings(), None), "runs of this job that are done"),
    (lambda tmp: some_run(tmp / "a", settings(), {"rounds": 3}), "runs of this job that are done"),
    (lambda tmp: some_run(tmp / "a", settings(), example("transfer")), "it names no teacher"),
    (lambda tmp: some_run(tmp / "a", settings(), SUMMARY | {"images": "many"}), "images: Input should be"),
    (lambda tmp: some_run(tmp / "a", settings(data={"name": "none"})), "measured on the same data as this run"),
]


@pytest.mark.parametrize(("made", "says"), BAD, ids=range(len(BAD)))
def test_runs_that_cannot_be_compared_are_refused(made, says, tmp_path):
    with pytest.raises(InputError) as refused:
        compared(settings(), [made(tmp_path)])
    assert refused.value.field == "compare" and says in str(refused.value)


def test_the_table_has_this_run_first_and_marks_the_most_accurate():
    theirs = SUMMARY | {"run": "runs/other", "differs": {"epochs": 40, "share": 0.1}, "student_accuracy": 0.95}
    table = compared_rows(SUMMARY | {"compared": [theirs]})
    assert table is not None and table.best == [1]
    own, other = table.rows
    assert len(table.headings) == len(own) == len(other)
    assert own[:5] == ["this one", "1,024 of this run, by noise", "90.0 %", "91.0 %", "2.0 %"]
    assert other[0] == "runs/other" and other[-1] == "epochs: 40, share: 0.1"
    assert compared_rows(SUMMARY) is None and compared_rows(SUMMARY | {"compared": []}) is None


def test_figures_are_drawn_where_there_is_something_to_draw():
    drawn, by_class = reliability_figure(SUMMARY), class_figure(SUMMARY)
    assert drawn is not None and by_class is not None
    assert [name for name, _ in drawn.keys] == [
        "right as often as sure",
        "teacher, error 1.0 %",
        "student, error 2.0 %",
    ]
    assert drawn.panels[0].lines[1].notes == ["5 answers"]
    assert by_class.panels[0].x.names == ("0", "2")  # class 1 has no images
    points = {line.name: [y for _, y in line.points] for line in by_class.panels[0].lines}
    assert points == {"teacher": [1.0, 0.9], "student": [0.8, 0.7]}
    assert reliability_figure({}) is None and class_figure({}) is None
