"""Training of a network, mostly the student: one worker as a Ray actor, several by successive Ray Train jobs."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raydream.runtime.checkpoints import steps_saved
from raydream.runtime.failures import Attempts, own_error
from raydream.runtime.learner import Reports, Seat
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import Notice
from raydream.runtime.placement import Nodes
from raydream.runtime.session import actor_options, beside_the_driver, can_be_placed, cluster_nodes
from raydream.store.folders import Folder

# Ray Train is imported where it is used: that takes a second, and one worker needs none of it.
if TYPE_CHECKING:
    import ray.train.torch

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""seconds for Ray to find a place for a student, and between two attempts"""


class Seats(Protocol):
    """The settings of the workers that train a network together; see `StudentConfig`."""

    @property
    def workers(self) -> int: ...
    @property
    def worker_counts(self) -> list[int]: ...
    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def resources(self) -> dict[str, float]: ...


class TrainPlan(Protocol):
    """The plan of a network's training, the same protocol for all jobs."""

    @property
    def seats(self) -> Seats:
        """Return the settings of the workers."""

    @property
    def who(self) -> str:
        """Return the network that learns, in words: the student, the teacher."""

    @property
    def reports(self) -> Reports:
        """Return what takes the reports to the driver."""

    @property
    def total_steps(self) -> int:
        """Return the number of distillation steps of the whole run."""

    @property
    def streams(self) -> bool:
        """Return whether Ray Data streams the images."""

    def workers_that_fit(self, nodes: Nodes) -> int:
        """Return the number of workers with which the student can be scheduled on these nodes; 0: none."""

    def datasets(self, step: int) -> Mapping[str, Any]:
        """Return Ray Data's datasets to stream to a Train job that resumes at a step, by name."""

    def work(self, seat: Seat) -> None:
        """Return the function that each worker runs."""


def needs_ray_train(workers: int, streams: bool) -> bool:
    """Return whether Ray Train trains a student, which joins several workers and splits streams among them.

    One worker that draws its images itself needs neither, and Ray Train would start seven processes for it.

    Args:
        workers: the number wanted, not the number that there is room for now.
        streams: whether Ray Data streams the images.
    """
    return workers > 1 or streams


class StudentTraining:
    """The training of a student as the driver sees it, from the last checkpoint if there is one.

    A lost worker restarts from the last checkpoint, any number of times, as long as the student gets further between
    two losses.

    Args:
        plan: of the student.
        storage: folder of the checkpoints.
    """

    def __init__(self, plan: TrainPlan, storage: Folder) -> None:
        self._plan, self._storage, self._done = plan, storage, False
        self._attempts = Attempts(steps_saved(storage))
        self._by_ray_train = needs_ray_train(plan.seats.workers, plan.streams)
        if self._by_ray_train:
            self._task = _train.options(scheduling_strategy=beside_the_driver()).remote(plan, storage)
        else:
            self._begin()

    def done(self) -> bool:
        """Return whether the student is trained; the driver calls it often, as it also restarts a lost student.

        Raises:
            RaydreamError: the student failed more than `MAX_FAILURES` times at one checkpoint, or for a reason that
                would not go away.
        """
        if self._done:
            return True
        if not ray.wait([self._task], timeout=0)[0]:
            self._note_waiting()
            return False
        try:
            ray.get(self._task)
        except ray.exceptions.RayError as error:
            if self._by_ray_train or not self._attempts.again(error, steps_saved(self._storage)):
                raise own_error(error, f"{self._plan.who} failed") from error
            remove_placement_group(self._place)
            self._begin()
            return False
        self._done = True
        if not self._by_ray_train:
            remove_placement_group(self._place)
        return True

    def _begin(self) -> None:
        """Start the single worker as soon as there is a place for it."""
        resources = self._plan.seats.resources
        self._place = placement_group([resources])
        there = PlacementGroupSchedulingStrategy(self._place)
        self._worker = _Worker.options(scheduling_strategy=there, **actor_options(resources)).remote()
        self._task = self._worker.learn.remote(self._plan, self._storage)
        self._placed, self._waits, self._begun_at = False, False, time.monotonic()

    def _note_waiting(self) -> None:
        """Note that the single worker has no place yet, and later that it has one."""
        if self._by_ray_train or self._placed:
            return
        self._placed = self._place.wait(0)
        if self._placed and self._waits:
            _note_workers(self._plan, 1)
        elif not (self._placed or self._waits) and time.monotonic() - self._begun_at > LOOK_S:
            self._waits = True
            _note_wait(self._plan)


def learn(plan: TrainPlan, storage: Folder) -> None:
    """Train the student to its end in this process alone, from its last checkpoint if there is one."""
    plan.work(Seat(0, 1, storage))


def train(plan: TrainPlan, storage: Folder) -> None:
    """Train the student to its end by Ray Train, from its last checkpoint if there is one.

    That may take several Train jobs, each with the number of workers that there is room for when it starts: a job ends
    if workers are lost, or if more can join. (Ray Train's own elastic policy would count what generators hold.)

    Raises:
        ray.train.TrainingFailedError: its workers failed more than `MAX_FAILURES` times at one checkpoint, or for a
            reason that would not go away.
    """
    import ray.train

    name_logs("train")
    attempts, workers = Attempts(steps_saved(storage)), plan.seats.workers
    while True:
        workers = _wait_for_room(plan, workers)
        log.info("a Train job of %d workers resumes from step %d", workers, steps_saved(storage))
        try:
            _trainer(plan, storage, workers).fit()
            if steps_saved(storage) >= plan.total_steps:
                return
        except ray.train.TrainingFailedError as error:
            if not attempts.again(error, steps_saved(storage)):
                raise


class SingleWorker:
    """Trains a student alone; an actor, as Ray announces the death of actors.

    The owner of a mere task would wait for minutes for a node that the network has cut off.
    """

    def learn(self, plan: TrainPlan, storage: Folder) -> None:
        """Train the student to its end; see `learn`."""
        learn(plan, storage)


# `StudentTraining` decides whether a lost student restarts; Ray itself restarts a lost task that starts Train jobs.
_Worker = ray.remote(max_restarts=0)(SingleWorker)
# A process of its own and no thread of the driver's: Ray crashes where a thread still waits when it is shut down.
_train = ray.remote(num_cpus=0, max_retries=3)(train)


def _wait_for_room(plan: TrainPlan, before: int) -> int:
    """Return the number of workers to resume with; notes what the student waits for, and changes of that number."""
    waits = False
    while not (workers := _workers_with_a_place(plan)):
        if not waits:
            _note_wait(plan)
            waits = True
        time.sleep(LOOK_S)
    if waits or workers != before:
        _note_workers(plan, workers)
    return workers


def _note_wait(plan: TrainPlan) -> None:
    student = plan.seats
    asked = f"{student.worker_counts[-1]} workers of {student.cpus:g} CPUs and {student.gpus:g} GPUs"
    plan.reports.put(Notice(f"{plan.who} waits for room for {asked}"))


def _note_workers(plan: TrainPlan, workers: int) -> None:
    plan.reports.put(Notice(f"{plan.who} trains with {workers} of {plan.seats.workers} workers now"))


def _workers_with_a_place(plan: TrainPlan) -> int:
    """Return the most workers that there is room for, node by node; 0 if not even the fewest have a place.

    A mere count of resources would include a node for some seconds after its loss, and resources that are scattered or
    in use.
    """
    most, student = plan.workers_that_fit(cluster_nodes()), plan.seats
    counts = [count for count in student.worker_counts if count <= most]
    return next((count for count in counts if can_be_placed(student.resources, count, LOOK_S)), 0)


def _trainer(plan: TrainPlan, storage: Folder, workers: int) -> "ray.train.torch.TorchTrainer":
    """Return a Train job that ends at its first failure."""
    import ray.train.torch

    from raydream.runtime.process_group import StudentGroup, backend_for

    seats, (system, path) = plan.seats, storage.for_arrow()
    parent, _, name = path.rpartition("/")
    return ray.train.torch.TorchTrainer(
        _train_loop,
        train_loop_config={"plan": plan, "storage": storage},
        torch_config=StudentGroup(backend_for(seats.gpus)),
        datasets=plan.datasets(steps_saved(storage)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=seats.gpus > 0, resources_per_worker=seats.resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=parent,
            storage_filesystem=system,
            failure_config=ray.train.FailureConfig(0, max_preemption_failures=0, controller_failure_limit=0),
        ),
    )


def _train_loop(config: dict[str, Any]) -> None:
    import ray.train

    context = ray.train.get_context()
    config["plan"].work(Seat(context.get_world_rank(), context.get_world_size(), config["storage"]))
