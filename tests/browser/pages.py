"""Run folders with each kind of report, of the handwritten digits, by the code that runs use, without Ray."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from raydream.applications.continual.course import Course, load_groups
from raydream.applications.continual.measures import confusion_matrix
from raydream.applications.continual.results import CourseResults, figures_of, summarized
from raydream.applications.rounds import run_rounds
from raydream.config import ContinualConfig, DistillConfig, PruneConfig, SearchConfig, TeacherJobConfig, TransferConfig
from raydream.config.conversion import as_dict
from raydream.data.digits import load_digits
from raydream.evaluation.accuracy import logits_of
from raydream.evaluation.comparison import beside
from raydream.evaluation.latency import measure_latencies
from raydream.networks.digits import digits_network
from raydream.reporting.comparison import write_comparison
from raydream.reporting.continual_report import write_continual_report
from raydream.reporting.report import write_report
from raydream.reporting.search_report import write_search_report
from raydream.runs.journal import Journal
from raydream.runs.run_folder import RunFolder, begin
from raydream.runs.summaries import (
    DistillSummary,
    ExtendSummary,
    PruneSummary,
    SearchSummary,
    TrainSummary,
    TransferSummary,
)
from raydream.runs.summary import Summary, read
from raydream.search.space import space_of
from raydream.search.trials import Trials, images_of
from raydream.store.atomic import write_json
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import make_teacher
from tests.reporting.test_figures import make_metrics
from tests.reporting.test_report import SUMMARY
from tests.runs.test_frames import make_comparable
from tests.tiny import WIDTH, tiny_network, tiny_synthesis, tiny_teacher

TEST = load_digits().test
VERSIONS = {name: SUMMARY[name] for name in ("versions", "machine")}


def distilling(**changes: Any) -> dict[str, Any]:
    return {
        "synthesis": tiny_synthesis(iterations=4, batch_size=20, coefficients={"competition": 200.0}),
        "student": {"arguments": {"width": WIDTH}, "batch_size": 8},
        "buffer": {"samples_per_insert": 2},
        "rounds": {"initial_batches": 1, "count": 2, "batches": 1, "final_steps": 3},
        **changes,
    }


def some_images() -> list[ImageBatch]:
    return run_rounds(DistillConfig(**distilling()), tiny_teacher()).batches


def write_run(folder: RunFolder, images: list[ImageBatch], summary: Summary, *sources: str) -> Path:
    """A run with images, a summary, and the metrics whose names begin with one of `sources`; all of them by default."""
    metrics = make_metrics()
    metrics[metrics["name"].str.startswith(sources or ("",))].to_parquet(folder.metrics, index=False)
    for batch in images:
        ShardStore(folder.images).write(batch)
    write_json(folder.summary, summary.as_json())
    return write_report(folder, summary)


def distill_page(path: Path) -> Path:
    folder = begin(str(path), as_dict(DistillConfig(**distilling())), "distill")
    Journal(folder.journal, lambda text: None).note("generator 1 was lost; r0001-b0000 is made again elsewhere")
    save_network(tiny_network(1), folder.student)
    return write_run(folder, some_images(), read(DistillSummary, SUMMARY))


def teacher_page(path: Path) -> Path:
    folder = begin(str(path), as_dict(TeacherJobConfig()), "train")
    summary = SUMMARY | {"teacher_accuracy_validation": 0.98, "train_images": 997}
    return write_run(folder, [], read(TrainSummary, summary), "accuracy/validation", "span/teacher")


def transfer_page(path: Path) -> Path:
    folder = begin(str(path), as_dict(TransferConfig(images="runs/first")), "transfer")
    teacher = tiny_teacher()
    student, usual = (
        logits_of(each, teacher.normalization, TEST.images) for each in (tiny_network(1), teacher.network)
    )
    other = {
        "run": "/some/long/folder/with/many/runs/in/it/of/real/images/at/last",
        "images": 997,
        "images_of": "/some/long/folder/with/many/images.parquet",
        "student_accuracy": 0.987,
        "agreement": 0.99,
        "differs": {"student.view.zoom": 0.2, "student.learning_rate": 0.05, "images": "images.parquet"},
    }
    summary = SUMMARY | beside(student, usual, TEST.labels) | {"images_of": "runs/first", "compared": [other, other]}
    summary |= {"share": 1.0, "feed": "memory", "epochs": 3, "student_wait_share": 0.1}
    summary |= {"teacher_parameters": 12_345, "student_parameters": 2_345}
    return write_run(folder, some_images(), read(TransferSummary, summary), "student", "accuracy", "span")


def prune_page(path: Path) -> Path:
    folder = begin(str(path), as_dict(PruneConfig(images="runs/first")), "prune")
    networks = [tiny_network().eval(), tiny_network(1).eval()]
    latencies = [asdict(each) for each in measure_latencies(networks, (1, 8, 8), 1, passes=5, warm_up_s=0.01)]
    summary = SUMMARY | {
        "criterion": "taylor",
        "pruned_accuracy": 0.96,
        "filters_ratio": 0.5,
        "parameters_ratio": 0.3,
        "flops_ratio": 0.28,
        "latency_ratio": 0.6,
        "teacher_filters": 96,
        "pruned_filters": 48,
        "teacher_parameters": 12_345,
        "student_parameters": 3_456,
        "teacher_flops": 1_234_567,
        "pruned_flops": 345_678,
        "latencies": [dict(zip(("teacher", "pruned"), latencies, strict=True))],
        "images_of": "runs/first",
        "images_added": 0,
        "pruning_steps": 4,
    }
    return write_run(folder, some_images(), read(PruneSummary, summary), "student", "accuracy", "span")


def continual_page(path: Path) -> Path:
    methods, sizes = ("deep_inversion", "finetune", "oracle_distill"), [7, 2, 1]
    config = ContinualConfig(
        seed=7,
        methods=methods,
        teacher={"arguments": {"width": WIDTH}, "classes": 7},
        data={"name": "digits", "classes": tuple(range(7))},
        steps=({"name": "digits", "classes": (7, 8)}, {"name": "digits", "classes": (9,)}),
        synthesis=tiny_synthesis(),
        student={"network": "teacher", "batch_size": 64, "precision": "fp32", "learning_rate": 0.05},
        images_per_class=2,
        epochs=2,
    )
    teacher = make_teacher(digits_network(classes=7, width=WIDTH), config.teacher)
    folder, groups = begin(str(path), as_dict(config), "extend"), load_groups(config)
    (folder.path / "courses").mkdir()
    results = CourseResults(folder.place / "courses")
    for method in methods:
        for learned in Course(config, method, 7, teacher, groups).steps():
            results.commit(method, 7, learned, 1.5)
    before = confusion_matrix(teacher.network, teacher.normalization, groups[0].test, 7)
    steps = {method: results.steps(method, 7) for method in methods}
    summary = {
        "methods": {
            method: summarized([figures_of(taken, before, sizes)])
            | {"seconds": 3.0, "confusion": taken[-1]["confusion"]}
            for method, taken in steps.items()
        },
        "seed": 7,
        "seeds": 1,
        "data": ["digits"] * 3,
        "classes_by_group": sizes,
        "teacher_accuracy": 0.99,
        "test_images": 500,
        "new_images": [197, 99],
        "images_per_class": 2,
        "wall_s": 12.0,
        "seconds_by_stage": {"courses": 12.0},
        "teacher_fingerprint": teacher.fingerprint,
        **VERSIONS,
    }
    return write_continual_report(folder, config, read(ExtendSummary, summary), results)


def search_page(path: Path) -> Path:
    space = {
        "search": {
            "synthesis.learning_rate": {"log_uniform": [1e-3, 1.0]},
            "synthesis.coefficients.feature": {"uniform": [0.0, 10.0]},
            "synthesis.jitter": {"choice": [0, 1, 2]},
        }
    }
    config = SearchConfig(**distilling(space=space))
    folder, random = begin(str(path), as_dict(config), "search"), np.random.default_rng(0)
    trials = Trials(folder.path / "trials.jsonl")
    for number in range(12):
        rate, feature, jitter = 10 ** random.uniform(-3, 0), random.uniform(0, 10), int(random.integers(3))
        names = [dimension.name for dimension in space_of(config).dimensions]
        trials.begin(number, dict(zip(names, (rate, feature, jitter), strict=True)))
        for report in range(3):
            score = 0.5 + 0.1 * report - 0.02 * abs(feature - 4)
            values = {"accuracy": score, "updates": 10.0 * (report + 1), "seconds": 2.0, "images": 20, "step": 5}
            trials.report(number, report, values)
        reason = "SynthesisError: the inversion kept diverging: lower synthesis.learning_rate"
        trials.end(number, "failed" if number == 11 else "done", reason if number == 11 else None)
    best = trials.best("accuracy")
    assert best is not None
    place = Path(str(images_of(folder.place, best)))
    place.parent.mkdir(parents=True)
    for batch in some_images():
        ShardStore(place).write(batch)
    counted = {"trials_done": 11, "trials_stopped": 0, "trials_failed": 1, "updates": 1234, "trial_seconds": 24.0}
    summary = {"best_trial": best, "best_value": trials[best].reports[-1]["accuracy"], "wall_s": 25.0, "trials": 12}
    summary |= {"metric": "accuracy", "metric_is": "accuracy", "seed": 0, "best_settings": trials[best].point}
    summary |= {"searcher": "random", "scheduler": "none"} | counted | VERSIONS
    return write_search_report(folder, config, space_of(config), trials, read(SearchSummary, summary))


def comparison_page(path: Path) -> Path:
    path.mkdir()
    runs = [
        make_comparable(path / name, seed, feature, accuracy)
        for name, seed, feature, accuracy in (
            ("one", 0, 10.0, 0.9), ("two", 1, 10.0, 0.95), ("three", 0, 1.0, 0.7), ("four", 1, 1.0, None)
        )
    ]  # fmt: skip
    for run, accuracy in zip(runs, (0.9, 0.95, 0.7), strict=False):
        write_json(run / "summary.json", SUMMARY | {"student_accuracy": accuracy})
    return write_comparison([str(run) for run in runs], path / "comparison.html")


REPORTS: dict[str, Callable[[Path], Path]] = {
    "distill": distill_page,
    "train_teacher": teacher_page,
    "transfer": transfer_page,
    "prune": prune_page,
    "continual": continual_page,
    "search": search_page,
    "comparison": comparison_page,
}
"""from a new folder to the page in it"""
