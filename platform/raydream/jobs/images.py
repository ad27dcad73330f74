"""The common part of jobs that are given images or make them first."""

from functools import partial
from typing import Any, TypeVar

import torch

from raydream.config import FromImages, SynthesizeConfig
from raydream.data.sources import Images, Shards
from raydream.jobs.job import JobRun, Say
from raydream.jobs.synthesize import make_all
from raydream.reporting.picture_grid import save_image_grid
from raydream.runtime.gpus import on_machine
from raydream.runtime.placement import check_device, check_machine, check_workers
from raydream.runtime.repair import with_whole_shards
from raydream.runtime.session import device_of_driver, is_local, machine_nodes
from raydream.store.shards import ShardStore
from raydream.synthesis.tasks import tasks_of
from raydream.teachers.teacher import Teacher

Config = TypeVar("Config", bound=FromImages)


def with_room(config: Config, read_cpus: float, say: Say) -> Config:
    """Check that this machine has room for all processes, unless a cluster is joined.

    Args:
        read_cpus: CPUs that reading images needs beside the student.
        say: prints a notice of idle GPUs.

    Returns:
        the settings, with the number of generators that there is room for.

    Raises:
        InputError: there is no room, or the device is missing.
    """
    making = None if config.images else config.making
    if making is not None:
        check_device(making)
    if not is_local():
        return config
    check_workers(config, read_cpus, machine_nodes([config.student]))
    if making is not None:
        check_machine(making, machine_nodes([config.generators]))
    return on_machine(config, making, machine_nodes([config.student, config.generators]), say)


def device_to_learn_on(config: FromImages) -> torch.device:
    """Return the device that the driver computes on."""
    return device_of_driver(config.device, [config.student.gpus, 0.0 if config.images else config.generators.gpus])


def images_made(run: JobRun[Any], making: SynthesizeConfig, teacher: Teacher) -> Images:
    """Return a run's own images after making the missing ones, as a stage of the run.

    Args:
        making: how they are made.

    Raises:
        RaydreamError: see `make_all`.
    """
    tasks, store = tasks_of(making), ShardStore(run.folder.images)
    with run.stage("images"):
        with_whole_shards(store, partial(make_all, run, making, tasks, teacher), run.journal.note)
        save_image_grid(run.folder)
    run.recorder.flush()
    return Images.of(Shards.of(store, sorted(tasks)))
