"""The final figures of a run: the schema of summary.json, one class a job, by which it is written and read.

How figures are named: `runs/summary.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from raydream.runs.summary import Figure, Summary


@dataclass(frozen=True, kw_only=True)
class Measured(Summary):
    """Figures of a teacher and a trained student on real data; None without real data.

    Attributes:
        data: name of the real data.
        student_accuracy: on the test split, at the last step.
        student_accuracy_best: on the test split, at the step that was best on the validation split.
        student_accuracy_best_step: that distillation step.
        student_accuracy_validation: at the last step.
        test_images: number of images that accuracies are measured on.
        images: number of images that the student learned from.
        reused: number of batches made by earlier runs, by the id of the run.
    """

    seed: int
    data: str
    teacher_accuracy: float | None = None
    student_accuracy: float | None = None
    student_accuracy_best: float | None = None
    student_accuracy_best_step: int | None = None
    student_accuracy_validation: float | None = None
    test_images: int | None = None
    images: int
    distillation_steps: int
    reused: dict[str, int] = field(default_factory=dict)

    @property
    def main(self) -> Figure | None:
        return self._named("student_accuracy")


@dataclass(frozen=True, kw_only=True)
class DistillSummary(Measured):
    """Final figures of `distill`.

    Attributes:
        method: the synthesizer of the images.
        overlap_share: share of the student's training time during which a generator made images.
    """

    method: str
    rounds: int
    generators: int
    lockstep: bool
    overlap_share: float


@dataclass(frozen=True, kw_only=True)
class TransferSummary(Measured):
    """Final figures of `transfer`.

    Attributes:
        images_of: source of the images.
        share: share of these images that was learned from.
        feed: memory or stream.
        student_wait_share: share of the student's time spent waiting for images.
        agreement: share of test images that student and teacher classify alike.
        student_accuracy_by_class, teacher_accuracy_by_class: None for a class without test images.
        student_reliability, teacher_reliability: bins of confidence with answers, confidence and accuracy.
        compared: earlier runs beside this one; see `runs/compared.py`.
    """

    images_of: str
    share: float
    feed: str
    epochs: int
    teacher_parameters: int
    student_parameters: int
    student_wait_share: float
    agreement: float | None = None
    student_calibration_error: float | None = None
    teacher_calibration_error: float | None = None
    student_accuracy_by_class: list[float | None] | None = None
    teacher_accuracy_by_class: list[float | None] | None = None
    student_reliability: list[dict[str, float]] | None = None
    teacher_reliability: list[dict[str, float]] | None = None
    compared: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PruneSummary(Summary):
    """Final figures of `prune`.

    Attributes:
        pruned_accuracy: on the test split; `_validation`: on the validation split.
        teacher_flops, pruned_flops: multiplications and additions for one image.
        latency_ratio: of medians, at `pruning.latency_batch_size`.
        latencies: of teacher and pruned network, for each batch size, in seconds.
        images_added: number of images made against the pruned network.
        pruning_steps: number of removals.
    """

    seed: int
    criterion: str
    data: str
    teacher_accuracy: float | None = None
    pruned_accuracy: float | None = None
    pruned_accuracy_validation: float | None = None
    test_images: int | None = None
    filters_ratio: float
    parameters_ratio: float
    flops_ratio: float
    latency_ratio: float
    teacher_filters: int
    pruned_filters: int
    teacher_parameters: int
    student_parameters: int
    teacher_flops: int
    pruned_flops: int
    latencies: list[dict[str, dict[str, float]]]
    images: int
    images_of: str
    images_added: int
    pruning_steps: int
    distillation_steps: int
    reused: dict[str, int] = field(default_factory=dict)

    @property
    def main(self) -> Figure | None:
        return self._named("pruned_accuracy", "parameters_ratio")


@dataclass(frozen=True, kw_only=True)
class QuantizeSummary(Summary):
    """Final figures of `quantize`; `student` is the quantized network, run from its ONNX file.

    Attributes:
        method: post_training or distillation.
        ranges: the rule by which they follow from a layer's inputs.
        weight_bits, activation_bits: of all layers but the first, the last, and those that were kept.
        student_accuracy: on the test split; `_validation`: on the validation split.
        agreement: share of test images that the quantized network and the teacher classify alike.
        student_accuracy_by_class, teacher_accuracy_by_class: None for a class without test images.
        student_reliability, teacher_reliability: bins of confidence with answers, confidence and accuracy.
        teacher_bytes, student_bytes: of the ONNX files.
        packed_bytes: of all weights, with no space between numbers of fewer than 8 bits.
        size_ratio, latency_ratio: quantized to teacher; the latter of medians, for batches of 32 images.
        latencies: of teacher and quantized network in ONNX Runtime, for each batch size, in seconds.
        threads: number of threads of ONNX Runtime.
        peak_memory_bytes: of a process that runs the file, by network and batch size.
        layers: how sensitive each is, the most sensitive first; see `quantization/sensitivity.py`.
        sources: results of post-training quantization by source of calibration images.
        images_added: number of images made against the quantized network.
    """

    seed: int
    method: str
    ranges: str
    weight_bits: int
    activation_bits: int
    data: str
    teacher_accuracy: float | None = None
    student_accuracy: float | None = None
    student_accuracy_validation: float | None = None
    test_images: int | None = None
    agreement: float | None = None
    student_calibration_error: float | None = None
    teacher_calibration_error: float | None = None
    student_accuracy_by_class: list[float | None] | None = None
    teacher_accuracy_by_class: list[float | None] | None = None
    student_reliability: list[dict[str, float]] | None = None
    teacher_reliability: list[dict[str, float]] | None = None
    teacher_bytes: int
    student_bytes: int
    packed_bytes: int
    size_ratio: float
    latency_ratio: float
    latencies: list[dict[str, dict[str, float]]]
    threads: int
    peak_memory_bytes: dict[str, dict[str, int]]
    layers: list[dict[str, Any]]
    sources: list[dict[str, Any]] = field(default_factory=list)
    images: int
    images_of: str
    images_added: int
    distillation_steps: int
    reused: dict[str, int] = field(default_factory=dict)

    @property
    def main(self) -> Figure | None:
        return self._named("student_accuracy", "size_ratio")


@dataclass(frozen=True, kw_only=True)
class ExtendSummary(Summary):
    """Final figures of `extend`.

    Attributes:
        methods: figures of each, means over seeds with `_spread`, their standard deviation; see
            `applications/continual/results.py`. `seconds`: of a course.
        data: names of the teacher's data, and of each step's.
        classes_by_group: of the teacher, and of each step.
        teacher_accuracy: on its own classes, before it learned anything new.
        new_images: number of real images of new classes, by step.
        images_per_class: number made of each old class before each step.
        student: method and seed of student.safetensors; None if it cannot be built from a description.
    """

    methods: dict[str, dict[str, Any]]
    seed: int
    seeds: int
    data: list[str]
    classes_by_group: list[int]
    teacher_accuracy: float
    test_images: int
    new_images: list[int]
    images_per_class: int
    student: str | None = None

    @property
    def main(self) -> Figure | None:
        reached = {name: float(values["accuracy_all"]) for name, values in self.methods.items()}
        best = max(reached, key=lambda name: reached[name], default=None)
        return None if best is None else Figure(f"accuracy of all classes, {best}", reached[best])


@dataclass(frozen=True, kw_only=True)
class SynthesizeSummary(Summary):
    """Final figures of `synthesize`.

    Attributes:
        updates: number of pixel updates of each batch.
        target_share: share of the stored images that the teacher classifies as their target.
        losses: means over batches at the last update, before coefficients, by term.
        restarts: number of inversions that diverged and were started again.
        reused: number of batches made by earlier runs, by the id of the run.
    """

    method: str
    seed: int
    images: int
    batches: int
    updates: int
    images_per_class: list[int]
    target_share: float
    losses: dict[str, float]
    restarts: int
    reused: dict[str, int] = field(default_factory=dict)

    @property
    def main(self) -> Figure | None:
        return self._named("target_share")


@dataclass(frozen=True, kw_only=True)
class TrialsSummary(Summary):
    """Final figures that a search and an ablation have in common.

    Attributes:
        metric: the objective metric; `metric_is` describes it.
        split: split of the real data that it was measured on; None if it needs none.
        updates: number of pixel updates of batches, over all trials.
        trial_seconds: of all trials together.
    """

    metric: str
    metric_is: str
    split: str | None = None
    seed: int
    trials: int
    trials_done: int
    trials_stopped: int
    trials_failed: int
    updates: int
    trial_seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchSummary(TrialsSummary):
    """Final figures of `search`.

    Attributes:
        best_settings: of the best trial, by dotted name.
    """

    searcher: str
    scheduler: str
    best_trial: int
    best_value: float
    best_settings: dict[str, Any]

    @property
    def main(self) -> Figure | None:
        return Figure(f"best {self.metric}", self.best_value)


@dataclass(frozen=True, kw_only=True)
class AblateSummary(TrialsSummary):
    """Final figures of `ablate`.

    Attributes:
        rows: of each combination of terms, the best first: which are on, and `_mean` and `_spread` (standard
            deviation) of each metric.
    """

    seeds: int
    rows: list[dict[str, Any]]

    @property
    def main(self) -> Figure | None:
        return Figure(f"best {self.metric}", float(self.rows[0][f"{self.metric}_mean"])) if self.rows else None


@dataclass(frozen=True, kw_only=True)
class ReproduceSummary(Summary):
    """Final figures of `reproduce`.

    Attributes:
        headline: the table's main figure.
        figures: mean, spread (half of the 95 % interval over seeds) and seeds, by figure and row.
        paper: the paper's own figures, by row.
        teacher: its network.
        measured_on: the real images.
        cell_seconds: of all cells together.
        date: of the day, as YYYY-MM-DD.
    """

    table: int
    scale: str
    seeds: int
    headline: str
    figures: dict[str, dict[str, dict[str, Any]]]
    paper: dict[str, dict[str, Any]]
    data: str
    teacher: str
    measured_on: str
    date: str
    cell_seconds: float

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert the values of version 0.1, which had each figure beside the rest."""
        if "figures" in values:
            return values
        own = {each.name for each in fields(cls)}
        return {**values, "figures": {name: value for name, value in values.items() if name not in own}}

    @property
    def main(self) -> Figure | None:
        rows = {row: float(values["mean"]) for row, values in self.figures[self.headline].items() if row != "teacher"}
        best = max(rows, key=lambda row: rows[row])
        return Figure(f"table {self.table}, {self.headline}, {best}", rows[best])


@dataclass(frozen=True, kw_only=True)
class EvaluateSummary(Summary):
    """Final figures of `evaluate`.

    Attributes:
        images: number of classified images.
        images_of: the run that made them.
        target_share: share of images that each network classifies as their target.
        target_share_by_class: likewise; None for a class without images.
    """

    images: int
    images_of: str
    target_share: dict[str, float]
    target_share_by_class: dict[str, list[float | None]]

    @property
    def main(self) -> Figure | None:
        return Figure("least target_share", min(self.target_share.values())) if self.target_share else None


@dataclass(frozen=True, kw_only=True)
class DoctorSummary(Summary):
    """Final figures of `doctor`; see `diagnosis/diagnose.py: Diagnosis`, whose parts these are.

    Attributes:
        faults, suspicions: number of findings of each kind.
        findings: about, severity, text and remedy of each, the worst first.
        input: shape, mean, std and classes as configured.
        statistics: of each BN layer.
        layers: what can be done with each layer.
        pruned, exported, quantized: whether the whole network can be: yes, or why not.
        estimate: of the training input, from the first layer.
        fits: of real images under each normalization.
        probe: probes, gradients and cost.
        target_share: of the configured probe's images.
        suggested: settings, by section.
    """

    faults: int
    suspicions: int
    findings: list[dict[str, str]]
    input: dict[str, Any]
    statistics: list[dict[str, Any]]
    layers: list[dict[str, str]]
    pruned: str
    exported: str
    quantized: str
    estimate: dict[str, Any] | None = None
    fits: list[dict[str, Any]] = field(default_factory=list)
    probe: dict[str, Any] | None = None
    target_share: float | None = None
    suggested: dict[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Figure | None:
        return self._named("faults")


@dataclass(frozen=True, kw_only=True)
class TrainSummary(Summary):
    """Final figures of `train`.

    Attributes:
        teacher_accuracy: on the test split; `_validation`: on the validation split.
        workers: number of processes that trained it.
    """

    teacher_accuracy: float
    teacher_accuracy_validation: float
    data: str
    train_images: int
    test_images: int
    epochs: int | None = None
    workers: int | None = None
    teacher_parameters: int | None = None

    @property
    def main(self) -> Figure | None:
        return self._named("teacher_accuracy")


SUMMARIES: Mapping[str, type[Summary]] = {
    "synthesize": SynthesizeSummary,
    "distill": DistillSummary,
    "transfer": TransferSummary,
    "prune": PruneSummary,
    "quantize": QuantizeSummary,
    "extend": ExtendSummary,
    "evaluate": EvaluateSummary,
    "doctor": DoctorSummary,
    "train": TrainSummary,
    "search": SearchSummary,
    "ablate": AblateSummary,
    "reproduce": ReproduceSummary,
}
"""schema of each job's summary, by the job's name in run.json"""
