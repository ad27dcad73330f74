"""The steps of the device check that need Ray, without a GPU: placed and run as there, on CPUs."""

from pathlib import Path

import pytest

from raydream.device_check.runner import run_steps
from raydream.device_check.steps import STEPS, CheckStep

OF_RAY = [step for step in STEPS if "ray" in step.needs]
FACTS = CheckStep("facts", "what there is", "tests.device_check.fakes:facts", 30)


@pytest.mark.long
def test_one_worker_two_workers_of_ray_train_and_two_generators_do_their_work(tmp_path: Path, own_ray: None) -> None:
    steps = [CheckStep(step.name, step.does, step.target, 600) for step in OF_RAY]
    results = run_steps([FACTS, *steps], "cpu", tmp_path / "check.json", 1200, print)
    student, workers, generators = (results[name] for name in ("ray_student", "ray_workers", "ray_generators"))
    assert student["ok"], student["error"]
    assert student["figures"]["devices"] == ["cpu"] and len(student["figures"]["losses"]) == 4
    assert workers["ok"], workers["error"]
    first, second = workers["figures"]["workers"]
    assert first["devices"] == second["devices"] == ["cpu"] and first["losses"] != second["losses"]
    assert first["weights"] == second["weights"]
    assert generators["ok"], generators["error"]
    assert generators["figures"]["generators"] == [0, 1] and generators["figures"]["notes"] == []
