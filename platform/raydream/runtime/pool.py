"""The generators of a run: who makes which batch, and what happens when one of them dies."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import ray
from ray.util.queue import Queue

from raydream.errors import RaydreamError
from raydream.records import BatchId, Order
from raydream.runtime.generator import Generator, GeneratorPlan
from raydream.runtime.messages import Receipt

_GeneratorActor = ray.remote(max_restarts=-1)(Generator)

MAX_TRIES = 4
"""of a batch whose generator dies"""
BACK_OFF_S = 5.0
"""before a generator that died is asked again: until it is back, every call to it fails at once"""


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
        say: where to tell of what went wrong and was mended.
    """

    def __init__(self, plan: GeneratorPlan, teacher: ray.ObjectRef, reports: Queue, say: Callable[[str], None]) -> None:
        resources = {"num_cpus": plan.generators.cpus, "num_gpus": plan.generators.gpus}
        self._actors = [
            _GeneratorActor.options(name=f"generator-{index}", **resources).remote(index, plan)
            for index in range(plan.generators.count)
        ]
        self._teacher, self._reports, self._say = teacher, reports, say
        self._idle = list(range(plan.generators.count))
        self._in_flight: dict[ray.ObjectRef, tuple[BatchId, int, ray.ObjectRef]] = {}
        self._resting: list[tuple[float, int]] = []
        self._tries: dict[BatchId, int] = {}

    @property
    def in_flight(self) -> list[BatchId]:
        """Batches in the making."""
        return [batch for batch, _, _ in self._in_flight.values()]

    def has_idle(self) -> bool:
        """Whether a generator can be given an order."""
        self._idle += [index for until, index in self._resting if until <= time.time()]
        self._resting = [(until, index) for until, index in self._resting if until > time.time()]
        return bool(self._idle)

    def start(self, order: Order, snapshot: ray.ObjectRef | None, source: BatchId | None) -> None:
        """Give an order to an idle generator; see `Generator.make`."""
        index = self._idle.pop(0)
        make = self._actors[index].make.options(num_returns=2)
        receipt, images = make.remote(order, self._teacher, snapshot, source, self._reports)
        self._in_flight[receipt] = (order.batch, index, images)

    def collect(self, timeout_s: float) -> tuple[list[Finished], list[BatchId]]:
        """What has been made, and what must be ordered again because its generator died.

        Raises:
            RaydreamError: a generator failed for good, or died too often at one batch.
        """
        if not self._in_flight:
            time.sleep(timeout_s)
            return [], []
        finished, lost = [], []
        for done in ray.wait(list(self._in_flight), num_returns=1, timeout=timeout_s)[0]:
            batch, index, images = self._in_flight.pop(done)
            try:
                receipt: Receipt = ray.get(done)
            except ray.exceptions.RayActorError as error:
                self._rest(batch, index, error)
                lost.append(batch)
                continue
            except ray.exceptions.RayTaskError as error:
                raise own_error(error, f"generator {index} failed at batch {batch}") from error
            self._idle.append(index)
            for note in receipt.notes:
                self._say(f"generator {index}, batch {batch}: {note}")
            if receipt.provenance.restarts:
                times = receipt.provenance.restarts
                self._say(f"batch {batch} diverged (NaN or infinity) and was started anew {times} times")
            finished.append(Finished(batch, receipt, images))
        return finished, lost

    def _rest(self, batch: BatchId, index: int, error: Exception) -> None:
        self._resting.append((time.time() + BACK_OFF_S, index))
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            return  # It is on its way back; how long that may take is bounded by the stall timeout.
        self._tries[batch] = self._tries.get(batch, 1) + 1
        if self._tries[batch] > MAX_TRIES:
            raise RaydreamError(f"generators died {MAX_TRIES} times at batch {batch}: {error}") from error
        self._say(f"generator {index} died at batch {batch}; it is restarted and the batch made again")


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
