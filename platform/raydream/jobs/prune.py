"""The job that removes whole channels of a teacher using only images, which it may make first."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from raydream.applications.pruning import Pruning, StageReport, build_pruned, described, total_steps
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import PruneConfig
from raydream.config.network_names import PRUNED
from raydream.data.splits import Split
from raydream.evaluation.accuracy import accuracy_on
from raydream.evaluation.latency import Latency, filters_of, flops_of, measure_latencies
from raydream.jobs.checks.prune import CheckedPruning, check_pruning
from raydream.jobs.compression import Compression, CompressionPlan, compress, report_stage
from raydream.jobs.images import device_to_learn_on, with_room
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.networks import parameters_of
from raydream.networks.export import export_onnx, export_program
from raydream.networks.pruned import widths_of, widths_text
from raydream.reporting.progress import waiting
from raydream.reporting.report import write_report
from raydream.runs.journal import Journal
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import PruneSummary
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import StepsDone, Throttled
from raydream.store.atomic import write_json
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays, teacher_from_arrays, to_arrays

LATENCY_BATCHES = (1, 32)
"""batch sizes of the timed passes, beside `pruning.latency_batch_size`"""


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


def _prune(plan: CompressionPlan[PruneConfig]) -> Pruned:
    """Prune from the last checkpoint, or from the start; if the process is lost, Ray starts it again."""
    name_logs("pruning")
    config = plan.config
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    teacher = teacher_from_arrays(config.teacher, ray.get(plan.teacher[0])).to(device)

    def report(ended: StageReport) -> None:
        filters = {"pruning/filters": filters_of(ended.network)}
        report_stage(plan, ended, widths_text(widths_of(ended.network)), filters)

    images = plan.images.source.read(plan.images.rows)
    pruning = Pruning(
        config, teacher, images, plan.checkpoints, ShardStore(plan.added), report, Throttled(plan.reports, StepsDone)
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
    _, pruned = compress(run, checked, teacher, _pruning(run.config))
    with run.stage("export", "the network to be exported"):
        network = build_pruned(run.config.teacher, pruned.widths)
        load_arrays(network, pruned.snapshot.state)
        save(run.config, network, run.folder, run.journal)
    return _summarize(run, checked, teacher, network, pruned)


def _pruning(config: PruneConfig) -> Compression[PruneConfig]:
    # The path of the tables is relative to the user's folder, wherever the process that prunes starts.
    tables = str(Path(config.pruning.latency_tables).absolute())
    return Compression(
        config=replace(config, pruning=replace(config.pruning, latency_tables=tables)),
        work=_prune_task,
        stage="pruning",
        name="the pruning",
        build=partial(build_pruned, config.teacher),
        steps=partial(total_steps, config),
        shown=lambda report: f"{report.figures['pruning/filters']} filters",
    )


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
    with waiting("both networks to be measured", run.console):
        accuracies = _accuracies(checked, teacher, network, device_to_learn_on(config))
    flops, filters, parameters = (
        (of(teacher.network), of(network)) for of in (lambda each: flops_of(each, shape), filters_of, parameters_of)
    )
    asked = next(pair for pair in pruned.latencies if pair[0].batch_size == config.pruning.latency_batch_size)
    return PruneSummary(
        seed=config.seed,
        criterion=config.pruning.criterion,
        data=config.data.name,
        **accuracies,
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
