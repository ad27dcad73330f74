"""The common part of pruning and quantization: one process changes the teacher in stages, which the driver follows."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import ray
from torch import nn

from raydream.applications.recovery import StageReport
from raydream.config import PruneConfig, QuantizeConfig
from raydream.data.sources import Images
from raydream.jobs.checks.images import CheckedInputs
from raydream.jobs.followed import FollowedTask, ended, record_network
from raydream.jobs.images import images_made
from raydream.jobs.job import JobRun
from raydream.runtime.evaluator import start_evaluator
from raydream.runtime.messages import NetworkReport, ReportQueue, StoredSnapshot
from raydream.runtime.placement import check_workers
from raydream.runtime.repair import with_whole_shards
from raydream.runtime.session import actor_options, ray_session, share_of_gpu_left
from raydream.store.folders import Folder
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import Teacher, to_arrays

Config = TypeVar("Config", PruneConfig, QuantizeConfig)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompressionPlan(Generic[Config]):
    """Settings and data of the process that makes a network smaller.

    Attributes:
        teacher: a list with the reference to the teacher's arrays.
        images: to learn from.
        added: folder of the added shards.
        checkpoints: folder.
        reports: a queue of `NetworkReport`, to the driver.
    """

    config: Config
    teacher: list[ray.ObjectRef]
    images: Images
    added: Folder
    checkpoints: Folder
    reports: ReportQueue


@dataclass(frozen=True)
class Compression(Generic[Config]):
    """The parts of a compression that differ between jobs.

    Attributes:
        config: of the process.
        work: the Ray task; it takes a `CompressionPlan`.
        stage: of the run.
        name: of the work, in an error.
        build: a network from its shape, as text, to measure its weights.
        steps: number of distillation steps, from the number of images.
        shown: what a report says of its network, for the display.
    """

    config: Config
    work: Any
    stage: str
    name: str
    build: Callable[[str], nn.Module]
    steps: Callable[[int], int]
    shown: Callable[[NetworkReport[StoredSnapshot]], str]


def compress(
    run: JobRun[Config], checked: CheckedInputs, teacher: Teacher, compression: Compression[Config]
) -> tuple[Images, Any]:
    """Make the images if none are named, and carry out the work on them in Ray; damaged shards are made again.

    Returns:
        the images, and what the work returned.

    Raises:
        RaydreamError: it failed for good.
    """
    session = partial(_session, run, checked, teacher, compression)
    return with_whole_shards(ShardStore(run.folder.images), session, run.journal.note)


def report_stage(plan: CompressionPlan[Any], report: StageReport, shape: str, figures: Mapping[str, float]) -> None:
    """Report a stage, or an epoch, from the process that does the work.

    Args:
        shape, figures: see `NetworkReport`.
    """
    stage, snapshot = report.stage, Snapshot(report.step, to_arrays(report.network))
    log.info("%s %d, %d steps", stage.kind, stage.index, report.step)
    learned = (report.losses, report.agreements)
    plan.reports.put(NetworkReport(stage.kind, stage.index, snapshot, shape, figures, *learned, report.note))


def _session(
    run: JobRun[Config], checked: CheckedInputs, teacher: Teacher, compression: Compression[Config]
) -> tuple[Images, Any]:
    config = run.config
    images = checked.images or images_made(run, config.making, teacher)
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            session.enter_context(ray_session(partial(check_workers, config, 0.0), [config.student], run.folder.run))
        with run.stage(compression.stage):
            return images, _followed(run, teacher, images, compression)


def _followed(run: JobRun[Config], teacher: Teacher, images: Images, compression: Compression[Config]) -> Any:
    """Start the work, follow it to its end, and return its result."""
    config, folder = run.config, run.folder
    gpus = share_of_gpu_left(config.device, [config.student.gpus])
    evaluator = start_evaluator(config, compression.build, gpus)
    followed: FollowedTask[NetworkReport[StoredSnapshot]] = FollowedTask(
        run,
        0,
        compression.steps(len(images)),
        partial(record_network, run),
        lambda report: evaluator.measure.remote(report.snapshot.ref, report.shape),
        lambda report: f"{report.stage} {report.index + 1}: {compression.shown(report)}".rstrip(),
        gpus=config.student.gpus,
    )
    arrays = [ray.put(to_arrays(teacher.network))]
    plan = CompressionPlan(compression.config, arrays, images, folder.images, folder.checkpoints, followed.reports)
    task = compression.work.options(**actor_options(config.student.resources)).remote(plan)
    followed.until_end(ended(task), compression.name)
    return ray.get(task)
