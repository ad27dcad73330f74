"""The checks of a student's images: those that exist, or the number to make."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from raydream.config import FromImages, PruneConfig, QuantizeConfig, TeacherConfig
from raydream.data import Dataset, check_data
from raydream.data.files import open_files
from raydream.data.image_set import open_shards
from raydream.data.sources import Images, Shards, evenly_spread
from raydream.errors import InputError, ShardError, first_line
from raydream.jobs.checks.networks import check_teacher
from raydream.networks import build_teacher
from raydream.runs import run_folder
from raydream.store.folders import Folder, folder_at
from raydream.store.shards import ShardStore
from raydream.synthesis.checks import check_network
from raydream.targets import check_targets
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher

PIECES_LOOKED_AT, ROWS_LOOKED_AT = 10, 256
"""of other people's images, before a run begins: parts of a set at most, and images of each"""


@dataclass(frozen=True)
class CheckedInputs:
    """The inputs of a job that changes a teacher by images alone.

    Attributes:
        teacher: None if it must be trained.
        network: the teacher's, to be probed; with any weights if it must be trained.
        images: None if they are made first.
        count: number of images.
        real: the real data to measure on; None if there are none.
    """

    teacher: Teacher | None
    network: nn.Module
    images: Images | None
    count: int
    real: Dataset | None


def check_inputs(config: FromImages) -> CheckedInputs:
    """Load and probe the teacher, and check that the images and the real data fit it.

    Raises:
        InputError: a checkpoint, a set of images or real data that do not fit.
    """
    images, count = find_images(config)
    teacher = find_teacher(config, images)
    network = build_teacher(config.teacher) if teacher is None else teacher.network
    check_images_fit(images, config.teacher)
    return CheckedInputs(teacher, network, images, count, check_data(config.data, config.teacher))


def check_additions(config: PruneConfig | QuantizeConfig, inputs: CheckedInputs) -> None:
    """Check that images can be made that compete with a changed network, if there are rounds of them.

    Raises:
        InputError: the teacher cannot be inverted as configured, or lacks a class among the targets.
    """
    if config.additions.rounds:
        check_network(inputs.network, config.teacher, config.synthesis, trained=inputs.teacher is not None)
        check_targets(config.synthesis.targets, config.teacher.classes)


def find_images(config: FromImages) -> tuple[Images | None, int]:
    """Return the images that a student learns from, None if they are made first; and their number.

    Raises:
        InputError: see `open_images`; or there are fewer than a step takes.
    """
    images = open_images(config) if config.images else None
    count = config.new_images if images is None else len(images)
    check_batch(config, count)
    return images, count


def check_batch(config: FromImages, count: int) -> None:
    """Check that there are images for a step; raises InputError."""
    if config.student.batch_size > count:
        allowed = f"at most {count}, the images" + (f" in {config.images}" if config.images else " to be made")
        raise InputError("student.batch_size", config.student.batch_size, allowed, "lower it, or take more images")


def find_teacher(config: FromImages, images: Images | None) -> Teacher | None:
    """Return the teacher of a run that is given its images or makes them; None if it must be trained.

    Raises:
        InputError: a checkpoint, a network or data to train it on that do not fit.
    """
    teacher = None
    if images is None:
        teacher = check_teacher(config.making)
    elif config.teacher.checkpoint is None:
        check_data(config.data, config.teacher, train=True)
    else:
        teacher = load_teacher(config.teacher)
    check_shapes(build_teacher(config.teacher) if teacher is None else teacher.network, config.teacher)
    return teacher


def check_images_fit(images: Images | None, teacher: TeacherConfig) -> None:
    """Check that images of a run are of a teacher with the same number of classes; raises InputError."""
    if images is None or not isinstance(images.source, Shards):
        return
    classes = int(images.source.store.read(images.source.batches[0]).teacher_logits.shape[1])
    if classes != teacher.classes:
        allowed = f"{classes}, as the images are of"
        raise InputError("teacher.classes", teacher.classes, allowed, "name the teacher of these images")


def open_images(config: FromImages) -> Images:
    """Return the share of the named images that a student learns from, after reading some of them.

    Raises:
        InputError: there are none, of another shape, they cannot be read, or their run is not done.
    """
    place, shape = folder_at(config.images, "images"), config.teacher.input_shape
    if _holds_shards(place, config.images):
        return Images.of(_images_of_run(config, open_shards(config.images)), config.share, config.seed)
    chosen = Images.of(open_files(config.images, "images", shape), config.share, config.seed)
    for rows in evenly_spread(chosen.pieces(), PIECES_LOOKED_AT):
        chosen.source.read(np.array(evenly_spread(rows.tolist(), ROWS_LOOKED_AT)))
    return chosen


def _holds_shards(place: Folder, where: str) -> bool:
    """Return whether a folder is a run's, or one of a run's shards."""
    try:
        store = ShardStore(place / "images" if "images" in place.folders() else place)
        return place.has(run_folder.MARKER) or bool(store.committed())
    except OSError as error:
        raise InputError("images", where, "files that can be read", f"reading failed: {first_line(error)}") from error


def _images_of_run(config: FromImages, store: ShardStore) -> Shards:
    whole, place, shape = "a run that is done", folder_at(config.images), config.teacher.input_shape
    if place.has(run_folder.MARKER) and not place.has(run_folder.SUMMARY):
        raise InputError("images", config.images, whole, "resume it, so that all of its images are there")
    try:
        extents = [store.extent(batch) for batch in store.committed()]
        looked_at = [store.read(batch) for batch in evenly_spread(store.committed(), PIECES_LOOKED_AT)]
    except ShardError as error:
        raise InputError("images", config.images, whole, f"{error}: resume it") from error
    if other := {extent[1:] for extent in extents} - {shape}:
        allowed = f"a run with images {shape}, as teacher.input_shape says"
        raise InputError("images", config.images, allowed, f"there are images {other.pop()}")
    if len(logits := {batch.teacher_logits.shape[1] for batch in looked_at}) > 1:
        remedy = f"there are {min(logits)} and {max(logits)} logits an image: name the images of one run"
        raise InputError("images", config.images, "images of one teacher", remedy)
    return Shards(store, store.committed(), [extent[0] for extent in extents])
