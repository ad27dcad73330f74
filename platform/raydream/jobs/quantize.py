"""The job that quantizes a teacher to few bits using only images, which it may make first."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import ray
import torch

from raydream.applications.quantized_files import FLOAT, QUANTIZED, by_source, said_by_file, write_files
from raydream.applications.quantizing import (
    Quantizing,
    StageReport,
    as_seen,
    bits_of,
    build_quantized,
    calibration_rows,
    described,
    total_steps,
)
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import QuantizeConfig
from raydream.evaluation.accuracy import logits_of
from raydream.evaluation.comparison import beside
from raydream.jobs.checks.images import CheckedInputs
from raydream.jobs.checks.quantize import check_quantization
from raydream.jobs.compression import Compression, CompressionPlan, compress, report_stage
from raydream.jobs.images import device_to_learn_on, with_room
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.networks.quantized import bits_text
from raydream.quantization.layers import packed_bytes
from raydream.quantization.measuring import FileCost, file_costs
from raydream.quantization.ranges import observe
from raydream.quantization.sensitivity import Sensitivity, sensitivities
from raydream.reporting.report import write_report
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import QuantizeSummary
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import StepsDone, Throttled
from raydream.store.atomic import write_json
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays, teacher_from_arrays, to_arrays

THREADS = 1
"""number of threads that ONNX Runtime computes with when it is measured"""
SENSITIVE_IMAGES = 256
"""most images on which the sensitivity of layers is measured"""


@dataclass(frozen=True)
class Quantized:
    """A quantized network and its layers.

    Attributes:
        snapshot: the quantized network's weights and step sizes, and its number of distillation steps.
        layers: how sensitive each is, the most sensitive first.
    """

    snapshot: Snapshot
    layers: list[Sensitivity]


def _quantize(plan: CompressionPlan[QuantizeConfig]) -> Quantized:
    """Quantize from the last checkpoint, or from the start; if the process is lost, Ray starts it again."""
    name_logs("quantizing")
    config = plan.config
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    teacher = teacher_from_arrays(config.teacher, ray.get(plan.teacher[0])).to(device)

    def report(ended: StageReport) -> None:
        report_stage(plan, ended, bits_text(run.bits), {})

    images, work = plan.images.source.read(plan.images.rows), Throttled(plan.reports, StepsDone)
    run = Quantizing(config, teacher, images, plan.checkpoints, ShardStore(plan.added), report, work)
    network = run.run()
    some = images[calibration_rows(len(images), min(SENSITIVE_IMAGES, config.quantization.calibration_images))]
    batches = partial(as_seen, teacher, some)
    seen = observe(teacher.network, run.bits, batches)
    ranges = config.quantization.simulated_ranges
    layers = sensitivities(teacher.network, run.bits, seen, ranges, batches, lambda done: work(run.step))
    return Quantized(Snapshot(run.step, to_arrays(network)), layers)


_quantize_task = ray.remote(max_retries=3)(_quantize)


def quantize(command: Command[QuantizeConfig]) -> QuantizeSummary:
    """Quantize a teacher to few bits, or resume; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: QuantizeConfig, resumed: RunFolder | None, say: Say) -> tuple[QuantizeConfig, CheckedInputs]:
    config = with_room(config, 0.0, say)
    return config, check_quantization(replace(config, teacher=with_kept_teacher(config.teacher, resumed)))


def _make(run: JobRun[QuantizeConfig], checked: CheckedInputs) -> QuantizeSummary:
    teacher = run.teacher(checked.teacher, device_to_learn_on(run.config))
    images, quantized = compress(run, checked, teacher, _quantizing(run.config))
    config, teacher = run.config, teacher.to(torch.device("cpu"))
    pixels = images.source.read(images.rows)
    with run.stage("export", "the network to be exported"):
        network = build_quantized(config.teacher, bits_text(bits_of(config, teacher)))
        load_arrays(network, quantized.snapshot.state)
        description = described(config.teacher, bits_of(config, teacher))
        write_json(run.folder.network, {"network": description.network, "arguments": description.arguments})
        save_network(network, run.folder.student)
        write_files(config, teacher, network, pixels, run.folder.path, run.journal.note)
    with run.stage("measuring", "the exported networks to be measured"):
        measured = _measured(run, checked, teacher, pixels)
        paths = [run.folder.path / name for name in (FLOAT, QUANTIZED)]
        costs = file_costs(paths, config.teacher.input_shape, threads=THREADS)
    return _summarize(run, checked, teacher, quantized, measured, costs)


def _quantizing(config: QuantizeConfig) -> Compression[QuantizeConfig]:
    return Compression(
        config=config,
        work=_quantize_task,
        stage="quantizing",
        name="the quantization",
        build=partial(build_quantized, config.teacher),
        steps=partial(total_steps, config),
        shown=lambda report: "",
    )


def _measured(run: JobRun[QuantizeConfig], checked: CheckedInputs, teacher: Teacher, images: Any) -> dict[str, Any]:
    """Measure the quantized network's file, and other calibration images, on real data; empty without data."""
    config, real, path = run.config, checked.real, run.folder.path / QUANTIZED
    if real is None:
        return {}
    said = said_by_file(config, path, real.test.images, THREADS)
    validation = said_by_file(config, path, real.validation.images, THREADS)
    teacher_says = logits_of(teacher.network, teacher.normalization, real.test.images)
    return {
        "teacher_accuracy": float((teacher_says.argmax(1) == real.test.labels).mean()),
        "student_accuracy": float((said.argmax(1) == real.test.labels).mean()),
        "student_accuracy_validation": float((validation.argmax(1) == real.validation.labels).mean()),
        "test_images": len(real.test.labels),
        "sources": by_source(config, teacher, images, real, run.folder.path, THREADS)
        if config.quantization.compared
        else [],
        **beside(said, teacher_says, real.test.labels),
    }


def _summarize(
    run: JobRun[QuantizeConfig],
    checked: CheckedInputs,
    teacher: Teacher,
    quantized: Quantized,
    measured: dict[str, Any],
    costs: list[FileCost],
) -> QuantizeSummary:
    config, wanted, (one, other) = run.config, run.config.quantization, costs
    size = max(one.latencies)
    return QuantizeSummary(
        seed=config.seed,
        method=wanted.method,
        ranges=wanted.chosen_ranges,
        weight_bits=wanted.weights,
        activation_bits=wanted.activations,
        data=config.data.name,
        **measured,
        teacher_bytes=one.size_bytes,
        student_bytes=other.size_bytes,
        packed_bytes=packed_bytes(teacher.network, bits_of(config, teacher)),
        size_ratio=other.size_bytes / one.size_bytes,
        latency_ratio=other.latencies[size].median_s / one.latencies[size].median_s,
        latencies=[
            {"teacher": asdict(one.latencies[each]), "quantized": asdict(other.latencies[each])}
            for each in one.latencies
        ],
        threads=THREADS,
        peak_memory_bytes={
            name: {str(images): held for images, held in cost.peak_memory_bytes.items()}
            for name, cost in (("teacher", one), ("quantized", other))
        },
        layers=[asdict(each) for each in quantized.layers],
        images=checked.count,
        images_of=config.images or f"this run, by {config.making.synthesis.method}",
        images_added=config.additions.rounds * config.additions.batches * config.synthesis.batch_size,
        distillation_steps=quantized.snapshot.step,
        **run.hours(("images", config.generators.number, config.generators), ("quantizing", 1, config.student)),
        teacher_fingerprint=teacher.fingerprint,
        reused=run.reused(),
    )


def _report(folder: RunFolder, config: QuantizeConfig, summary: QuantizeSummary) -> None:
    write_report(folder, summary)


def _rows(summary: QuantizeSummary) -> dict[str, str]:
    rows = {"bits": f"W{summary.weight_bits}A{summary.activation_bits}, {summary.method}, {summary.ranges} ranges"}
    for name, accuracy in (("teacher", summary.teacher_accuracy), ("quantized", summary.student_accuracy)):
        if accuracy is not None:
            rows[name] = f"{accuracy:.1%} on {summary.test_images} real test images ({summary.data})"
    for each in summary.sources:
        rows[f"calibrated on {each['source']}"] = f"{each['accuracy']:.1%}"
    rows["ONNX file"] = f"{summary.student_bytes:,} bytes, {summary.size_ratio:.1%} of the teacher's"
    rows["latency"] = f"{summary.latency_ratio:.1%} of the teacher's, {summary.threads} thread(s), 32 images"
    rows["most sensitive layers"] = ", ".join(each["layer"] for each in summary.layers[:3])
    added = f", and {summary.images_added} against the quantized network" if summary.images_added else ""
    rows["images"] = f"{summary.images} of {summary.images_of}{added}"
    return rows


JOB = Job(
    name="quantize",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"network": QUANTIZED, "program": "student.pt2", "report": "report.html"},
)
