"""The check on a machine that lacks Ray and everything else but torch, numpy and pydantic."""

import json
import subprocess
import sys

import pytest

from raydream.device_check.steps import STEPS
from tests.calls import ROOT
from tests.device_check.machines import bare_environment

NEEDED = ["synthesis", "students.distillation", "networks", "teachers.teacher", "evaluation.latency", "store.atomic"]
TARGETS = sorted({step.target.partition(":")[0] for step in STEPS if "ray" not in step.needs})


def python(*words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    environment = bare_environment()
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s
    )


@pytest.fixture(scope="module")
def imported() -> dict[str, str]:
    """What importing each module said, all in one process."""
    modules = [*(f"raydream.{name}" for name in NEEDED), "raydream.device_check.command", *TARGETS, "ray", "yaml"]
    code = f"""
import importlib, json
said = {{}}
for name in {modules}:
    try:
        importlib.import_module(name)
        said[name] = ""
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*(f"raydream.{name}" for name in NEEDED), "raydream.device_check.command", *TARGETS])
def test_what_the_check_needs_is_importable_with_torch_numpy_and_pydantic_alone(name, imported):
    assert imported[name] == ""


@pytest.mark.parametrize("name", ["ray", "yaml"])
def test_other_packages_are_missing_there(name, imported):
    assert imported[name] == f"No module named {name!r}"


@pytest.mark.long
def test_the_whole_check_passes_on_a_cpu_without_ray(tmp_path):
    out = tmp_path / "check.json"
    done = python("jobs/check.py", "--device", "cpu", "--out", str(out), "--minutes", "40", timeout_s=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert list(results) == [step.name for step in STEPS]
    states = {step.name: results[step.name]["ok"] for step in STEPS}
    assert states == {step.name: None if "cuda" in step.needs else True for step in STEPS}
    assert results["facts"]["figures"]["has"] == {"cuda": False, "ray": False}
    assert "it needs a CUDA GPU" in results["memory"]["figures"]["skipped"]
    for name in ("resnet20_published", "resnet20_engine", "resnet20_engine_compiled", "resnet20_bare"):
        assert results[name]["figures"]["8x8"]["ms_per_update"] > 0
    cold, warm = (results[f"resnet50_{cache}"]["figures"] for cache in ("cold", "warm"))
    assert cold["compiler"]["fxgraph_cache_miss"] and not cold["compiler"].get("fxgraph_cache_hit")
    assert warm["compiler"]["fxgraph_cache_hit"] and not warm["compiler"].get("fxgraph_cache_miss")
    assert cold["16x16"]["first_update_s"] > warm["16x16"]["first_update_s"]
    assert set(results["bits"]["figures"]) == {"resnet20, compile off", "pooling, compile off"}
    assert "0 failed" in done.stdout.splitlines()[-1]
