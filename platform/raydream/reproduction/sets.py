"""Sets of images, made once per recipe and shared by all cells that learn from them."""

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
"""version of content-addressed sets; those of other versions are not found"""
REAL = "real"
"""names the training images of the data, without their labels"""


def making(
    teacher: TeacherConfig, synthesis: SynthesisConfig, student: StudentConfig, buffer: BufferConfig, count: int,
    seed: int,
) -> DistillConfig:  # fmt: skip
    """Describe how a set is made, in rounds: batches without competition are all in the first round.

    Of competing ones, a third are made before there is a student, the rest in pairs against it.

    Args:
        student: the network to compete with; `teacher` means a network like the teacher's.
        buffer: number of draws per image meanwhile.
        count: number of images, a multiple of the batch.
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
    """Return a set's key: a fingerprint of all that determines its images."""
    described = as_dict(replace(config.teacher, checkpoint=None))  # the fingerprint knows of the weights alone
    decides: list[Any] = [FORMAT_VERSION, ENGINE_VERSION, torch.__version__, teacher.fingerprint, described]
    decides += [config.seed, as_dict(config.synthesis)]
    decides += [config.rounds.initial_batches, config.rounds.count, config.rounds.batches]
    if config.synthesis.competes:
        decides += [as_dict(config.student), as_dict(config.rounds), as_dict(config.buffer)]
    return fingerprint_of([json.dumps(decides).encode()])


def open_set(config: DistillConfig, teacher: Teacher, folder: Folder) -> ShardStore:
    """Open the store of a set's batches; damaged ones are quarantined; raises OSError.

    Args:
        folder: the folder of all sets; each has a folder in it, with a description beside that.
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
    """Return the batches of a set: stored ones are read; missing and damaged ones are made.

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
    """Return the images that a cell learns from: uint8 [N,C,H,W].

    Args:
        source: how they are made; `REAL`; or a path of a user's images.
        folder: the folder of all made sets.
        count: largest number of images drawn, by the seed, of those that are not made.

    Raises:
        SynthesisError, InputError: images cannot be made, or read.
    """
    if isinstance(source, DistillConfig):
        return np.concatenate([batch.images for batch in make_set(source, teacher, folder)])
    if source == REAL:
        return some_of(real.train.images, count, seed)
    whole = open_files(source, "sources", teacher.config.input_shape)
    chosen = Images.of(whole, min(1.0, count / sum(whole.parts)), seed)
    return np.concatenate([whole.read(rows) for rows in chosen.pieces()])


def some_of(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw at most a number of the images by a seed, in their order."""
    order = np.random.default_rng(derive_seed(seed, "share of images")).permutation(len(images))
    return images[np.sort(order[:count])]


def content_of(path: str, field: str, shape: tuple[int, int, int]) -> str:
    """Return a fingerprint of a user's images, all of which are read; raises InputError where one cannot be."""
    whole = open_files(path, field, shape)
    return fingerprint_of(whole.read(rows).tobytes() for rows in Images.of(whole).pieces())
