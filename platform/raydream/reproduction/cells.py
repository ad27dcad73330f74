"""Fills cells of tables by runs in this process, from settings to figures. Shares are in [0, 1]."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raydream.applications.continual.course import Course, Group
from raydream.applications.continual.measures import accuracies, confusion_matrix, forgetting
from raydream.applications.continual.methods import METHODS
from raydream.applications.continual.widening import output_layer
from raydream.applications.pruning import Pruning, StageReport, stages_of, total_steps
from raydream.applications.rounds import rounds_of
from raydream.applications.transfer import run_epochs
from raydream.config import ContinualConfig, DistillConfig, PruneConfig, TransferConfig
from raydream.data import Dataset, Split
from raydream.evaluation.accuracy import accuracy, best_step, logits_of
from raydream.evaluation.comparison import agreement
from raydream.evaluation.cross_model import sized
from raydream.evaluation.latency import filters_of, flops_of, measure_latencies
from raydream.evaluation.quality import (
    NetworkOutputs,
    frechet_distance,
    inception_score,
    pairwise_distance,
    precision_recall,
)
from raydream.networks.observed import WithFeatures
from raydream.reproduction.sets import make_set, open_set, pixels_of, some_of
from raydream.reproduction.tables import Cell
from raydream.schedule import Epochs, Schedule
from raydream.store.folders import Folder
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore
from raydream.students.distillation import check_finite
from raydream.synthesis.stages import stages_of as synthesis_stages
from raydream.teachers.teacher import Teacher

POINTS = 20
"""of a curve, about"""
EXAMPLES = 10
"""number of images that a cell keeps to show"""
CHUNK = 250
"""number of images per pass through a network"""
PROJECTED = 200
"""largest number of images of a set that are projected to two dimensions"""


@dataclass(frozen=True)
class Given:
    """The inputs that cells share.

    Attributes:
        teacher: on the device to compute on.
        verifiers: independent networks, on that device.
        real: data to measure on; only rows of real images use its training split.
        groups: groups of classes of table 7.
        basis: see `Cell.key`.
        images: folder of the made sets.
        report: called with the share of the cell that is done, in [0, 1].
    """

    teacher: Teacher
    verifiers: list[Teacher]
    real: Dataset
    groups: list[Group]
    basis: str
    images: Folder
    report: Callable[[float], None] = lambda share: None


@dataclass
class Filled:
    """A cell's results, in plain types.

    Attributes:
        figures: figures by name.
        facts: cost and conditions: `images`, `updates` of a batch of them, `steps` of distillation, `measured_on`.
        curve: points of a learning student, each with its `step`.
        examples: uint8 [N,C,H,W] as lists, one image of each of the first classes.
        projected: for table 3: [N,2], principal components of real features.
        seconds: the duration.
    """

    figures: dict[str, float]
    facts: dict[str, Any]
    curve: list[dict[str, float]] = field(default_factory=list)
    examples: list[Any] = field(default_factory=list)
    projected: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0


def run_cell(cell: Cell, given: Given) -> Filled:
    """Run a cell, in this process.

    Raises:
        DivergenceError, SynthesisError: images or learning diverged.
        InputError: a user's images cannot be read.
    """
    began = time.perf_counter()
    filled = _RUNS[cell.table](cell, given)
    filled.seconds = time.perf_counter() - began
    return filled


def _students(cell: Cell, given: Given) -> Filled:
    """Table 1: a student learns while images are made; also the data of Figure 4."""
    config, teacher, test = cell.run, given.teacher, given.real.test
    assert isinstance(config, DistillConfig)
    schedule, curve, done = Schedule.of(config), [], 0
    work = schedule.total_batches * updates_of(config) + schedule.total_steps

    def on_work() -> None:
        nonlocal done
        done += 1
        given.report(min(1.0, done / work))

    for made in rounds_of(config, teacher, open_set(config, teacher, given.images), on_work=on_work):
        point = {name: _accuracy(made.student, teacher, split) for name, split in _splits(given.real).items()}
        curve.append({"step": made.step, **point, "generated": _accuracy(made.student, teacher, _all(made.batches))})
    check_finite(made.student)
    best, last = _best(curve), curve[-1]
    share = float(np.mean([batch.provenance.target_share for batch in made.batches]))
    figures = {
        "student_accuracy": last["test"],
        "student_accuracy_best": best["test"],
        "teacher_accuracy": _accuracy(teacher.network, teacher, test),
        "target_share": share,
    }
    facts = _facts(given, sum(map(len, made.batches)), updates_of(config), schedule.total_steps)
    return Filled(figures, facts, curve, _examples(made.batches))


def _verified(cell: Cell, given: Given) -> Filled:
    """Table 2: the teacher's images as classified by independent networks."""
    if isinstance(cell.images, DistillConfig):
        batches, updates = make_set(cell.images, given.teacher, given.images), updates_of(cell.images)
        split, shown = _all(batches), _examples(batches)
    else:
        split, updates, shown = given.real.test, 0, []
    networks = {"teacher": given.teacher} | dict(zip(names_of(given.verifiers), given.verifiers, strict=True))
    figures = {}
    for index, (name, network) in enumerate(networks.items()):
        named = np.concatenate([network.logits(each).argmax(1).cpu().numpy() for each in _views(network, split.images)])
        figures[name] = float((named == split.labels).mean())
        given.report((index + 1) / len(networks))
    facts = {"images": len(split.labels), "updates": updates, "steps": 0, "measured_on": "the images themselves"}
    return Filled(figures, facts, examples=shown)


def _scored(cell: Cell, given: Given) -> Filled:
    """Table 3: quality and diversity in the first verifier's features, beside real test images.

    All rows have the same number of images, as scores depend on it.
    """
    extractor, test = given.verifiers[0], given.real.test
    made = isinstance(cell.images, DistillConfig)
    batches = make_set(cell.images, given.teacher, given.images) if isinstance(cell.images, DistillConfig) else []
    held_out = given.real.validation.images
    pixels = some_of(_all(batches).images if made else held_out, min(cell.count, len(held_out)), cell.seed)
    found, real = _seen(extractor, pixels), _seen(extractor, test.images)
    precision, recall = precision_recall(found.features, real.features)
    figures = {
        "inception_score": inception_score(found.logits, cell.seed),
        "frechet_distance": frechet_distance(found.features, real.features),
        "precision": precision,
        "recall": recall,
        "feature_distance": pairwise_distance(found.features),
    }
    facts = {"images": len(pixels), "updates": _updates(cell), "steps": 0, "measured_on": _on(given)}
    projected = _projected(found.features, real.features)
    return Filled(figures, facts, examples=_examples(batches), projected=projected)


def _pruned(cell: Cell, given: Given) -> Filled:
    """Tables 4 and 5: accuracy and speed of the pruned teacher."""
    config, teacher, shape = cell.run, given.teacher, given.teacher.config.input_shape
    assert isinstance(config, PruneConfig)
    if cell.images is None:
        return Filled(_costs(teacher, teacher.network, given), _facts(given, 0, 0, 0))
    images = pixels_of(cell.images, teacher, given.real, given.images, config.new_images, cell.seed)
    steps, last, curve = max(1, total_steps(config, len(images))), stages_of(config)[-1], []

    def on_stage(ended: StageReport) -> None:
        if ended.stage == last and ended.stage.kind == "distill":
            epochs.append(ended.step)
            if len(epochs) % max(1, last.epochs // POINTS) == 0 or len(epochs) == last.epochs:
                points = {name: _accuracy(ended.network, teacher, split) for name, split in _splits(given.real).items()}
                curve.append({"step": ended.step, **points})

    epochs: list[int] = []
    added = _added(cell, given)
    run = Pruning(config, teacher, images, None, added, on_stage, lambda step: given.report(min(1.0, step / steps)))
    network = run.run()
    check_finite(network)
    figures = _costs(teacher, network, given)
    figures["accuracy_best"] = _best(curve)["test"] if curve else figures["accuracy"]
    figures["filters_ratio"] = filters_of(network) / filters_of(teacher.network)
    figures["flops_ratio"] = flops_of(network, shape) / flops_of(teacher.network, shape)
    count = len(images) + config.additions.rounds * config.additions.batches * config.synthesis.batch_size
    return Filled(figures, _facts(given, count, _updates(cell), run.step), curve)


def _added(cell: Cell, given: Given) -> ShardStore | None:
    """Open the store of images that compete with the pruned network; damaged ones are quarantined."""
    assert isinstance(cell.run, PruneConfig)
    if not cell.run.additions.rounds:
        return None
    store = ShardStore(given.images / f"added-{cell.key(given.teacher, [], given.basis)}")
    store.quarantine_damaged()
    return store


def _costs(teacher: Teacher, network: nn.Module, given: Given) -> dict[str, float]:
    shape = teacher.config.input_shape
    before, after = measure_latencies([teacher.network, network], shape, batch_size=1)
    return {
        "accuracy": _accuracy(network, teacher, given.real.test),
        "flops": float(flops_of(network, shape)),
        "latency_ms": 1000 * after.median_s,
        "latency_ratio": after.median_s / before.median_s,
    }


def _transferred(cell: Cell, given: Given) -> Filled:
    """Table 6: a student from scratch on finished images."""
    config, teacher, curve = cell.run, given.teacher, []
    assert isinstance(config, TransferConfig) and cell.images is not None
    images = pixels_of(cell.images, teacher, given.real, given.images, config.new_images, cell.seed)
    epochs = Epochs(len(images), config.student.batch_size, config.epochs)

    def on_epoch(epoch: int, student: nn.Module) -> None:
        given.report(epoch / config.epochs)
        if epoch % max(1, config.epochs // POINTS) == 0 or epoch == config.epochs:
            points = {name: _accuracy(student, teacher, split) for name, split in _splits(given.real).items()}
            curve.append({"step": epoch * epochs.steps, **points})

    student = run_epochs(config.student, teacher, images, config.epochs, cell.seed, on_epoch)
    check_finite(student)
    test = given.real.test.images
    both = [logits_of(network, teacher.normalization, test) for network in (student, teacher.network)]
    figures = {
        "student_accuracy": _accuracy(student, teacher, given.real.test),
        "student_accuracy_best": _best(curve)["test"],
        "teacher_accuracy": _accuracy(teacher.network, teacher, given.real.test),
        "agreement": agreement(*both),
    }
    return Filled(figures, _facts(given, len(images), _updates(cell), epochs.total_steps), curve)


def _continual(cell: Cell, given: Given) -> Filled:
    """Table 7: a network learns new classes by one method."""
    config, teacher, groups = cell.run, given.teacher, given.groups
    assert isinstance(config, ContinualConfig)
    sizes = [config.teacher.classes, *(len(step.classes) for step in config.steps)]
    course = Course(config, cell.row, cell.seed, teacher, groups, given.report)
    before = confusion_matrix(teacher.network, teacher.normalization, groups[0].test, sizes[0])
    learned = list(course.steps())
    reached = [
        accuracies(matrix, sizes[: at + 1]) for at, matrix in enumerate([before, *(s.confusion for s in learned)])
    ]
    last = reached[-1]
    figures = {"accuracy_average": last.average, "accuracy_all": last.all, "accuracy_old": float(last.old or 0.0)}
    figures |= {"accuracy_new": last.new, "forgetting": forgetting(reached)}
    known = sum(sum(sizes[:at]) for at in range(1, len(sizes)))  # classes that images are made of, step by step
    images = 0 if METHODS[cell.row].images == "none" else known * config.images_per_class
    updates = config.synthesis.iterations if METHODS[cell.row].images == "made" else 0
    new = sum(len(group.train.labels) for group in groups[1:])
    steps = sum(-(-len(group.train.labels) // config.student.batch_size) for group in groups[1:]) * config.epochs
    on = f"{sum(len(group.test.labels) for group in groups)} test images of all classes"
    facts = {"images": images, "updates": updates, "steps": steps, "measured_on": on}
    shown = [] if learned[0].images is None else learned[0].images[:EXAMPLES].tolist()
    return Filled(figures, facts | {"new_images": new}, examples=shown)


_RUNS: dict[int, Callable[[Cell, Given], Filled]] = {
    1: _students,
    2: _verified,
    3: _scored,
    4: _pruned,
    5: _pruned,
    6: _transferred,
    7: _continual,
}


# --- what they share --------------------------------------------------------------------------------------------


def updates_of(config: DistillConfig) -> int:
    """Return the number of updates of each batch of images."""
    return sum(stage.iterations for stage in synthesis_stages(config.synthesis, (0, 0)))


def _updates(cell: Cell) -> int:
    """Return the number of updates per batch of a cell's images; 0 for images that were not synthesized."""
    return updates_of(cell.images) if isinstance(cell.images, DistillConfig) else 0


def names_of(networks: list[Teacher]) -> list[str]:
    """Return distinct names of networks for a table."""
    names = []
    for network in networks:
        arguments = " ".join(f"{name} {value}" for name, value in network.config.arguments.items())
        name = f"{network.config.network} {arguments}".strip()
        names.append(name if name not in names else f"{name} ({network.fingerprint[:4]})")
    return names


def _splits(real: Dataset) -> dict[str, Split]:
    return {"validation": real.validation, "test": real.test}


def _accuracy(network: nn.Module, teacher: Teacher, split: Split) -> float:
    return accuracy(network, teacher.normalization, split.images, split.labels)


def _best(curve: list[dict[str, float]]) -> dict[str, float]:
    """Return the point of the best validation accuracy, see `best_step`."""
    best = best_step({int(point["step"]): point["validation"] for point in curve})
    return next(point for point in curve if point["step"] == best)


def _all(batches: list[ImageBatch]) -> Split:
    return Split(np.concatenate([each.images for each in batches]), np.concatenate([each.targets for each in batches]))


def _facts(given: Given, images: int, updates: int, steps: int) -> dict[str, Any]:
    return {"images": images, "updates": updates, "steps": steps, "measured_on": _on(given)}


def _on(given: Given) -> str:
    return f"{len(given.real.test.labels)} real test images"


def _examples(batches: list[ImageBatch]) -> list[Any]:
    """Return the first image of each of the first classes, from the last batch."""
    if not batches:
        return []
    last = batches[-1]
    classes = np.unique(last.targets)[:EXAMPLES]
    rows = [int(np.flatnonzero(last.targets == each)[0]) for each in classes]
    shown: list[Any] = last.images[rows].tolist()
    return shown


def _views(network: Teacher, images: np.ndarray) -> Iterator[Tensor]:
    """Yield images [N,C,H,W] in chunks, in the size that a network takes."""
    for first in range(0, len(images), CHUNK):
        yield sized(torch.from_numpy(np.array(images[first : first + CHUNK])), network)


@torch.no_grad()
def _seen(network: Teacher, images: np.ndarray) -> NetworkOutputs:
    both = WithFeatures(network.network, output_layer(network.network, network.config.classes))
    outputs = [both(network.normalization(each)) for each in _views(network, images)]
    logits, features = (torch.cat([part[index].float().cpu() for part in outputs]) for index in (0, 1))
    return NetworkOutputs(logits.numpy(), features.numpy())


def _projected(features: np.ndarray, real: np.ndarray) -> list[list[float]]:
    from sklearn.decomposition import PCA

    plane = PCA(2, svd_solver="full").fit(real)
    found: list[list[float]] = plane.transform(features[:PROJECTED]).tolist()
    return found
