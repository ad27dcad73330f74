"""The job that diagnoses a teacher: in this process, without Ray."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import DoctorConfig
from raydream.data import check_data
from raydream.data.files import LabeledSource, open_files
from raydream.data.sources import evenly_spread
from raydream.diagnosis.diagnose import RealImages, applied, diagnosis_of
from raydream.diagnosis.real_images import MOST_IMAGES
from raydream.errors import InputError
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.memory import in_words
from raydream.networks import build_teacher
from raydream.reporting.diagnosis import write_diagnosis
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import DoctorSummary
from raydream.store.yaml_files import write_yaml
from raydream.targets import check_targets
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher

MARKS = {"fault": "FAULT", "suspected": "suspected", "note": "ok"}


@dataclass(frozen=True)
class DoctorInputs:
    """The inputs of a diagnosis.

    Attributes:
        teacher: None if it must be trained.
        real: None where no real images are named.
    """

    teacher: Teacher | None
    real: RealImages | None


def doctor(command: Command[DoctorConfig]) -> DoctorSummary:
    """Diagnose a teacher and suggest settings; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: DoctorConfig, resumed: RunFolder | None, say: Say) -> tuple[DoctorConfig, DoctorInputs]:
    if config.apply and Path(config.apply).exists() and resumed is None:
        raise InputError("apply", config.apply, "a file that does not exist yet", "name another one")
    described = with_kept_teacher(config.teacher, resumed)
    if described.checkpoint is None:
        check_data(config.data, config.teacher, train=True)
        teacher, network = None, build_teacher(config.teacher)
    else:
        teacher = load_teacher(described)
        network = teacher.network
    check_shapes(network, config.teacher)
    check_targets(config.synthesis.targets, config.teacher.classes)
    return config, DoctorInputs(teacher, _real_images(config) if config.real else None)


def _real_images(config: DoctorConfig) -> RealImages:
    """Read a few real images and their labels, if they have any; raises InputError."""
    shape = config.teacher.input_shape

    def opened(size: tuple[int, int]) -> LabeledSource:
        return open_files(config.real, "real", (shape[0], *size), resize=True)

    source = opened(shape[1:])
    rows = np.array(evenly_spread(range(sum(source.parts)), MOST_IMAGES))
    source.read(rows[:1])
    try:
        labels: np.ndarray | None = source.labels()[rows]
    except InputError:
        labels = None
    if labels is not None and (labels.min() < 0 or labels.max() >= config.teacher.classes):
        labels = None
    return RealImages(lambda size: opened(size).read(rows), labels)


def _make(run: JobRun[DoctorConfig], checked: DoctorInputs) -> DoctorSummary:
    config = run.config
    device = use_device(config.device, torch.get_num_threads(), torch.cuda.device_count())
    teacher = run.teacher(checked.teacher, device).to(device)
    with run.stage("diagnosis", "the network to be diagnosed"):
        found = diagnosis_of(teacher, config.synthesis, checked.real, config.updates, config.seed, run.say)
    if config.apply:
        write_yaml(Path(config.apply), applied(config, found.suggested))
    severities = [finding.severity for finding in found.findings]
    described = config.teacher
    return DoctorSummary(
        faults=severities.count("fault"),
        suspicions=severities.count("suspected"),
        findings=[asdict(finding) for finding in found.findings],
        input={
            "shape": list(described.input_shape),
            "mean": list(described.mean),
            "std": list(described.std),
            "classes": described.classes,
        },
        statistics=[asdict(layer) for layer in found.statistics],
        layers=[asdict(layer) for layer in found.structure.layers],
        pruned=found.structure.pruned,
        exported=found.structure.exported,
        quantized=found.structure.quantized,
        estimate=None if found.estimate is None else asdict(found.estimate),
        fits=[asdict(fit) for fit in found.fits],
        probe=None if found.probe is None else asdict(found.probe),
        target_share=None if found.probe is None else found.probe.probes[0].target_share,
        suggested=found.suggested,
        teacher_fingerprint=teacher.fingerprint,
    )


def _rows(summary: DoctorSummary) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    for index, finding in enumerate(summary.findings, 1):
        remedy = f" -> {finding['remedy']}" if finding["remedy"] else ""
        rows[f"{index} {MARKS[finding['severity']]}: {finding['about']}"] = finding["text"] + remedy
    kept = sum(layer["observed"] == "yes" for layer in summary.layers)
    rows["BN layers observed"] = f"{kept} of {len(summary.statistics)}"
    if summary.probe is not None:
        cost = summary.probe["cost"]
        rows["a batch"] = (
            f"{cost['batch_size']} images, {cost['seconds_per_batch']:,.0f} s uncompiled, "
            f"{in_words(cost['memory_bytes'])} of memory"
        )
    if "synthesis" in summary.suggested:
        wanted = summary.suggested["synthesis"]
        shown = {name: value for name, value in wanted["coefficients"].items() if value}
        rows["suggested"] = f"learning rate {wanted['learning_rate']:g}, " + ", ".join(
            f"{name} {value:g}" for name, value in shown.items()
        )
    return rows


def _report(folder: RunFolder, config: DoctorConfig, summary: DoctorSummary) -> None:
    write_diagnosis(folder, summary)


JOB = Job(
    name="doctor",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"summary": "summary.json", "report": "report.html"},
)
