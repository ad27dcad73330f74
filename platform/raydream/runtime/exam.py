"""The exam: images that no trial's student learns from, the same for all trials of a search.

They are made before the first trial, with settings drawn from the space itself: images of one setting would favor
students of that setting.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import ray

from raydream.compute import use_device
from raydream.config import DistillConfig, SearchConfig
from raydream.errors import RaydreamError, SynthesisError
from raydream.runtime.failures import own_error
from raydream.runtime.logs import name_logs
from raydream.schedule import Schedule
from raydream.search.candidates import random_points
from raydream.search.space import Space, config_at
from raydream.seeds import derive_seed
from raydream.store.folders import Folder
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from raydream.synthesis.batch import BatchMaker
from raydream.teachers.teacher import Teacher, teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

BATCHES = 8
"""batches of the exam, each with its own settings"""


def make_exam(config: SearchConfig, space: Space, teacher: Teacher, place: Folder) -> np.ndarray:
    """Make the exam's images, uint8 [N,C,H,W]; committed batches are not made again.

    Args:
        place: of the committed shards.

    Raises:
        RaydreamError: no drawn setting could make images.
    """
    store = ShardStore(place)
    for damage in store.quarantine_damaged():
        log.warning("%s; it is quarantined, and its batch is made again", damage)
    points = random_points(space, BATCHES, config.seed, "exam").points
    configs = [replace(config_at(config, space, point), seed=derive_seed(config.seed, "exam")) for point in points]
    missing = [(index, each) for index, each in enumerate(configs) if not store.has(BatchId(0, index))]
    if missing:
        weights = ray.put(to_arrays(teacher.network))
        made = ray.remote(_make).options(max_retries=3, num_cpus=config.trial.cpus, num_gpus=config.trial.gpus)
        tasks = [
            made.remote(each, config.trial.cpus, config.trial.gpus, weights, place, index) for index, each in missing
        ]
        try:
            ray.get(tasks)
        except ray.exceptions.RayError as error:
            raise own_error(error, "making the exam's images failed") from error
    batches = store.committed()
    if not batches:
        raise RaydreamError("no setting drawn from the space makes images: lower its learning rates or coefficients")
    return np.concatenate([store.read(batch).images for batch in batches])


def _make(
    config: DistillConfig, cpus: float, gpus: float, weights: Mapping[str, np.ndarray], place: Folder, index: int
) -> None:
    name_logs("exam", index)
    device = use_device(config.device, cpus, gpus)
    teacher = teacher_from_arrays(config.teacher, weights).to(device)
    first = Schedule.of(config).order(BatchId(0, 0), config)
    order = replace(first, batch=BatchId(0, index), seed=derive_seed(config.seed, "synthesis", index, 0))
    try:
        ShardStore(place).write(BatchMaker("exam", teacher, config.synthesis).make(order, None, None).batch)
    except SynthesisError:
        return  # settings that diverge have no part in the exam
