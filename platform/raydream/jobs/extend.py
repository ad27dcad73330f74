"""The job that teaches a network new classes, by several methods side by side."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import ray
import torch
from rich.console import Console

from raydream.applications.continual.course import Course
from raydream.applications.continual.measures import accuracies, confusion_matrix
from raydream.applications.continual.results import FIGURES, CourseResults, figures_of, summarized, table_of
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import ContinualConfig
from raydream.errors import DivergenceError, RaydreamError, first_line
from raydream.jobs.checks.extend import CheckedContinual, check_continual
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.networks import build_teacher
from raydream.reporting.continual_report import write_continual_report
from raydream.reporting.cost import hours
from raydream.reporting.progress import printer
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import ExtendSummary
from raydream.runtime.gpus import idle_gpus
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import ReportQueue, TaskProgress, Throttled
from raydream.runtime.placement import check_workers
from raydream.runtime.session import actor_options, device_of_driver, is_local, machine_nodes, ray_session
from raydream.runtime.tasks import Tasks
from raydream.store.atomic import write_atomically, write_json
from raydream.store.folders import Folder
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CoursePlan:
    """Settings and data that all courses share.

    Attributes:
        shared: a list with the reference to the teacher's arrays and the groups' data.
        results: folder that steps are committed to.
        reports: queue of `Tasks`.
    """

    config: ContinualConfig
    shared: list[ray.ObjectRef]
    results: Folder
    reports: ReportQueue


def _take(plan: CoursePlan, method: str, seed: int) -> str | None:
    """Take the steps of a course that are not committed; if its process is lost, Ray starts it again.

    Returns:
        why it failed; None if it did not.
    """
    name_logs(f"course {method}", seed)
    config, (arrays, groups) = plan.config, ray.get(plan.shared[0])
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    teacher = teacher_from_arrays(config.teacher, arrays).to(device)
    results = CourseResults(plan.results)
    course = Course(
        config, method, seed, teacher, groups, Throttled(plan.reports, partial(TaskProgress, _shown((method, seed))))
    )
    done, state = results.begin(method, seed)
    began = time.perf_counter()
    try:
        for learned in course.steps(done, state):
            results.commit(method, seed, learned, time.perf_counter() - began)
            log.info("step %d, %.0f s", learned.step, time.perf_counter() - began)
            began = time.perf_counter()
    except DivergenceError as error:
        return first_line(error)
    return None


_take_task = ray.remote(max_retries=3)(_take)


def extend(command: Command[ContinualConfig]) -> ExtendSummary:
    """Teach a network new classes by all methods, or resume; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: ContinualConfig, resumed: RunFolder | None, say: Say) -> tuple[ContinualConfig, CheckedContinual]:
    if is_local():
        nodes = machine_nodes([config.student])
        check_workers(config, 0.0, nodes)
        if notice := idle_gpus(config.device, {"student.gpus": config.student.gpus}, nodes):
            say(notice)
    return config, check_continual(config, with_kept_teacher(config.teacher, resumed))


def _make(run: JobRun[ContinualConfig], checked: CheckedContinual) -> ExtendSummary:
    config = run.config
    teacher = run.teacher(checked.teacher, device_of_driver(config.device, [config.student.gpus]))
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            session.enter_context(ray_session(partial(check_workers, config, 0.0), [config.student], run.folder.run))
        with run.stage("courses"):
            before = _before(config, checked, teacher)
            courses = _Courses(config, checked, teacher, run.folder)
            failed = courses.run(run.console, partial(_record, run.recorder, before))
    for (method, seed), reason in failed.items():
        run.journal.note(f"{method} of seed {seed} failed and is left out: {reason}")
    return _summarize(run, checked, before, teacher)


def _place(folder: RunFolder) -> Folder:
    return folder.place / "courses"


def _courses(config: ContinualConfig) -> Iterator[tuple[str, int]]:
    """Return method and seed of each course, those of one seed together."""
    for seed in range(config.seed, config.seed + config.seeds):
        for method in config.methods:
            yield method, seed


class _Courses:
    """All courses as the driver sees them: starts, follows and awaits them."""

    def __init__(self, config: ContinualConfig, checked: CheckedContinual, teacher: Teacher, folder: RunFolder) -> None:
        self._config, self._folder, self._results = config, folder, CourseResults(_place(folder))
        shared = [ray.put((to_arrays(teacher.network), checked.groups))]
        self._tasks = Tasks("courses", config.stall_timeout_s)
        plan = CoursePlan(config, shared, _place(folder), self._tasks.reports)
        task = _take_task.options(**actor_options(config.student.resources))
        for course in _courses(config):
            share = self._results.begin(*course)[0] / len(config.steps)
            self._tasks.add(_shown(course), share, task.remote(plan, *course) if share < 1 else None)

    def run(
        self, console: Console, record: Callable[[ContinualConfig, CourseResults, str, int], None]
    ) -> dict[tuple[str, int], str]:
        """Wait for the end of all courses, and show their progress.

        Args:
            record: called with each course that has ended.

        Returns:
            why courses failed, by method and seed.

        Raises:
            RaydreamError: a process failed for good, or no report arrived for too long.
        """
        failed, courses, say = {}, {_shown(course): course for course in _courses(self._config)}, printer(console)
        for name, reason in self._tasks.ended(console):
            if reason is None:
                record(self._config, self._results, *courses[name])
            else:
                failed[courses[name]] = reason
            say(self._line(courses[name]) if reason is None else f"{name} failed: {reason}")
            self._folder.save()
        return failed

    def _line(self, course: tuple[str, int]) -> str:
        steps = self._results.steps(*course)
        reached = accuracies(np.array(steps[-1]["confusion"]), _sizes(self._config))
        seconds = sum(step["seconds"] for step in steps)
        return f"{_shown(course)}: all {reached.all:.1%}  old {reached.old:.1%}  new {reached.new:.1%}  {seconds:.0f} s"


def _shown(course: tuple[str, int]) -> str:
    return f"{course[0]} (seed {course[1]})"


def _sizes(config: ContinualConfig) -> list[int]:
    return [config.teacher.classes, *(len(step.classes) for step in config.steps)]


def _before(config: ContinualConfig, checked: CheckedContinual, teacher: Teacher) -> np.ndarray:
    """Return the confusion matrix of the teacher on test images of its classes."""
    first = checked.groups[0].test
    return confusion_matrix(teacher.network, teacher.normalization, first, config.teacher.classes)


def _summarize(
    run: JobRun[ContinualConfig], checked: CheckedContinual, before: np.ndarray, teacher: Teacher
) -> ExtendSummary:
    config, folder, sizes = run.config, run.folder, _sizes(run.config)
    results = CourseResults(_place(folder))
    methods, tables = {}, []
    for method in config.methods:
        courses, confusions, seconds = [], [], []
        for seed in (seed for each, seed in _courses(config) if each == method):
            steps = results.steps(method, seed)
            if len(steps) < len(config.steps):
                continue
            courses.append(figures_of(steps, before, sizes))
            tables.append(table_of(method, seed, courses[-1]["steps"]))
            confusions.append(np.array(steps[-1]["confusion"]))
            seconds.append(sum(step["seconds"] for step in steps))
            _record(run.recorder, before, config, results, method, seed)
        if courses:
            confusion = np.sum(confusions, 0).tolist()
            methods[method] = summarized(courses) | {"seconds": float(np.mean(seconds)), "confusion": confusion}
    if not methods:
        raise RaydreamError(f"no course finished; {folder.shown(folder.journal.name)} says why")
    table = pd.concat(tables, ignore_index=True)
    write_atomically(folder.path / "courses.parquet", lambda temporary: table.to_parquet(temporary, index=False))
    return ExtendSummary(
        methods=methods,
        seed=config.seed,
        seeds=config.seeds,
        data=[each.name for each in (config.data, *config.steps)],
        classes_by_group=sizes,
        teacher_accuracy=float(np.trace(before) / before.sum()),
        test_images=sum(len(group.test.labels) for group in checked.groups),
        new_images=[len(group.train.labels) for group in checked.groups[1:]],
        images_per_class=config.images_per_class,
        **hours(*((step["seconds"], 1, config.student) for each in _courses(config) for step in results.steps(*each))),
        teacher_fingerprint=teacher.fingerprint,
        student=_save_student(config, folder, run.journal),
    )


def _save_student(config: ContinualConfig, folder: RunFolder, journal: Journal) -> str | None:
    """Keep the network of the first course that ended as the run's student.

    Returns:
        its name; None if it cannot be built from a description, or no network can be read.
    """
    results, teacher = CourseResults(_place(folder)), replace(config.teacher, classes=sum(_sizes(config)))
    for method, seed in sorted(_courses(config), key=lambda course: config.methods.index(course[0])):
        done, state = results.begin(method, seed)
        if done < len(config.steps) or state is None:
            continue
        network = build_teacher(teacher)
        if _shapes(network.state_dict()) != _shapes(state):
            why = f"{teacher.network} with {teacher.classes} classes cannot be built from its description"
            journal.note(f"run:DIR cannot name the kept network, as {why}: load courses/*.safetensors into your own")
            return None
        network.load_state_dict(state)
        save_network(network, folder.student)
        described = {"network": teacher.network, "arguments": teacher.arguments, "classes": teacher.classes}
        write_json(folder.network, described)
        return _shown((method, seed))
    return None


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def _record(
    recorder: Recorder, before: np.ndarray, config: ContinualConfig, results: CourseResults, method: str, seed: int
) -> None:
    """Record a course in metrics.parquet, once: test accuracies by step, and the curve of each step by epoch."""
    now, source, steps = time.time(), f"{method}-{seed}", results.steps(method, seed)
    if (recorder.table()["source"] == source).any():
        return
    table = table_of(method, seed, figures_of(steps, before, _sizes(config))["steps"])
    for row in table.to_dict("records"):
        for name in ("all", "old", "new"):
            if pd.notna(row[f"accuracy_{name}"]):
                recorder.point(now, source, f"{source}/accuracy/{name}", row[f"accuracy_{name}"], step=row["step"])
    epochs = 0
    for step in steps:
        for point in step["curve"]:
            for name in ("loss", "old", "new"):
                at = int(epochs + point["epoch"])
                recorder.point(now, source, f"{source}/validation/{name}", point[name], step=at)
        epochs += len(step["curve"])
    recorder.flush()


def _report(folder: RunFolder, config: ContinualConfig, summary: ExtendSummary) -> None:
    write_continual_report(folder, config, summary, CourseResults(_place(folder)))


def _rows(summary: ExtendSummary) -> dict[str, str]:
    rows = {"": "all classes, old and new ones; forgetting"}
    for method, values in summary.methods.items():
        shares = "  ".join(f"{name} {values[f'accuracy_{name}']:.1%}" for name in ("all", "old", "new"))
        rows[method] = f"{shares}  forgetting {100 * values['forgetting']:.1f} points  (seeds: {values['courses']})"
    return rows if summary.student is None else rows | {"network kept": f"that of {summary.student}"}


def _figures(summary: ExtendSummary) -> dict[str, float]:
    return {f"{method}/{name}": values[name] for method, values in summary.methods.items() for name in FIGURES}


JOB = Job(
    name="extend",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"network": "student.safetensors", "courses": "courses.parquet", "report": "report.html"},
    figures=_figures,
)
