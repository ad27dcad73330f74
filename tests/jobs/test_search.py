"""A search: what it leaves, what it survives, and what it refuses."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import ray
import yaml
from ray.util.placement_group import placement_group_table
from ray.util.state import list_actors, list_objects
from torch import nn

from raydream.cli import parse
from raydream.config import DistillConfig, SearchConfig, TeacherConfig
from raydream.config.conversion import validate
from raydream.errors import InputError
from raydream.jobs.checks.search import check_search, check_trial_fits
from raydream.jobs.search import JOB
from raydream.runs.references import resolve
from raydream.runs.summaries import SearchSummary
from raydream.runs.summary import read
from raydream.runtime.session import machine_nodes
from raydream.runtime.trial import TrialAtWork, TrialPlan
from raydream.runtime.trials import Search, run_trials
from raydream.search.candidates import make_sampler, random_points
from raydream.search.space import space_of
from raydream.search.trials import Trials
from raydream.store.folders import folder_at
from raydream.teachers.teacher import make_teacher, to_arrays
from tests.calls import ROOT, TINY, call, start, wait_until
from tests.conftest import Job
from tests.tiny import tiny_synthesis, tiny_teacher

SPACE = yaml.safe_load(Path(__file__).parents[1].joinpath("tiny_space.yaml").read_text())
SIZES = "{search: {synthesis.batch_size: {choice: [8, 16]}}}"
TRIALS, REPORTS = 5, 3


def options(library: Path, *more: object) -> list[str]:
    given = [
        "--config",
        TINY,
        "--training.library",
        library,
        "--space",
        ROOT / "tests/tiny_space.yaml",
        "--trials",
        TRIALS,
    ]
    return [*map(str, given), *map(str, more)]


def points_of(run_dir: Path) -> list[dict]:
    return [trial.point for _, trial in Trials(run_dir / "trials.jsonl").items()]


@pytest.fixture(scope="module")
def finished(library: Path, tmp_path_factory: pytest.TempPathFactory, job: Job) -> Path:
    """A search that was never interrupted."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    done = job("search", *asked(library), "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" and "Traceback" not in done.stdout, done.stdout + done.stderr
    return run_dir


def asked(library: Path) -> list[str]:
    also = "[exam_agreement,own_agreement]"
    return options(library, "--searcher", "random", "--scheduler", "none", "--also", also)


def test_the_files_in_the_table_at_the_end_replace_none_of_its_rows() -> None:
    counted = {"trials": 8, "trials_done": 4, "trials_stopped": 4, "trials_failed": 0, "updates": 2000}
    best = {"best_trial": 0, "best_value": 0.98, "best_settings": {}, "metric": "accuracy", "metric_is": "accuracy"}
    how = {"seed": 0, "searcher": "tpe", "scheduler": "asha", "trial_seconds": 24.0, "wall_s": 25.0}
    rows = JOB.rows(read(SearchSummary, counted | best | how))
    assert rows["trials"] == "8: 4 done, 4 stopped, 0 failed" and not {*rows} & {*JOB.files}


def test_a_search_leaves_a_configuration_that_distill_takes(finished: Path) -> None:
    run_dir = finished
    summary, trials = json.loads((run_dir / "summary.json").read_text()), Trials(run_dir / "trials.jsonl")
    assert summary["metric"] == "accuracy" and summary["trials"] == TRIALS == len(trials.items())
    best = trials[summary["best_trial"]]
    assert best.status == "done" and len(best.reports) == REPORTS
    assert (
        summary["best_value"]
        == best.reports[-1]["accuracy"]
        == max(trial.reports[-1]["accuracy"] for _, trial in trials.items() if trial.status == "done")
    )
    config = validate(DistillConfig, yaml.safe_load((run_dir / "best.yaml").read_text()))
    assert config.synthesis.learning_rate == best.point["synthesis.learning_rate"]
    assert config.rounds.count == 3 and config.synthesis.iterations == 15  # the experiment's scale, not the trials'
    assert parse(DistillConfig, "", ["--config", str(run_dir / "best.yaml")]).config == config
    table = pd.read_parquet(run_dir / "trials.parquet")
    assert table["trial"].tolist() == list(range(TRIALS)) and table["last"].all()
    assert {"exam_agreement", "own_agreement", "target_share", "diversity"} <= set(table)
    assert summary["updates"] == table["updates"].sum() and table["updates"].max() == 5 * REPORTS
    assert len(pd.read_parquet(run_dir / "reports.parquet")) == sum(len(trial.reports) for _, trial in trials.items())
    page = (run_dir / "search.html").read_text()
    assert "Where the good trials lie" in page and "What it took" in page and "http:" not in page
    assert len(list((run_dir / "tensorboard").glob("*/trial-*"))) == TRIALS
    assert not list(run_dir.rglob("*.pkl"))  # nothing of Tune's is kept


@pytest.mark.chaos
def test_a_killed_search_goes_on_with_what_it_had_and_runs_nothing_twice(
    library: Path, finished: Path, tmp_path: Path, job: Job
) -> None:
    run_dir = tmp_path / "run"
    process = start("search", *asked(library), "--run-dir", run_dir)
    wait_until(lambda: Trials(run_dir / "trials.jsonl").count("done") >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = Trials(run_dir / "trials.jsonl")
    ended = {number for number, trial in before.items() if trial.status == "done"}
    assert 2 <= len(ended) < TRIALS and not (run_dir / "summary.json").exists()
    shards = {path: path.stat().st_mtime_ns for path in (run_dir / "trials").rglob("*.parquet")}
    done = job("search", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    after = Trials(run_dir / "trials.jsonl")
    assert [trial.status for _, trial in after.items()] == ["done"] * TRIALS
    assert [len(trial.reports) for _, trial in after.items()] == [REPORTS] * TRIALS
    for number in ended:
        assert after[number].moments == before[number].moments
    assert all(path.stat().st_mtime_ns == moment for path, moment in shards.items())
    begun = [line for line in (run_dir / "trials.jsonl").read_text().splitlines() if '"begun"' in line]
    assert len(begun) == TRIALS
    config = parse(SearchConfig, "", asked(library)).config
    assert points_of(run_dir) == points_of(finished) == random_points(space_of(config), TRIALS, 0).points
    both = [Trials(path / "trials.jsonl").items() for path in (run_dir, finished)]
    scores = [[trial.scores("accuracy") for _, trial in trials] for trials in both]
    assert scores[0] == scores[1]


@pytest.mark.long
def test_a_trial_that_cannot_store_its_images_is_run_by_the_resumed_search_and_damaged_images_are_made_again(
    finished: Path, tmp_path: Path, job: Job
) -> None:
    run_dir = shutil.copytree(finished, tmp_path / "run")
    (run_dir / "summary.json").unlink()
    images, records = run_dir / "trials", run_dir / "trials.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["trial"] not in (1, 2)))
    shutil.rmtree(images / "0001")
    (images / "0001").write_text("no folder can be made here")
    (damaged, *_) = sorted((images / "0002").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-40])
    done = job("search", "--resume", run_dir)
    assert done.returncode == 1 and "trials that are not finished: 1 (" in done.stderr, done.stdout + done.stderr
    assert Trials(records)[1].status == "running" and Trials(records)[2].status == "done"
    (images / "0001").unlink()
    done = job("search", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = [
        {number: trial.scores("accuracy") for number, trial in Trials(path / "trials.jsonl").items()}
        for path in (run_dir, finished)
    ]
    assert scores[0] == scores[1]


@pytest.mark.chaos
def test_ctrl_c_says_how_to_go_on(library: Path, tmp_path: Path) -> None:
    process = start("search", *options(library, "--trial.concurrent", 1), "--run-dir", tmp_path / "run")
    wait_until(lambda: Trials(tmp_path / "run" / "trials.jsonl").count("done") >= 1, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 130, out + error
    assert f"--resume {tmp_path / 'run'}" in error and "Traceback" not in out + error, out + error


@pytest.mark.long
def test_trials_that_fail_are_noted_with_their_reason_and_end_nothing(library: Path, tmp_path: Path, job: Job) -> None:
    rates = {"synthesis.learning_rate": {"grid": [0.1, 1.0e38]}, "synthesis.clip": {"grid": [False]}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE | {"search": rates}))
    given = ["--config", TINY, "--training.library", library, "--space", tmp_path / "space.yaml"]
    done = job("search", *given, "--searcher", "grid", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = Trials(tmp_path / "run" / "trials.jsonl")
    assert [trial.status for _, trial in trials.items()] == ["done", "failed"]
    assert "diverged" in str(trials[1].reason) and "trial 1 failed: SynthesisError" in done.stdout
    assert "diverged" in (tmp_path / "run" / "search.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_trials_give_back_all_that_they_took(tmp_path: Path, scheduler: str) -> None:
    config = SearchConfig(
        space=SPACE, scheduler=scheduler, searcher="random", metric="feature_distance",
        teacher={"arguments": {"width": 8}},
        student={"arguments": {"width": 8}}, synthesis={"precision": "fp32"}, trial={"cpus": 0.5},
    )  # fmt: skip
    teacher, place = tiny_teacher(), folder_at(str(tmp_path))
    (tmp_path / "trials").mkdir()
    plan = TrialPlan(
        (teacher.config, to_arrays(teacher.network)), (), place, None, frozenset(), "feature_distance", None,
        False, 0.5, 0.0,
    )  # fmt: skip
    space, trials, ended = space_of(config), Trials(tmp_path / "trials.jsonl"), []
    sampler = make_sampler("random", space, 9, 0)
    ray.init(address="local", num_cpus=2, include_dashboard=True, log_to_driver=False)
    try:
        free = ray.available_resources()
        run_trials(Search(config, space, 9, sampler, trials, ended.append, lambda trial: None), plan)
        assert sorted(ended) == list(range(9)) and trials.count("running") == trials.count("failed") == 0
        assert trials.count("stopped") > 0 and trials.count("done") > 0
        del plan
        assert_gives_back(free)
    finally:
        ray.shutdown()


def assert_gives_back(free: dict[str, float]) -> None:
    address, deadline = ray.get_runtime_context().gcs_address, time.monotonic() + 60

    def alive() -> list[str]:
        return [actor.class_name for actor in list_actors(address) if actor.state == "ALIVE"]

    while time.monotonic() < deadline and (alive() or ray.available_resources().get("CPU") != free["CPU"]):
        time.sleep(0.5)
    assert not alive(), "a trial's actor is still there"
    assert ray.available_resources()["CPU"] == free["CPU"]
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    held = [each for each in list_objects(address) if each.object_size > 100_000]
    assert not held, held


BAD = [
    (["--trials", "0"], "trials = 0: must be greater than or equal to 1"),
    (["--space", "no_such.yaml"], "space = 'no_such.yaml'"),
    (["--space", "pyproject.toml"], "space ="),
    (["--searcher", "grid"], "searcher = 'grid': must be random or tpe for a space with ranges"),
    (["--metric", "verifier_agreement"], "--verifiers NETWORK=CHECKPOINT"),
    (["--metric", "beauty"], "metric = 'beauty'"),
    (["--metric", "feature_distance", "--space", SIZES], "metric = 'feature_distance': must be another metric"),
    (["--also", "[feature_distance]", "--space", SIZES], "synthesis.batch_size at one value"),
    (["--verifiers", "digits=no_such.safetensors"], "verifiers.0.checkpoint"),
    (["--trial.cpus", "512"], "trial.cpus = 512.0: must be at most"),
    (["--trial.gpus", "0.5"], "trial.gpus = 0.5: must be at most"),
    (["--images_only", "true"], "synthesis.method = 'adaptive'"),
    (
        ["--buffer.samples_per_insert", "3"],
        "space (rounds.count) = 2: must be enough for 45 distillation steps",
    ),
]


@pytest.mark.parametrize(("given", "told"), BAD, ids=[" ".join(given) for given, _ in BAD])
def test_bad_input_is_one_sentence(given: list[str], told: str, library: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        config = parse(SearchConfig, "", options(library, *given, "--run-dir", tmp_path / "run")).config
        check_trial_fits(config, machine_nodes([]))
        check_search(config, config.teacher)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("given", "told"), [BAD[0], BAD[-1]], ids=[BAD[0][0][0], BAD[-1][0][0]])
def test_a_search_answers_bad_input_before_anything_starts(
    given: list[str], told: str, library: Path, tmp_path: Path
) -> None:
    done = call("search", *options(library, *given, "--run-dir", tmp_path / "run"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    assert not (tmp_path / "run").exists() and "search " not in done.stdout


def test_a_search_without_a_space_is_refused(library: Path) -> None:
    done = call("search", "--config", TINY, "--training.library", library)
    assert done.returncode == 2 and "tuning/spaces/coefficients.yaml" in done.stderr, done.stderr


def test_a_trial_needs_one_node_with_room() -> None:
    config = SearchConfig(space=SPACE, trial={"cpus": 4})
    check_trial_fits(config, [{"CPU": 1.0}, {"CPU": 4.0}])
    with pytest.raises(ValueError, match=r"trial\.cpus"):
        check_trial_fits(config, [{"CPU": 3.0}, {"CPU": 3.0}])
    check_trial_fits(SearchConfig(space=SPACE, trial={"cpus": 4}, autoscaling=True), [{"CPU": 1.0}])


def linear_network(input_channels: int = 1, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * input_channels, classes))


def test_a_teacher_without_batch_normalization_is_searched_by_what_it_has(tmp_path: Path) -> None:
    teacher = make_teacher(linear_network(), TeacherConfig(network="tests.jobs.test_search:linear_network"))
    (tmp_path / "trials").mkdir()
    arrays, place = to_arrays(teacher.network), folder_at(str(tmp_path))
    plan = TrialPlan((teacher.config, arrays), (), place, None, frozenset(), "target_share", None, True, 1.0, 0.0)
    config = DistillConfig(
        teacher=teacher.config,
        synthesis=tiny_synthesis(method="deepdream", iterations=2),
        rounds={"initial_batches": 2, "count": 0, "final_steps": 1},
    )
    began = time.perf_counter()
    reports = list(TrialAtWork(plan, config, 0).reports())
    assert 0 < sum(each["seconds"] for each in reports) < time.perf_counter() - began  # of each, and not since it began
    assert [each["images"] for each in reports] == [8, 16]
    assert "feature_distance" not in reports[0] and 0 <= reports[1]["target_share"] <= 1


@pytest.mark.parametrize("path", sorted((ROOT / "tuning" / "spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_space_that_is_offered_can_be_searched(path: Path) -> None:
    settings = resolve({"space": str(path), **yaml.safe_load((ROOT / "configs/digits.yaml").read_text())})
    config = validate(SearchConfig, settings | ({"searcher": "grid"} if "grid" in path.stem else {}))
    check_search(config, config.teacher)


def test_an_ablation_has_a_row_for_each_combination(library: Path, tmp_path: Path, job: Job) -> None:
    given = ["--config", TINY, "--training.library", library, "--synthesis.iterations", 3, "--synthesis.method",
             "deepdream", "--rounds.count", 0, "--rounds.initial_batches", 1, "--rounds.final_steps", 5]  # fmt: skip
    done = job("ablate", *given, "--seeds", 2, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["split"] == "test" and len(summary["rows"]) == 4  # tv and l2
    assert {(row["tv"], row["l2"], row["seeds"]) for row in summary["rows"]} == {
        (tv, l2, 2) for tv in (True, False) for l2 in (True, False)
    }
    assert all(row["accuracy_spread"] >= 0 for row in summary["rows"])
    assert len(pd.read_parquet(tmp_path / "run" / "ablation.parquet")) == 4
    assert not (tmp_path / "run" / "best.yaml").exists()  # nothing is chosen on test data
    assert "class loss + tv" in done.stdout and "Terms on and off" in (tmp_path / "run" / "ablation.html").read_text()
