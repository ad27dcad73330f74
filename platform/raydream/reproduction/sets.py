"""Sets of images that are made once, by all that decides what they are, and shared by all who learn from them."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from raydream.applications.rounds import run_rounds
from raydream.config import (
    BufferConfig,
    DistillConfig,
    RoundsConfig,
    StudentConfig,
    SynthesisConfig,
    TeacherConfig,
)
from raydream.config.conversion import as_dict
from raydream.data import Dataset
from raydream.data.files import open_files
from raydream.data.sources import Images
from raydream.engine_version import ENGINE_VERSION
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.store.folders import Folder
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import Teacher, fingerprint_of

FORMAT_VERSION = 3
"""of what is kept by content; another version's is not found"""
REAL = "real"
"""names the training images of the data, without their labels"""


def making(
    teacher: TeacherConfig, synthesis: SynthesisConfig, student: StudentConfig, buffer: BufferConfig, count: int,
    seed: int,
) -> DistillConfig:  # fmt: skip
    """How a set is made, as rounds: those that do not compete all in the first one.

    Of those that do, a third are made before there is a student, the rest two by two against it.

    Args:
        student: to compete with; `teacher` stands for a network like the teacher's.
        buffer: how often each image is drawn meanwhile.
        count: images, a multiple of the batch.
    """
    batches = count // synthesis.batch_size
    rounds = (batches - max(1, batches // 3)) // 2 if synthesis.competes else 0
    if student.network == "teacher":
        student = replace(student, network=teacher.network, arguments=teacher.arguments)
    return DistillConfig(
        seed=seed,
        teacher=teacher,
        synthesis=synthesis,
        student=student,
        buffer=buffer,
        rounds=RoundsConfig(batches - 2 * rounds, rounds, 2, final_steps=1, lockstep=True),
    )


def key_of(config: DistillConfig, teacher: Teacher) -> str:
    """What a set is found by: a fingerprint of all that decides what its images are."""
    described = as_dict(replace(config.teacher, checkpoint=None))  # the fingerprint knows of the weights alone
    decides: list[Any] = [FORMAT_VERSION, ENGINE_VERSION, torch.__version__, teacher.fingerprint, described]
    decides += [config.seed, as_dict(config.synthesis)]
    decides += [config.rounds.initial_batches, config.rounds.count, config.rounds.batches]
    if config.synthesis.competes:
        decides += [as_dict(config.student), as_dict(config.rounds), as_dict(config.buffer)]
    return fingerprint_of([json.dumps(decides).encode()])


def open_set(config: DistillConfig, teacher: Teacher, folder: Folder) -> ShardStore:
    """Where the batches of a set are kept, those that are damaged quarantined; raises OSError.

    Args:
        folder: of all sets; this one has a folder of its own in it, and a description beside that.
    """
    key = key_of(config, teacher)
    # First, as a folder that is made by writing to it needs the one that it lies in.
    folder.write(f"{key}.json", json.dumps({"teacher": teacher.fingerprint, **as_dict(config)}).encode())
    store = ShardStore(folder / key)
    store.quarantine_damaged()
    return store


def make_set(
    config: DistillConfig, teacher: Teacher, folder: Folder, on_work: Callable[[], None] = lambda: None
) -> list[ImageBatch]:
    """The batches of a set: read where they are there, made where they are not, and again where they are damaged.

    Args:
        folder: as in `open_set`.
        on_work: called after each update.

    Raises:
        SynthesisError: see `Synthesizer.synthesize`.
    """
    store, batches = open_set(config, teacher, folder), Schedule.of(config).batch_ids()
    if all(store.has(batch) for batch in batches):
        return [store.read(batch) for batch in batches]
    return run_rounds(config, teacher, store, on_work).batches


def pixels_of(
    source: DistillConfig | str, teacher: Teacher, real: Dataset, folder: Folder, count: int, seed: int
) -> np.ndarray:
    """The images that somebody learns from: uint8 [N,C,H,W].

    Args:
        source: how they are made; `REAL`; or a path of other people's images.
        folder: of all sets that are made.
        count: how many are wanted, of those that are not made: at most so many are drawn, by the seed.

    Raises:
        SynthesisError, InputError: they cannot be made, or read.
    """
    if isinstance(source, DistillConfig):
        return np.concatenate([batch.images for batch in make_set(source, teacher, folder)])
    if source == REAL:
        return some_of(real.train.images, count, seed)
    whole = open_files(source, "sources", teacher.config.input_shape)
    chosen = Images.of(whole, min(1.0, count / sum(whole.parts)), seed)
    return np.concatenate([whole.read(rows) for rows in chosen.pieces()])


def some_of(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most so many of the images, drawn by a seed and in their order."""
    order = np.random.default_rng(derive_seed(seed, "share of images")).permutation(len(images))
    return images[np.sort(order[:count])]


def content_of(path: str, field: str, shape: tuple[int, int, int]) -> str:
    """Fingerprint of other people's images, which are all read; raises InputError where one cannot be."""
    whole = open_files(path, field, shape)
    return fingerprint_of(whole.read(rows).tobytes() for rows in Images.of(whole).pieces())
