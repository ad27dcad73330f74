"""The doctor: what a run leaves, what it finds, and the configuration that it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import raydream
from raydream.cli import parse
from raydream.config import SynthesizeConfig
from raydream.data.digits import load_digits
from raydream.diagnosis import structure
from raydream.diagnosis.diagnose import applied, diagnose, suggestions
from raydream.errors import InputError
from raydream.teachers.checkpoints import save_network
from tests.calls import call
from tests.tiny import WIDTH, tiny_network, tiny_teacher

OPTIONS = ("--updates", 3, "--synthesis.batch_size", 8, "--synthesis.precision", "fp32")


@pytest.fixture
def described(tmp_path: Path) -> list[str]:
    """Options that describe the tiny network, whose checkpoint lies in a file."""
    save_network(tiny_network(), tmp_path / "tiny.safetensors")
    teacher = {"checkpoint": str(tmp_path / "tiny.safetensors"), "arguments": {"width": WIDTH}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"images": 64, "teacher": teacher, "generators": {"count": 2}}))
    return ["--config", str(tmp_path / "mine.yaml")]


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds, and one test is enough."""
    monkeypatch.setattr(structure, "_exported", lambda network, config: "yes")


def test_a_run_leaves_summary_page_and_a_configuration(tmp_path, described):
    real, made = tmp_path / "real.npz", tmp_path / "suggested.yaml"
    split = load_digits().test
    np.savez(real, x=split.images[:40].transpose(0, 2, 3, 1), y=split.labels[:40])
    run_dir = tmp_path / "run"
    done = call("doctor", *described, *OPTIONS, "--real", real, "--apply", made, "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["exported"] == "yes" and summary["statistics"][0]["state"] == "trained"
    assert len(summary["probe"]["probes"]) == 4 and summary["probe"]["cost"]["batch_size"] > 1
    assert summary["faults"] == sum(each["severity"] == "fault" for each in summary["findings"])
    assert summary["fits"][0]["normalization"]["name"] == "as configured"
    page = (run_dir / "report.html").read_text()
    words = "Nothing looks wrong" if summary["faults"] + summary["suspicions"] == 0 else "suspicion"
    assert words in page and "No accuracy" not in page
    assert all(title in page for title in ("Findings", "Probes", "Real images", "Layers", "Suggested settings"))
    assert "suggested" in done.stdout and "BN layers observed" in done.stdout
    config = parse(SynthesizeConfig, "synthesize", ["--config", str(made), "--run-dir", str(tmp_path / "other")]).config
    assert config.images == 64 and config.generators.count == 2
    assert config.synthesis.learning_rate == summary["suggested"]["synthesis"]["learning_rate"]
    again = call("doctor", "--resume", run_dir)
    assert again.returncode == 0 and "is done" in again.stdout


@pytest.mark.usefixtures("unexported")
def test_untrained_statistics_are_reported_and_not_refused(tmp_path, described):
    network = tiny_network()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
    save_network(network, tmp_path / "tiny.safetensors")
    done = call("doctor", *described, *OPTIONS, "--run-dir", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert done.returncode == 0 and summary["faults"] == 1 and "probe" not in summary
    assert summary["findings"][0]["about"] == "statistics" and "FAULT" in done.stdout


BAD = {
    "a file that exists": (["--apply", "mine.yaml"], "apply = "),
    "no images": (["--real", "nowhere"], "real = "),
    "NaN in the checkpoint": (["--teacher.checkpoint", "nan.safetensors"], "holds NaN or infinity"),
    "another input": (["--teacher.classes", "7"], "wrongly shaped"),
    "fewer than no updates": (["--updates", "-1"], "updates = -1"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence(what, tmp_path, described):
    broken = tiny_network()
    with torch.no_grad():
        next(layer for layer in broken.modules() if isinstance(layer, torch.nn.BatchNorm2d)).running_var[2] = torch.nan
    save_network(broken, tmp_path / "nan.safetensors")
    options, words = BAD[what]
    done = call("doctor", *described, *options, "--run-dir", tmp_path / "run", folder=tmp_path)
    assert done.returncode == 2 and words in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("unexported")
def test_the_function_finds_what_the_job_finds(tmp_path):
    assert raydream.diagnose is diagnose
    teacher = tiny_teacher()
    found = diagnose(teacher, load_digits().test.images[:32], updates=0)
    assert found.probe is None and found.fits and found.estimate is not None
    assert json.loads(json.dumps(found.as_json()))["statistics"]
    with pytest.raises(InputError, match="images"):
        diagnose(teacher, np.zeros((4, 3, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"labels = .int64 \[5\].* must be 4 whole numbers from 0 to 9"):
        diagnose(teacher, load_digits().test.images[:4], np.arange(5))


@pytest.mark.usefixtures("unexported")
def test_suggestions_take_the_normalization_that_images_show():
    teacher = tiny_teacher()
    blurred = torch.nn.functional.interpolate(torch.rand(64, 1, 3, 3), size=8, mode="bilinear")
    images = (blurred * 255).round().to(torch.uint8)
    wrong = raydream.load_teacher(
        teacher.network, input_shape=(1, 8, 8), mean=(0.0,), std=(1 / 255,), classes=10, device="cpu"
    )
    found = diagnose(wrong, images, updates=0)
    assert found.findings[0].about == "normalization" and found.findings[0].severity == "fault"
    assert found.suggested["teacher"]["std"] != [1 / 255]
    right = diagnose(teacher, images, updates=0)
    assert not [each for each in right.findings if each.severity == "fault"] and right.suggested == {}
    config = SynthesizeConfig(teacher=wrong.config)
    settings = applied(config, found.suggested)
    assert settings["teacher"]["std"] == found.suggested["teacher"]["std"] and settings["teacher"]["classes"] == 10
    assert suggestions(right, config.synthesis) == {}
