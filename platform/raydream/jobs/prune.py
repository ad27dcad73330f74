"""The job that removes whole channels of a teacher using only images, which it may make first."""

import contextlib
import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.queue import Queue
from torch import nn

from raydream.applications.pruning import Pruning, StageReport, build_pruned, described, total_steps
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import PruneConfig
from raydream.data.sources import Images
from raydream.data.splits import Split
from raydream.evaluation.accuracy import accuracy_on
from raydream.evaluation.latency import Latency, filters_of, flops_of, measure_latencies
from raydream.jobs.checks.prune import CheckedPruning, check_pruning
from raydream.jobs.followed import FollowedTask, ended, record_network
from raydream.jobs.images import device_to_learn_on, images_made, with_room
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.networks import PRUNED, parameters_of
from raydream.networks.export import export_onnx, export_program
from raydream.networks.pruned import widths_of, widths_text
from raydream.reporting.report import write_report
from raydream.runs.journal import Journal
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import PruneSummary
from raydream.runtime.evaluator import start_evaluator
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import NetworkReport, StepsDone, Throttled
from raydream.runtime.placement import check_workers
from raydream.runtime.repair import with_whole_shards
from raydream.runtime.session import actor_options, ray_session, share_of_gpu_left
from raydream.store.atomic import write_json
from raydream.store.folders import Folder
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays, teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

LATENCY_BATCHES = (1, 32)
"""batch sizes of the timed passes, beside `pruning.latency_batch_size`"""


@dataclass(frozen=True)
class PruningPlan:
    """Settings and data of the process that prunes.

    Attributes:
        teacher: a list with the reference to the teacher's arrays.
        images: to learn from.
        added: folder of the added shards.
        checkpoints: folder.
        reports: a queue of `NetworkReport`, to the driver.
    """

    config: PruneConfig
    teacher: list[ray.ObjectRef]
    images: Images
    added: Folder
    checkpoints: Folder
    reports: Queue


@dataclass(frozen=True)
class Pruned:
    """A pruned network and its figures.

    Attributes:
        snapshot: the network's weights and number of distillation steps.
        widths: of its layers, as text.
        latencies: of teacher and pruned network, for each batch size.
    """

    snapshot: Snapshot
    widths: str
    latencies: list[tuple[Latency, Latency]]


def _prune(plan: PruningPlan) -> Pruned:
    """Prune from the last checkpoint, or from the start; if the process is lost, Ray starts it again."""
    name_logs("pruning")
    config, reports = plan.config, plan.reports
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    teacher = teacher_from_arrays(config.teacher, ray.get(plan.teacher[0])).to(device)

    def tell(told: StageReport) -> None:
        stage = told.stage
        log.info("%s %d, %d steps", stage.kind, stage.index, told.step)
        snapshot = Snapshot(told.step, to_arrays(told.network))
        widths, filters = widths_text(widths_of(told.network)), filters_of(told.network)
        figures, learned = {"pruning/filters": filters}, (told.losses, told.agreements)
        reports.put(NetworkReport(stage.kind, stage.index, snapshot, widths, figures, *learned, told.note))

    images = plan.images.source.read(plan.images.rows)
    pruning = Pruning(
        config, teacher, images, plan.checkpoints, ShardStore(plan.added), tell, Throttled(reports, StepsDone)
    )
    network = pruning.run()
    shape, sizes = config.teacher.input_shape, sorted({*LATENCY_BATCHES, config.pruning.latency_batch_size})
    pairs = [tuple(measure_latencies([teacher.network, network], shape, size)) for size in sizes]
    return Pruned(Snapshot(pruning.step, to_arrays(network)), widths_text(widths_of(network)), pairs)  # type: ignore[arg-type]


_prune_task = ray.remote(max_retries=3)(_prune)


def prune(command: Command[PruneConfig]) -> PruneSummary:
    """Make a teacher smaller, or resume; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: PruneConfig, resumed: RunFolder | None, say: Say) -> tuple[PruneConfig, CheckedPruning]:
    config = with_room(config, 0.0, say)
    return config, check_pruning(replace(config, teacher=with_kept_teacher(config.teacher, resumed)))


def _make(run: JobRun[PruneConfig], checked: CheckedPruning) -> PruneSummary:
    if checked.note:
        run.journal.note(checked.note)
    teacher = run.teacher(checked.teacher, device_to_learn_on(run.config))
    session = partial(_session, run, checked, teacher)
    pruned = with_whole_shards(ShardStore(run.folder.images), session, run.journal.note)
    with run.stage("export", "the network to be exported"):
        network = build_pruned(run.config.teacher, pruned.widths)
        load_arrays(network, pruned.snapshot.state)
        save(run.config, network, run.folder, run.journal)
    return _summarize(run, checked, teacher, network, pruned)


def _session(run: JobRun[PruneConfig], checked: CheckedPruning, teacher: Teacher) -> Pruned:
    """Run one session, from what the folder holds to the pruned network."""
    config = run.config
    images = checked.images or images_made(run, config.making, teacher)
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            session.enter_context(ray_session(partial(check_workers, config, 0.0), [config.student], run.folder.run))
        with run.stage("pruning"):
            return _prune_by_images(run, teacher, images)


def _prune_by_images(run: JobRun[PruneConfig], teacher: Teacher, images: Images) -> Pruned:
    """Prune to the end; raises RaydreamError."""
    config, folder = run.config, run.folder
    gpus = share_of_gpu_left(config.device, [config.student.gpus])
    evaluator = start_evaluator(config, partial(build_pruned, config.teacher), gpus)

    followed: FollowedTask[NetworkReport] = FollowedTask(
        run,
        0,
        total_steps(config, len(images)),
        partial(record_network, run),
        lambda report: evaluator.measure.remote(report.snapshot, report.shape),
        lambda report: f"{report.stage} {report.index + 1}: {report.figures['pruning/filters']} filters",
    )
    arrays = [ray.put(to_arrays(teacher.network))]
    # The path of the tables is relative to the user's folder, wherever the process that prunes starts.
    tables = str(Path(config.pruning.latency_tables).absolute())
    placed = replace(config, pruning=replace(config.pruning, latency_tables=tables))
    plan = PruningPlan(placed, arrays, images, folder.images, folder.checkpoints, followed.reports)
    task = _prune_task.options(**actor_options(config.student.resources)).remote(plan)
    followed.until_end(ended(task), "the pruning")
    pruned: Pruned = ray.get(task)
    return pruned


def save(config: PruneConfig, network: nn.Module, folder: RunFolder, journal: Journal) -> None:
    """Write a pruned network into a run's folder: weights, description and exported formats; raises OSError."""
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


def _summarize(
    run: JobRun[PruneConfig], checked: CheckedPruning, teacher: Teacher, network: nn.Module, pruned: Pruned
) -> PruneSummary:
    config, shape = run.config, run.config.teacher.input_shape
    flops, filters, parameters = (
        (of(teacher.network), of(network)) for of in (lambda each: flops_of(each, shape), filters_of, parameters_of)
    )
    asked = next(pair for pair in pruned.latencies if pair[0].batch_size == config.pruning.latency_batch_size)
    return PruneSummary(
        seed=config.seed,
        criterion=config.pruning.criterion,
        data=config.data.name,
        **_accuracies(checked, teacher, network, device_to_learn_on(config)),
        filters_ratio=filters[1] / filters[0],
        parameters_ratio=parameters[1] / parameters[0],
        flops_ratio=flops[1] / flops[0],
        latency_ratio=asked[1].median_s / asked[0].median_s,
        teacher_filters=filters[0],
        pruned_filters=filters[1],
        teacher_parameters=parameters[0],
        student_parameters=parameters[1],
        teacher_flops=flops[0],
        pruned_flops=flops[1],
        latencies=[{"teacher": asdict(one), "pruned": asdict(other)} for one, other in pruned.latencies],
        images=checked.count,
        images_of=config.images or f"this run, by {config.making.synthesis.method}",
        images_added=config.additions.rounds * config.additions.batches * config.synthesis.batch_size,
        pruning_steps=config.pruning.steps,
        distillation_steps=pruned.snapshot.step,
        **run.hours(("images", config.generators.number, config.generators), ("pruning", 1, config.student)),
        teacher_fingerprint=teacher.fingerprint,
        reused=run.reused(),
    )


def _accuracies(checked: CheckedPruning, teacher: Teacher, network: nn.Module, device: torch.device) -> dict[str, Any]:
    real, normalization = checked.real, teacher.normalization
    if real is None:
        return {}

    def measured(which: nn.Module, split: Split) -> float:
        return accuracy_on(device, which, normalization, split.images, split.labels)

    return {
        "teacher_accuracy": measured(teacher.network, real.test),
        "pruned_accuracy": measured(network, real.test),
        "pruned_accuracy_validation": measured(network, real.validation),
        "test_images": len(real.test.labels),
    }


def _report(folder: RunFolder, config: PruneConfig, summary: PruneSummary) -> None:
    write_report(folder, summary)


def _rows(summary: PruneSummary) -> dict[str, str]:
    rows = {}
    for name, accuracy in (("teacher", summary.teacher_accuracy), ("pruned", summary.pruned_accuracy)):
        if accuracy is not None:
            rows[name] = f"{accuracy:.1%} on {summary.test_images} real test images ({summary.data})"
    ratios = {
        "filters": summary.filters_ratio,
        "parameters": summary.parameters_ratio,
        "FLOPs": summary.flops_ratio,
        "latency": summary.latency_ratio,
    }
    rows |= {name: f"{ratio:.1%} of the teacher's" for name, ratio in ratios.items()}
    added = f", and {summary.images_added} against the pruned network" if summary.images_added else ""
    rows["images"] = f"{summary.images} of {summary.images_of}{added}"
    rows["steps"] = f"{summary.pruning_steps} removals, {summary.distillation_steps} distillation steps"
    return rows


JOB = Job(
    name="prune",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"network": "student.safetensors", "report": "report.html"},
)
