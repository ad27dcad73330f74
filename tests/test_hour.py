"""The benchmark of accuracy against time, at the smallest scale."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import hour
from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.search.space import merged
from raydream.teachers.checkpoints import save_network
from tests.tiny import WIDTH, tiny_network

BENCHMARKS = Path(hour.__file__).parent
SETTINGS = {
    "noisy": {"one": {"synthesis": {"method": "noisy"}}, "two": {"synthesis": {"method": "noisy", "iterations": 3}}},
    "deep_inversion": {"only": {"synthesis": {"method": "deep_inversion"}}},
}


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(hour, "updates_a_second", lambda updates: 10.0)
    save_network(tiny_network(), tmp_path / "teacher.safetensors")
    base = {
        "teacher": {"arguments": {"width": WIDTH}, "checkpoint": str(tmp_path / "teacher.safetensors")},
        "synthesis": {"batch_size": 8, "iterations": 2, "jitter": 1, "precision": "fp32"},
        "student": {"arguments": {"width": WIDTH}, "batch_size": 8, "precision": "fp32"},
        "rounds": {"initial_batches": 1, "count": 2, "batches": 1, "final_steps": 1},
        "buffer": {"samples_per_insert": 2},
    }
    small = {"synthesis": {"generator": {"latent": 6, "width": 4}}}
    for name, content in (("base", base), ("small", small), ("settings", SETTINGS)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", x=images, y=np.arange(30) % 10)
    return [
        *("--config", str(tmp_path / "base.yaml"), str(tmp_path / "small.yaml")),
        *("--settings", str(tmp_path / "settings.yaml"), "--real", str(tmp_path / "real.npz")),
        *("--choose", "10", "--seeds", "2", "--threads", "1", "--json", str(tmp_path / "out.json")),
    ]


def test_settings_are_chosen_by_a_seed_of_their_own_and_what_is_there_is_not_made_again(options, tmp_path, monkeypatch):
    hour.main([*options, "--figure", str(tmp_path / "out.png")])
    made = json.loads((tmp_path / "out.json").read_text())
    of = [(run["method"], run["candidate"], run["seed"]) for run in made["runs"]]
    one, two = (run["curve"][-1]["choosing"] for run in made["runs"][:2])
    best = "two" if two > one else "one"
    assert of == [
        ("noisy", "one", hour.CHOOSING_SEED),
        ("noisy", "two", hour.CHOOSING_SEED),
        *[("noisy", best, seed) for seed in (0, 1)],
        *[("deep_inversion", "only", seed) for seed in (0, 1)],
    ]
    assert set(made["rows"]) == {f"noisy {best} 20", "deep_inversion only 20"}
    last = [run["curve"][-1]["accuracy"] for run in made["runs"][-2:]]
    assert made["rows"]["deep_inversion only 20"]["accuracy"]["values"] == last
    assert (tmp_path / "out.png").stat().st_size > 1000

    # Killed after the fourth run: the last two are made, to the same students.
    (tmp_path / "out.json").write_text(json.dumps({"rows": {}, "runs": made["runs"][:4]}))
    hour.main(options)
    again = json.loads((tmp_path / "out.json").read_text())
    assert [[p["accuracy"] for p in run["curve"]] for run in again["runs"]] == [
        [p["accuracy"] for p in run["curve"]] for run in made["runs"]
    ]
    monkeypatch.setattr(hour, "rounds_of", None)
    hour.main(options)


def test_a_run_stops_after_the_round_in_which_its_standard_minutes_have_passed(options, tmp_path):
    hour.main([*options, "--minutes", "1e-9", "--methods", "deep_inversion"])
    for run in json.loads((tmp_path / "out.json").read_text())["runs"]:
        (point,) = run["curve"]
        assert point["step"] == 2 and 0 < point["minutes"] < 5
        assert point["standard_minutes"] == pytest.approx(2.0 * point["minutes"])  # 10 updates a second, not 5


def test_students_are_reported_on_other_images_than_settings_are_chosen_on(options, tmp_path):
    given = hour._options([*options, "--test", str(tmp_path / "real.npz")])
    parts = hour._real_images(given, (1, 8, 8))
    images, labels = np.load(tmp_path / "real.npz")["x"].transpose(0, 3, 1, 2), np.load(tmp_path / "real.npz")["y"]
    for part, rows in (("choosing", slice(10)), ("accuracy", slice(10, 30)), ("test", slice(30))):
        assert np.array_equal(parts[part][0], images[rows]) and np.array_equal(parts[part][1], labels[rows])


@pytest.mark.parametrize("count", ["0", "30", "31"])
def test_some_images_are_left_to_report_on(options, count):
    with pytest.raises(SystemExit, match="between 1 and 29"):
        hour.main([*options, "--choose", count])


def test_the_most_accurate_candidate_is_chosen_and_of_equals_the_first():
    def run(*points: float) -> dict[str, object]:
        return {"curve": [{"choosing": point, "accuracy": 1.0 - point} for point in points]}

    assert hour.chosen({"a": run(0.9, 0.3), "b": run(0.1, 0.5), "c": run(0.5)}) == "b"


@pytest.mark.long
def test_the_speed_is_of_updates_in_this_process():
    assert 0.01 < hour.updates_a_second(1) < 1000


def test_every_candidate_is_a_configuration_that_a_run_takes():
    base = yaml.safe_load((BENCHMARKS.parent / "configs/cifar10_resnet20_fast.yaml").read_text())
    for method, candidates in yaml.safe_load((BENCHMARKS / "settings/hour_cifar10.yaml").read_text()).items():
        for changes in candidates.values():
            assert validate(DistillConfig, merged(base, changes)).synthesis.method == method
