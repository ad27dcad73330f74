"""What one run takes from another."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from raydream.cli import parse
from raydream.config import (
    DataConfig,
    DistillConfig,
    StudentConfig,
    SynthesizeConfig,
    TeacherConfig,
    TeacherJobConfig,
    TransferConfig,
)
from raydream.config.conversion import as_dict
from raydream.errors import InputError
from raydream.runs.references import resolve
from raydream.runs.run_folder import begin

TEACHER = TeacherConfig(network="cifar_vgg11_bn", input_shape=(3, 32, 48), mean=(0.1,) * 3, std=(0.2,) * 3, classes=7)


@pytest.fixture
def distilled(tmp_path: Path) -> Path:
    student = StudentConfig(network="cifar_wrn16_1", arguments={"a": 1})
    begin(tmp_path / "distilled", as_dict(DistillConfig(teacher=TEACHER, student=student)), "distill")
    return tmp_path / "distilled"


def test_a_run_stands_for_its_student(distilled):
    (distilled / "student.safetensors").touch()
    found = resolve({"teacher": {"network": f"run:{distilled}", "classes": 3}, "seed": 1})
    assert found["seed"] == 1
    teacher = found["teacher"]
    assert (teacher["network"], teacher["arguments"]) == ("cifar_wrn16_1", {"a": 1})
    assert teacher["checkpoint"] == str(distilled / "student.safetensors")
    # The student takes the teacher's images and knows its classes, whatever else was given.
    assert teacher["input_shape"] == [3, 32, 48] and teacher["classes"] == 7 and teacher["std"] == [0.2] * 3


def test_a_pruned_network_is_described_beside_the_configuration(distilled):
    (distilled / "student.safetensors").touch()
    described = {"network": "pruned", "arguments": {"of": "digits", "widths": "{}"}}
    (distilled / "network.json").write_text(json.dumps(described))
    teacher = resolve({"teacher": {"network": f"run:{distilled}"}})["teacher"]
    assert {name: teacher[name] for name in described} == described
    assert teacher["checkpoint"] == str(distilled / "student.safetensors") and teacher["classes"] == 7


def test_a_run_without_a_student_stands_for_its_teacher(tmp_path):
    begin(tmp_path / "run", as_dict(TeacherJobConfig(teacher=TEACHER)), "train")
    (tmp_path / "run" / "teacher.safetensors").touch()
    teacher = resolve({"teacher": {"network": f"run:{tmp_path / 'run'}"}})["teacher"]
    assert teacher["network"] == "cifar_vgg11_bn" and teacher["checkpoint"].endswith("teacher.safetensors")


def test_verifiers_take_the_input_of_the_images(distilled):
    (distilled / "student.safetensors").touch()
    settings = {"images": str(distilled), "verifiers": f"cifar_resnet56=w/a=b.th,run:{distilled}"}
    one, other = resolve(settings)["verifiers"]
    assert one["network"] == "cifar_resnet56" and one["checkpoint"] == "w/a=b.th" and one["classes"] == 7
    assert one["input_shape"] == [3, 32, 48] and one["arguments"] == {}
    assert other["network"] == "cifar_wrn16_1"
    described = {"network": "digits", "checkpoint": "x"}
    assert resolve({"images": str(distilled), "verifiers": [described]})["verifiers"] == [described]
    assert resolve({"images": "x", "verifiers": ()})["verifiers"] == ()
    (named,) = resolve({"images": str(distilled), "verifiers": "digits=https://a.org/w.th#sha256=0f"})["verifiers"]
    assert named["network"] == "digits" and named["checkpoint"] == "https://a.org/w.th#sha256=0f"


def test_images_of_a_run_are_measured_on_its_data_and_others_on_the_default(tmp_path):
    data = DataConfig(name="files", validation="v.npz", test="t.npz")
    begin(tmp_path / "run", as_dict(DistillConfig(teacher=replace(TEACHER, checkpoint="w.pt"), data=data)), "distill")
    found = {
        images: resolve({"images": images, "data": {"name": "images"}})["data"]
        for images in (str(tmp_path / "run"), str(tmp_path), "somewhere.npz", "")
    }
    assert found.pop(str(tmp_path / "run")) == as_dict(data)
    assert all(data == {"name": "digits"} for data in found.values())
    assert resolve({"images": str(tmp_path / "run"), "data": {"name": "none"}})["data"] == {"name": "none"}
    other = as_dict(data) | {"name": "images", "test": "other.npz"}
    assert resolve({"images": str(tmp_path / "run"), "data": other})["data"] == as_dict(replace(data, test="other.npz"))
    with pytest.raises(InputError, match=r"data\.test = 'a.npz': must be null where data.name is digits"):
        parse(TransferConfig, "", ["--teacher.checkpoint", "w.pt", "--data.test", "a.npz"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"teacher": {"network": "run:no_such_run"}}, r"teacher.network = 'no_such_run': must be the folder of a run"),
        ({"teacher": {"network": "run:{distilled}"}}, r"no student.safetensors in it \(yet\)"),
        ({"images": "{distilled}", "verifiers": "digits"}, "NETWORK=CHECKPOINT"),
        ({"images": "{distilled}", "verifiers": "=x"}, "NETWORK=CHECKPOINT"),
        ({"images": "{distilled}", "verifiers": "digits=x,"}, "NETWORK=CHECKPOINT"),
        ({"images": "no_such_run", "verifiers": "digits=x"}, "images = 'no_such_run'"),
        ({"images": 256, "data": {"name": "images"}}, "data.name = 'images': must be digits, files"),
    ],
)
def test_what_is_not_there_is_said_so(settings, says, distilled):
    settings = yaml.safe_load(yaml.safe_dump(settings).replace("{distilled}", str(distilled)))
    with pytest.raises(InputError, match=says):
        resolve(settings)


def test_only_the_teacher_itself_has_the_statistics_of_images(tmp_path):
    observed = replace(TEACHER, checkpoint="w.pt", statistics="photos")
    begin(tmp_path / "run", as_dict(DistillConfig(teacher=observed)), "distill")
    begin(tmp_path / "made", as_dict(SynthesizeConfig(teacher=observed)), "synthesize")
    for place, name in (("run", "student"), ("made", "teacher")):
        (tmp_path / place / f"{name}.safetensors").touch()
    settings = {"images": str(tmp_path / "run"), "verifiers": f"digits=b.th,run:{tmp_path / 'run'}"}
    assert [each["statistics"] for each in resolve(settings)["verifiers"]] == ["", ""]
    inverted = resolve({"teacher": {"network": f"run:{tmp_path / 'made'}"}})["teacher"]
    assert inverted["statistics"] == "photos" and inverted["checkpoint"].endswith("made/teacher.safetensors")
