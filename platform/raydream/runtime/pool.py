"""The generators of a run: who makes which batch, and what happens when one of them dies."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.queue import Queue

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, SynthesisError
from raydream.records import BatchId, Order
from raydream.runtime.generator import Generator, GeneratorPlan
from raydream.runtime.messages import Receipt
from raydream.runtime.roster import Roster

_GeneratorActor = ray.remote(max_restarts=-1)(Generator)


LOOK_S = 5.0
"""between two looks at whether there is room for more generators"""


@dataclass(frozen=True)
class Finished:
    """A batch that is committed.

    Attributes:
        receipt: of its generator.
        images: reference to the `ImageBatch`, which this process owns.
    """

    batch: BatchId
    receipt: Receipt
    images: ray.ObjectRef


class GeneratorPool:
    """Hands orders to idle generators and collects what they made.

    Args:
        plan: of every generator.
        teacher: reference to the teacher's weights.
        reports: queue to which generators tell their progress.
        note: where to tell of what went wrong and was mended.
        room: how many generators can be scheduled where there are so many CPUs and GPUs.
    """

    def __init__(
        self,
        plan: GeneratorPlan,
        teacher: ray.ObjectRef,
        reports: Queue,
        note: Callable[[str], None],
        room: Callable[[float, float], int],
    ) -> None:
        self._plan, self._teacher, self._reports, self._note, self._room = plan, teacher, reports, note, room
        self._actors: list[Any] = []
        self._roster = Roster(plan.generators.patience_s)
        self._making: dict[ray.ObjectRef, tuple[BatchId, ray.ObjectRef]] = {}
        self._killed: dict[BatchId, str] = {}
        self._absent: dict[ray.ObjectRef, int] = {}
        self._looked = -LOOK_S

    @property
    def in_flight(self) -> list[BatchId]:
        """Batches in the making."""
        return self._roster.in_flight

    @property
    def at_hand(self) -> int:
        """Generators that have joined and are there."""
        return self._roster.at_hand

    @property
    def absent(self) -> int:
        """Generators that have been asked for and are not there yet, or not again."""
        return len(self._absent)

    def has_idle(self) -> bool:
        """Whether a generator can be given an order."""
        return self._roster.has_idle()

    def start(self, order: Order, snapshot: ray.ObjectRef | None, source: BatchId | None) -> None:
        """Give an order to an idle generator; see `Generator.make`."""
        index = self._roster.begin(order.batch, time.time())
        make = self._actors[index].make.options(num_returns=2)
        receipt, images = make.remote(order, self._teacher, snapshot, source, self._reports)
        self._making[receipt] = (order.batch, images)

    def heard(self, batch: BatchId) -> None:
        """There is news of a batch in the making."""
        self._roster.heard(batch, time.time())

    def collect(self, timeout_s: float) -> tuple[list[Finished], list[BatchId]]:
        """What has been made, and what must be ordered again because its generator failed.

        Raises:
            RaydreamError: generators failed too often at one batch, or all of them were taken out.
        """
        self._grow()
        self._replace_hung()
        finished: list[Finished] = []
        lost: list[BatchId] = []
        if not (self._making or self._absent):
            time.sleep(timeout_s)
            return finished, lost
        for done in ray.wait([*self._making, *self._absent], num_returns=1, timeout=timeout_s)[0]:
            if done in self._absent:
                self._answered(self._absent.pop(done), done)
                continue
            batch, images = self._making.pop(done)
            try:
                receipt: Receipt = ray.get(done)
            except ray.exceptions.RayError as error:
                self._failed(batch, error)
                lost.append(batch)
            else:
                index = self._roster.done(batch)
                self._tell(batch, index, receipt)
                finished.append(Finished(batch, receipt, images))
        return finished, lost

    def _grow(self) -> None:
        """Start the generators for which there is room by now; each joins once it answers."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked, generators, begun = time.monotonic(), self._plan.generators, len(self._actors)
        there = ray.cluster_resources()
        for index in range(begun, self._room(there.get("CPU", 0.0), there.get("GPU", 0.0))):
            options = {"name": f"generator-{index}", "num_cpus": generators.cpus, "num_gpus": generators.gpus}
            self._actors.append(_GeneratorActor.options(**options).remote(index, self._plan))
            self._await(index)
        if len(self._actors) > begun and (begun or len(self._actors) < generators.count):
            self._note(f"there is room for {len(self._actors)} of {generators.count} generators now")

    def _await(self, index: int) -> None:
        """Let a generator join as soon as it answers; Ray repeats the question until it does."""
        self._absent[self._actors[index].ready.remote()] = index

    def _answered(self, index: int, answer: ray.ObjectRef) -> None:
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:  # it cannot be started at all
            raise own_error(error, f"generator {index} cannot be started") from error
        self._roster.joined(index)

    def _replace_hung(self) -> None:
        for batch, index in self._roster.hung(time.time()):
            if batch not in self._killed:
                self._killed[batch] = "nothing was heard of it for too long (generators.patience_s)"
                ray.kill(self._actors[index], no_restart=False)

    def _failed(self, batch: BatchId, error: ray.exceptions.RayError) -> None:
        cause = own_error(error, "its process failed")
        if isinstance(cause, InputError | ShardError | SynthesisError | DiskFullError):
            raise cause from error  # another generator would fail in the same way
        reason = self._killed.pop(batch, str(cause))
        unavailable = isinstance(error, ray.exceptions.ActorUnavailableError)
        try:
            index = self._roster.failed(batch, reason, blame=not unavailable)
        except RaydreamError as final:
            raise final from error
        if index not in self._roster.retired:
            self._note(f"generator {index} failed at batch {batch} and is replaced: {reason}")
            self._await(index)
            return
        self._note(f"generator {index} failed again and again and is taken out: {reason}")
        ray.kill(self._actors[index])
        if not (self.at_hand or self._absent):
            raise RaydreamError(f"all generators failed again and again; the last one: {reason}") from error

    def _tell(self, batch: BatchId, index: int, receipt: Receipt) -> None:
        for note in receipt.notes:
            self._note(f"generator {index}, batch {batch}: {note}")
        if times := receipt.provenance.restarts:
            self._note(f"batch {batch} diverged (NaN or infinity) and was started anew {times} times")


def own_error(error: BaseException, what: str) -> RaydreamError:
    """The error of ours that lies at the root of one of Ray's, or else one that says what failed."""
    cause: BaseException | None = error
    while cause is not None:
        failures = getattr(cause, "worker_failures", {}).values()  # of Ray Train's workers
        for found in (cause, *(getattr(failure, "_base_exc", failure) for failure in failures)):
            if isinstance(found, RaydreamError):
                return found
        cause = getattr(cause, "cause", None) or cause.__cause__
    said = str(error).strip().splitlines()
    return RaydreamError(f"{what}: {said[-1] if said else type(error).__name__}")
