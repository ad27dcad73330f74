"""The Ray Train jobs that train the student, one after another, and the checkpoints that join them."""

import json
import logging
import time
from typing import Protocol

import ray.data
import ray.train
import ray.train.torch
from ray.util.queue import Queue

from raydream.config import DistillConfig, TransferConfig
from raydream.errors import first_line
from raydream.runtime.failures import Attempts
from raydream.runtime.learner import read_checkpoint
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import Notice
from raydream.runtime.placement import Nodes
from raydream.runtime.process_group import StudentGroup, backend_for
from raydream.runtime.session import can_be_placed, cluster_nodes
from raydream.store.atomic import damaged_name
from raydream.store.folders import Folder

log = logging.getLogger(__name__)

LISTED = "checkpoint_manager_snapshot.json"
"""in which Ray Train lists the checkpoints that are whole"""
LOOK_S = 5.0
"""for Ray to find a place for a student, and between two looks where there was none"""


class TrainPlan(Protocol):
    """What has to be known of a student to train it, of whatever job it is."""

    @property
    def config(self) -> DistillConfig | TransferConfig: ...

    @property
    def reports(self) -> Queue:
        """To the driver."""

    @property
    def total_steps(self) -> int:
        """Distillation steps of the whole run."""

    def workers_that_fit(self, nodes: Nodes) -> int:
        """With how many Train workers the student can be scheduled on these nodes; 0: with none."""

    def datasets(self, step: int) -> dict[str, ray.data.Dataset]:
        """What is streamed to a Train job that goes on from a step."""

    def work(self) -> None:
        """What each Train worker does."""


def train(plan: TrainPlan, storage: Folder) -> None:
    """Train the student to its end, from its last checkpoint on if the storage has one.

    That may take several Train jobs, each with as many workers as there is room for when it begins: one ends where
    workers are lost, and where more can join. (Ray Train's own elastic policy would count what generators hold.)
    Workers may be lost as often as it happens, as long as the student gets further between two losses.

    Raises:
        ray.train.TrainingFailedError: its workers failed more than `MAX_FAILURES` times at one checkpoint, or for a
            reason that would not go away.
    """
    name_logs("train")
    attempts, workers = Attempts(steps_saved(storage)), plan.config.student.workers
    while True:
        workers = _wait_for_room(plan, workers)
        log.info("a Train job of %d workers goes on from step %d", workers, steps_saved(storage))
        try:
            _trainer(plan, storage, workers).fit()
            if steps_saved(storage) >= plan.total_steps:
                return
        except ray.train.TrainingFailedError as error:
            if not attempts.again(error, steps_saved(storage)):
                raise


def _wait_for_room(plan: TrainPlan, before: int) -> int:
    """With how many workers the student goes on; tells what it waits for, and where their number changes."""
    config, waits = plan.config, False
    while not (workers := _workers_with_a_place(plan)):
        if not waits:
            count, each = config.student.worker_counts[-1], config.student
            asked = f"{count} workers of {each.cpus:g} CPUs and {each.gpus:g} GPUs"
            plan.reports.put(Notice(f"the student waits for room for {asked}"))
            waits = True
        time.sleep(LOOK_S)
    if waits or workers != before:
        plan.reports.put(Notice(f"the student trains with {workers} of {config.student.workers} workers now"))
    return workers


def _workers_with_a_place(plan: TrainPlan) -> int:
    """The most workers that there is room for, node by node; 0 where not even the fewest have a place.

    Counted alone, a node is there for some seconds after its loss, and what others hold or is scattered counts, too.
    """
    most, student = plan.workers_that_fit(cluster_nodes()), plan.config.student
    counts = [count for count in student.worker_counts if count <= most]
    return next((count for count in counts if can_be_placed(student.resources, count, LOOK_S)), 0)


def _trainer(plan: TrainPlan, storage: Folder, workers: int) -> ray.train.torch.TorchTrainer:
    """A Train job that ends at its first failure."""
    config, (system, path) = plan.config.student, storage.for_arrow()
    parent, _, name = path.rpartition("/")
    return ray.train.torch.TorchTrainer(
        _train_loop,
        train_loop_config={"plan": plan},
        torch_config=StudentGroup(backend_for(config.gpus)),
        datasets=plan.datasets(steps_saved(storage)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=config.gpus > 0, resources_per_worker=config.resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=parent,
            storage_filesystem=system,
            failure_config=ray.train.FailureConfig(0, max_preemption_failures=0, controller_failure_limit=0),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )


def steps_saved(storage: Folder) -> int:
    """Distillation steps behind the last checkpoint of a Train job; 0 where it has none, or is just writing one."""
    try:
        latest = json.loads(storage.read(LISTED))["latest_checkpoint_result"]
    except (FileNotFoundError, ValueError):
        return 0
    return 0 if latest is None else int(latest["metrics"]["step"])


def set_damaged_checkpoints_aside(storage: Folder) -> str | None:
    """Set checkpoints aside that Ray Train cannot go on from; the student then starts anew, on all images.

    Returns:
        what was wrong; None if nothing was.
    """
    try:
        for checkpoint in json.loads(storage.read(LISTED))["checkpoint_results"]:
            read_checkpoint(storage / checkpoint["checkpoint_dir_name"])
    except Exception as error:  # torch and Ray raise many kinds for a damaged file
        if not storage.has(LISTED):
            return None  # none was written yet
        name = damaged_name("checkpoints")
        storage.move(name)
        return f"a checkpoint of the student is damaged ({first_line(error)}): they are kept as {name}"
    return None


def _train_loop(config: dict[str, TrainPlan]) -> None:
    config["plan"].work()
