"""The job that makes a teacher smaller by whole channels, with nothing but images, which it may make first."""

import contextlib
import logging
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.queue import Queue
from rich.console import Console
from torch import nn

from raydream.applications.pruning import Pruning, Told, described, total_steps
from raydream.applications.reuse import note_reused
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import PruneConfig, TeacherConfig
from raydream.config.conversion import as_dict
from raydream.data import load_data
from raydream.data.sources import Images
from raydream.data.splits import Split
from raydream.errors import StallError
from raydream.evaluation.accuracy import accuracy_on
from raydream.evaluation.latency import Latency, filters_of, flops_of, measure_latencies
from raydream.jobs.checks.prune import CheckedPruning, check_pruning
from raydream.jobs.synthesize import images_made
from raydream.jobs.teacher import keep_teacher, with_kept_teacher
from raydream.networks import PRUNED, build_teacher, parameters_of
from raydream.networks.export import export_onnx, export_program
from raydream.networks.pruned import parse_widths, resized, widths_of, widths_text
from raydream.reporting.cost import cost_rows, hours
from raydream.reporting.progress import Counter, printer, result_table
from raydream.reporting.report import write_report
from raydream.runs import run_folder
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.runtime.failures import own_error
from raydream.runtime.gpus import on_machine
from raydream.runtime.logs import name_logs
from raydream.runtime.mending import with_whole_shards
from raydream.runtime.messages import PruningReport, StepsDone, Teller, drain
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.placement import check_device, check_machine, check_workers
from raydream.runtime.session import (
    actor_options,
    beside_the_driver,
    device_of_driver,
    is_local,
    machine_nodes,
    machine_text,
    ray_session,
    share_of_gpu_left,
)
from raydream.store.atomic import write_json
from raydream.store.folders import Folder
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.normalisation import Normalisation
from raydream.teachers.teacher import Teacher, load_arrays, teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

POLL_S = 0.2
LATENCY_BATCHES = (1, 32)
"""images in the passes that are timed, beside `pruning.latency_batch_size`"""


@dataclass(frozen=True)
class PruningPlan:
    """What the process that prunes needs to know.

    Attributes:
        teacher: a list with the reference to the teacher's arrays.
        images: to learn from.
        added: folder of the shards that are added.
        checkpoints: folder.
        reports: a queue of `PruningReport`, to the driver.
    """

    config: PruneConfig
    teacher: list[ray.ObjectRef]
    images: Images
    added: Folder
    checkpoints: Folder
    reports: Queue


@dataclass(frozen=True)
class Pruned:
    """What is left.

    Attributes:
        snapshot: the network's weights, and the distillation steps behind them.
        widths: of its layers, as text.
        latencies: of teacher and pruned network, for each batch size.
    """

    snapshot: Snapshot
    widths: str
    latencies: list[tuple[Latency, Latency]]


def _prune(plan: PruningPlan) -> Pruned:
    """Prune from the last checkpoint on, or from the start; where its process is lost, Ray begins it again."""
    name_logs("pruning")
    config, reports = plan.config, plan.reports
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    teacher = teacher_from_arrays(config.teacher, ray.get(plan.teacher[0])).to(device)

    def tell(told: Told) -> None:
        stage = told.stage
        log.info("%s %d, %d steps", stage.kind, stage.index, told.step)
        snapshot = Snapshot(told.step, to_arrays(told.network))
        widths, filters = widths_text(widths_of(told.network)), filters_of(told.network)
        losses, agreements = told.losses, told.agreements
        reports.put(PruningReport(stage.kind, stage.index, snapshot, widths, filters, losses, agreements, told.note))

    images = plan.images.source.read(plan.images.rows)
    pruning = Pruning(
        config, teacher, images, plan.checkpoints, ShardStore(plan.added), tell, Teller(reports, StepsDone)
    )
    network = pruning.run()
    shape, sizes = config.teacher.input_shape, sorted({*LATENCY_BATCHES, config.pruning.latency_batch_size})
    pairs = [tuple(measure_latencies([teacher.network, network], shape, size)) for size in sizes]
    return Pruned(Snapshot(pruning.step, to_arrays(network)), widths_text(widths_of(network)), pairs)  # type: ignore[arg-type]


_prune_task = ray.remote(max_retries=3)(_prune)


class Judge:
    """Measures what a pruning has left, on real images, which the pruning itself never sees.

    Args:
        gpus: that this process has reserved; 0: it measures on the CPU.
    """

    def __init__(self, config: PruneConfig, gpus: float) -> None:
        name_logs("evaluator")
        self._device = use_device("auto" if gpus else "cpu", 1, gpus)
        self._data, self._config = load_data(config.data, config.teacher), config

    def measure(self, report: PruningReport) -> dict[str, float]:
        """The accuracy in [0, 1] on each held-out split of the real data; none where there are none."""
        if self._data is None:
            return {}
        network = _rebuilt(self._config.teacher, report.widths, report.snapshot)
        normalisation = Normalisation(self._config.teacher.mean, self._config.teacher.std)
        splits = {"validation": self._data.validation, "test": self._data.test}
        return {
            name: accuracy_on(self._device, network, normalisation, split.images, split.labels)
            for name, split in splits.items()
        }


_JudgeActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Judge)


def _rebuilt(teacher: TeacherConfig, widths: str, snapshot: Snapshot) -> nn.Module:
    network = resized(build_teacher(teacher), parse_widths(widths))
    load_arrays(network, snapshot.state)
    return network.eval()


def prune(command: Command[PruneConfig]) -> dict[str, Any]:
    """Prune a teacher, or go on with it; returns the summary, which is also in the run folder.

    Raises:
        InputError: before Ray starts and before anything is written; only what depends on the size of a cluster that
            is joined is known later.
        RaydreamError: the run failed; it can be resumed.
    """
    began_at, config, console = time.time(), command.config, Console()
    check_machines(config)
    if is_local():
        making = None if config.images else config.making
        config = on_machine(config, making, machine_nodes([config.student, config.generators]), printer(console))
    teacher = with_kept_teacher(config.teacher, command.resumed)
    checked = check_pruning(replace(config, teacher=teacher))
    folder = command.folder()
    with run_folder.held(folder):
        printer(console)(f"run {folder.run} in {folder.shown()}")
        summary = run_folder.read_summary(folder)
        if summary is None:
            summary = _run(config, checked, folder, began_at, console)
        write_report(folder)
    _show(summary, folder, console)
    return summary


def check_machines(config: PruneConfig) -> None:
    """See that this machine has room for all processes, where a cluster is not joined; raises InputError."""
    if not config.images:
        check_device(config.making)
    if is_local():
        check_workers(config, 0.0, machine_nodes([config.student]))
        if not config.images:
            check_machine(config.making, machine_nodes([config.generators]))


def _device(config: PruneConfig) -> torch.device:
    """What the driver computes on."""
    return device_of_driver(config.device, [config.student.gpus, 0.0 if config.images else config.generators.gpus])


def _run(
    config: PruneConfig, checked: CheckedPruning, folder: RunFolder, began_at: float, console: Console
) -> dict[str, Any]:
    with recording(folder, began_at, printer(console)) as (recorder, journal):
        if checked.note:
            journal.note(checked.note)
        with recorder.stage("teacher"):
            recipe = (config.teacher, config.training, config.data)
            teacher = keep_teacher(checked.teacher, recipe, folder, printer(console), _device(config))
        session = partial(_session, config, checked, teacher, folder, recorder, journal, console)
        pruned = with_whole_shards(ShardStore(folder.images), session, journal.note)
        with recorder.stage("export"):
            network = _rebuilt(config.teacher, pruned.widths, pruned.snapshot)
            save(config, network, folder, journal)
        summary = _summarise(config, checked, teacher, network, pruned, recorder)
        summary["reused"] = note_reused(ShardStore(folder.images), folder.run, config.reuse, journal.note)
        recorder.hyper_parameters(as_dict(config), summary)
    write_json(folder.summary, summary)
    return summary


def _session(
    config: PruneConfig,
    checked: CheckedPruning,
    teacher: Teacher,
    folder: RunFolder,
    recorder: Recorder,
    journal: Journal,
    console: Console,
) -> Pruned:
    """From what the folder holds to the pruned network."""
    images = checked.images
    if images is None:
        with recorder.stage("images"):
            images = images_made(config.making, teacher, folder, console, journal)
        recorder.flush()
    with contextlib.ExitStack() as session:
        with recorder.stage("start"):
            check = partial(check_workers, config, 0.0)
            session.enter_context(ray_session(check, [config.student], folder.run))
        with recorder.stage("pruning"):
            return _Run(config, teacher, images, folder, recorder, journal).run(console)


class _Run:
    """A pruning, as the driver sees it: begun, told of, measured, and waited for.

    Args:
        folder: of the run.
        recorder, journal: where to tell what happens.
    """

    def __init__(
        self,
        config: PruneConfig,
        teacher: Teacher,
        images: Images,
        folder: RunFolder,
        recorder: Recorder,
        journal: Journal,
    ) -> None:
        self._config, self._recorder, self._journal, self._folder = config, recorder, journal, folder
        self._steps, self._step, self._metrics = total_steps(config, len(images)), 0, RunMetrics(folder.run)
        here = {"scheduling_strategy": beside_the_driver()}
        self._reports = Queue(actor_options={"num_cpus": 0, "name": "reports", **here})
        gpus = share_of_gpu_left(config.device, [config.student.gpus])
        self._judge = _JudgeActor.options(name="evaluator", num_gpus=gpus, **here).remote(config, gpus)
        arrays = [ray.put(to_arrays(teacher.network))]
        # The path of the tables is the user's, wherever the process starts that prunes.
        tables = str(Path(config.pruning.latency_tables).absolute())
        placed = replace(config, pruning=replace(config.pruning, latency_tables=tables))
        plan = PruningPlan(placed, arrays, images, folder.images, folder.checkpoints, self._reports)
        self._pruning = _prune_task.options(**actor_options(config.student.resources)).remote(plan)
        self._measuring: dict[ray.ObjectRef, PruningReport] = {}
        self._last_news = time.time()

    def run(self, console: Console) -> Pruned:
        """Wait for the end, and show how far it is.

        Returns:
            the pruned network.

        Raises:
            RaydreamError: it failed for good.
        """
        pruned: Pruned | None = None
        try:
            with Counter("distillation steps", 0, self._steps, console) as counter:
                while pruned is None or self._measuring or self._reports.qsize():
                    self._collect_reports()
                    self._collect_measurements(counter)
                    counter.update(self._step)
                    self._metrics.set("student_step", self._step)
                    self._metrics.tell()
                    if pruned is None and ray.wait([self._pruning], timeout=0)[0]:
                        pruned = ray.get(self._pruning)
                    self._check_news()
                    time.sleep(POLL_S)
            return pruned
        except ray.exceptions.RayError as error:
            raise own_error(error, "pruning failed") from error
        finally:
            self._recorder.flush()

    def _collect_reports(self) -> None:
        for report in drain(self._reports):
            self._last_news = time.time()
            if isinstance(report, StepsDone):
                self._step = max(self._step, report.step)
                continue
            if report.note:
                self._journal.note(report.note)
            now, step = time.time(), report.snapshot.step
            self._step = step
            self._recorder.point(now, "student", "pruning/filters", report.filters, step=step)
            for name, values in (("student/loss", report.losses), ("student/agreement", report.agreements)):
                if len(values):
                    self._recorder.point(now, "student", name, float(values.mean()), step=step)
            self._measuring[self._judge.measure.remote(report)] = report

    def _collect_measurements(self, counter: Counter) -> None:
        if not self._measuring:
            return
        for done in ray.wait(list(self._measuring), num_returns=len(self._measuring), timeout=0)[0]:
            report, accuracies = self._measuring.pop(done), ray.get(done)
            for name, value in accuracies.items():
                self._recorder.point(time.time(), "evaluator", f"accuracy/{name}", value, step=report.snapshot.step)
                self._metrics.set("student_accuracy", value, split=name)
            told = {name: f"{value:.1%}" for name, value in accuracies.items()}
            if len(report.losses):
                told = {"loss": f"{report.losses.mean():.3f}", "agreement": f"{report.agreements.mean():.1%}"} | told
            words = "  ".join(f"{name} {value}" for name, value in told.items())
            counter.say(f"{report.stage} {report.index + 1}: {report.filters} filters  {words}")
            self._recorder.flush()
            self._folder.save()

    def _check_news(self) -> None:
        if time.time() - self._last_news > self._config.stall_timeout_s:
            raise StallError(
                f"no news of the pruning for {self._config.stall_timeout_s:g} s (stall_timeout_s); "
                f"the last was of {self._step} of {self._steps} distillation steps"
            )


def save(config: PruneConfig, network: nn.Module, folder: RunFolder, journal: Journal) -> None:
    """Write a pruned network into a run's folder: weights, description, and the formats of others; raises OSError."""
    description = described(config.teacher, network)
    write_json(folder.network, {"network": PRUNED, "arguments": description.arguments})
    save_network(network, folder.student)
    for name, export in (("student.onnx", export_onnx), ("student.pt2", export_program)):
        try:
            export(network, config.teacher.input_shape, folder.path / name)
        except OSError:
            raise
        except Exception as error:  # both exporters raise many kinds for a network that they cannot follow
            journal.note(f"{name} was not written, as this network cannot be exported: {type(error).__name__}")


def _summarise(
    config: PruneConfig,
    checked: CheckedPruning,
    teacher: Teacher,
    network: nn.Module,
    pruned: Pruned,
    recorder: Recorder,
) -> dict[str, Any]:
    """The final figures; accuracies are shares in [0, 1], ratios are pruned to teacher."""
    shape = config.teacher.input_shape
    flops, filters, parameters = (
        (of(teacher.network), of(network)) for of in (lambda each: flops_of(each, shape), filters_of, parameters_of)
    )
    asked = next(pair for pair in pruned.latencies if pair[0].batch_size == config.pruning.latency_batch_size)
    return {
        "seed": config.seed,
        "criterion": config.pruning.criterion,
        "data": config.data.name,
        **_accuracies(checked, teacher, network, _device(config)),
        "filters_ratio": filters[1] / filters[0],
        "parameters_ratio": parameters[1] / parameters[0],
        "flops_ratio": flops[1] / flops[0],
        "latency_ratio": asked[1].median_s / asked[0].median_s,
        "teacher_filters": filters[0],
        "pruned_filters": filters[1],
        "teacher_parameters": parameters[0],
        "student_parameters": parameters[1],
        "teacher_flops": flops[0],
        "pruned_flops": flops[1],
        "latencies": [{"teacher": asdict(one), "pruned": asdict(other)} for one, other in pruned.latencies],
        "images": checked.count,
        "images_of": config.images or f"this run, by {config.making.synthesis.method}",
        "images_added": config.additions.rounds * config.additions.batches * config.synthesis.batch_size,
        "pruning_steps": config.pruning.steps,
        "distillation_steps": pruned.snapshot.step,
        "wall_s": recorder.time_s(time.time()),
        "seconds_by_stage": recorder.seconds_by_stage(),
        **hours(
            (recorder.seconds_by_stage().get("images", 0.0), config.generators.number, config.generators),
            (recorder.seconds_by_stage()["pruning"], 1, config.student),
        ),
        "teacher_fingerprint": teacher.fingerprint,
        **machine_text(),
    }


def _accuracies(checked: CheckedPruning, teacher: Teacher, network: nn.Module, device: torch.device) -> dict[str, Any]:
    real, normalisation = checked.real, teacher.normalisation
    if real is None:
        return {}

    def measured(which: nn.Module, split: Split) -> float:
        return accuracy_on(device, which, normalisation, split.images, split.labels)

    return {
        "teacher_accuracy": measured(teacher.network, real.test),
        "pruned_accuracy": measured(network, real.test),
        "pruned_accuracy_validation": measured(network, real.validation),
        "test_images": len(real.test.labels),
    }


def _show(summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    rows = {}
    if "pruned_accuracy" in summary:
        on = f"on {summary['test_images']} real test images ({summary['data']})"
        rows = {name: f"{summary[f'{name}_accuracy']:.1%} {on}" for name in ("teacher", "pruned")}
    for name in ("filters", "parameters", "flops", "latency"):
        rows[name if name != "flops" else "FLOPs"] = f"{summary[f'{name}_ratio']:.1%} of the teacher's"
    added = f", and {summary['images_added']} against the pruned network" if summary["images_added"] else ""
    rows["images"] = f"{summary['images']} of {summary['images_of']}{added}"
    rows["steps"] = f"{summary['pruning_steps']} removals, {summary['distillation_steps']} distillation steps"
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in summary["seconds_by_stage"].items())
    rows["seconds"] = f"{summary['wall_s']:.0f} in all: {stages}"
    rows |= cost_rows(summary)
    rows["network"] = f"run:{folder.shown()}"
    rows["report"] = folder.shown(folder.report.name)
    console.print(result_table(rows))
