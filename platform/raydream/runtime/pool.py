"""The generators of a run: which one makes which batch, and what happens when one dies."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from raydream.config import DistillConfig, SynthesizeConfig
from raydream.errors import RaydreamError, StallError
from raydream.runtime.demand import Demand
from raydream.runtime.failures import HOPELESS, own_error
from raydream.runtime.generator import Generator, GeneratorPlan
from raydream.runtime.messages import Receipt, ReportQueue
from raydream.runtime.placement import Wanted, generators_that_fit, missing
from raydream.runtime.roster import Roster
from raydream.runtime.session import actor_options, cluster_nodes
from raydream.store.records import BatchId, Order

_GeneratorActor = ray.remote(max_restarts=-1)(Generator)


LOOK_S = 5.0
"""seconds between two checks of how many generators there is room for"""
NO_GENERATOR_S = 1800.0
"""seconds without any generator before a job gives up; an autoscaled cluster may need many minutes for its first"""


@dataclass(frozen=True)
class Finished:
    """A batch that is committed.

    Attributes:
        receipt: its generator's report.
        images: reference to the `ImageBatch`, which this process owns.
    """

    batch: BatchId
    receipt: Receipt
    images: ray.ObjectRef


class GeneratorPool:
    """Gives orders to idle generators and collects their batches.

    Args:
        plan: of every generator.
        reports: queue for the generators' progress reports.
        note: called with a sentence about each failure and its repair.
        config: of the run; generators are started by it as there is room for them.
    """

    def __init__(
        self,
        plan: GeneratorPlan,
        reports: ReportQueue,
        note: Callable[[str], None],
        config: DistillConfig | SynthesizeConfig,
    ) -> None:
        self._plan, self._reports, self._note, self._config = plan, reports, note, config
        self._demand = Demand() if config.autoscaling else None
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        self._alive_at: float | None = None
        self._roster = Roster(plan.generators.patience_s)
        self._making: dict[ray.ObjectRef, tuple[BatchId, ray.ObjectRef]] = {}
        self._killed: dict[BatchId, str] = {}
        self._absent: dict[ray.ObjectRef, int] = {}
        self._looked = -LOOK_S
        self._crowded = False
        self.lost = 0
        """number of batches lost with their generator"""

    @property
    def in_flight(self) -> list[BatchId]:
        """Return the batches in progress."""
        return self._roster.in_flight

    @property
    def at_hand(self) -> int:
        """Return the number of generators that have joined and are available."""
        return self._roster.at_hand

    @property
    def absent(self) -> int:
        """Return the number of generators that were requested and have not joined, or not rejoined, yet."""
        return len(self._absent)

    def has_idle(self) -> bool:
        """Return whether a generator is idle and can take an order."""
        return self._roster.has_idle() and not self._crowded

    def start(
        self, order: Order, teacher: ray.ObjectRef, snapshot: ray.ObjectRef | None, source: BatchId | None
    ) -> None:
        """Give an order to an idle generator; see `Generator.make`."""
        index = self._roster.begin(order.batch, time.monotonic())
        make = self._actors[index].make.options(num_returns=2)
        receipt, images = make.remote(order, teacher, snapshot, source, self._reports)
        self._making[receipt] = (order.batch, images)

    def heard(self, batch: BatchId) -> None:
        """Take note of a progress report on a batch."""
        self._roster.heard(batch, time.monotonic())

    def collect(self, timeout_s: float, more: bool) -> tuple[list[Finished], list[BatchId]]:
        """Return the batches that were made, and those that must be ordered again because their generator failed.

        Args:
            timeout_s: seconds after which it returns nothing.
            more: whether batches remain to be ordered; if not, no further generator is started or requested.

        Raises:
            RaydreamError: generators failed too often at one batch, or all of them were removed.
            StallError: no generator was available for too long.
        """
        if self._demand:
            self._demand.release()
        self.fit(more)
        self._check_alive()
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
                self._killed.pop(batch, None)  # its answer came before its end
                self._note_receipt(batch, index, receipt)
                finished.append(Finished(batch, receipt, images))
        return finished, lost

    def fit(self, more: bool) -> None:
        """Start generators for which there is room now, and release those for which there is none any more.

        `collect` calls it, too; called earlier, it starts the generators before the first order.

        Args:
            more: see `collect`.
        """
        if time.monotonic() - self._looked < LOOK_S and not self._crowded:
            return
        self._looked, wanted, before = time.monotonic(), self._plan.generators, len(self._actors)
        nodes = cluster_nodes()
        room = generators_that_fit(self._config, nodes)
        if self._demand:
            lacking = missing(self._config, nodes)
            self._demand.ask(lacking if more else lacking | {"generators": Wanted({}, 0)})
        for index in range(wanted.number if more else 0):
            if len(self._actors) < room and index not in self._actors and index not in self._roster.retired:
                options = actor_options(wanted.resources)
                actor = _GeneratorActor.options(name=f"generator-{index}", **options)
                self._actors[index] = actor.remote(index, self._plan)
                self._await(index)
        while len(self._actors) > room and (surplus := self._surplus()) is not None:
            ray.kill(self._actors.pop(surplus))
        self._crowded = len(self._actors) > room  # by busy generators, which get no further orders
        if len(self._actors) != before and (before or len(self._actors) < wanted.number):
            self._note(f"there is room for {len(self._actors)} of {wanted.number} generators now")

    def _surplus(self) -> int | None:
        """Return a generator whose release loses nothing: one that has not answered, else an idle one; else None."""
        if self._absent:
            return self._absent.popitem()[1]
        return self._roster.dismiss()

    def _check_alive(self) -> None:
        """Raise StallError if no generator was available for too long."""
        if self.at_hand or self._alive_at is None:  # the first time is counted from the first look
            self._alive_at = time.monotonic()
        if time.monotonic() - self._alive_at > NO_GENERATOR_S:
            wanted = self._plan.generators
            raise StallError(
                f"no generator was available for {NO_GENERATOR_S:g} s: {self.absent} of {wanted.number} were "
                f"requested, with {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs each, and no node has room for one"
            )

    def _await(self, index: int) -> None:
        """Have a generator join as soon as it answers; Ray repeats the call until it does."""
        self._absent[self._actors[index].ready.remote()] = index

    def _answered(self, index: int, answer: ray.ObjectRef) -> None:
        try:
            self._nodes[index] = ray.get(answer)
        except ray.exceptions.RayError as error:
            cause = own_error(error, f"generator {index} cannot be started")
            self._roster.retired.append(index)
            self._take_out(index, str(cause), error)
        else:
            self._roster.joined(index)

    def replace_hung(self) -> None:
        """Replace generators of which nothing was heard for too long; call it after all reports were taken note of."""
        hung = self._roster.hung(time.monotonic())
        if not hung:
            return
        answered = ray.wait([*self._making], num_returns=len(self._making), timeout=0)[0]
        done = {self._making[receipt][0] for receipt in answered}  # while this process was stopped, perhaps
        for batch, index in hung:
            if batch not in self._killed and batch not in done:
                self._killed[batch] = "nothing was heard of it for too long (generators.patience_s)"
                ray.kill(self._actors[index], no_restart=False)

    def _failed(self, batch: BatchId, error: ray.exceptions.RayError) -> None:
        self.lost += 1
        cause = own_error(error, "its process failed")
        if isinstance(cause, HOPELESS):
            raise cause from error
        reason = self._killed.pop(batch, str(cause))
        died = isinstance(error, ray.exceptions.RayActorError)
        try:
            index = self._roster.failed(batch, reason, blame=not (died and self._node_lost(batch)))
        except RaydreamError as final:
            raise final from error
        if index in self._roster.retired:
            self._take_out(index, reason, error)
            return
        self._note(f"generator {index} failed at batch {batch} and is replaced: {reason}")
        if not died:
            ray.kill(self._actors[index], no_restart=False)  # a process in which something broke is not used again
        self._await(index)

    def _node_lost(self, batch: BatchId) -> bool:
        """Return whether a batch's node was lost, for which neither the batch nor its generator is to blame."""
        node = self._nodes.get(self._roster.maker(batch))
        return node not in [each["NodeID"] for each in ray.nodes() if each["Alive"]]

    def _take_out(self, index: int, reason: str, error: ray.exceptions.RayError) -> None:
        self._note(f"generator {index} failed again and again and is taken out: {reason}")
        ray.kill(self._actors.pop(index))
        if not (self.at_hand or self._absent):
            raise RaydreamError(f"all generators failed again and again; the last one: {reason}") from error

    def _note_receipt(self, batch: BatchId, index: int, receipt: Receipt) -> None:
        for note in receipt.notes:
            self._note(f"generator {index}, batch {batch}: {note}")
        if times := receipt.provenance.restarts:
            self._note(f"batch {batch} diverged (NaN or infinity) and was started again {times} times")
