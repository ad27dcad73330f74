"""What Ray's errors are about, in one sentence, and whether it is worth trying again."""

from dataclasses import dataclass

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, StallError, SynthesisError

HOPELESS = (InputError, ShardError, SynthesisError, DiskFullError)
"""errors that the same work would meet anywhere, and again"""
MAX_FAILURES = 3
"""of Train jobs before the student is at its next checkpoint"""


@dataclass
class Attempts:
    """Whether a student that failed is begun again: as often as it happens, as long as it gets further in between.

    Attributes:
        reached: steps behind its last checkpoint when it last failed, or began.
        failures: in a row without getting further.
    """

    reached: int
    failures: int = 0

    def again(self, error: BaseException, reached: int) -> bool:
        """Whether to try again after this failure of Ray's, with the last checkpoint at `reached` steps."""
        self.reached, before = reached, self.reached
        self.failures = 1 if reached > before else self.failures + 1
        return self.failures <= MAX_FAILURES and not isinstance(own_error(error, ""), (*HOPELESS, StallError))


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
