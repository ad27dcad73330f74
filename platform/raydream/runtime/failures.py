"""What Ray's errors are about, in one sentence."""

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, SynthesisError

HOPELESS = (InputError, ShardError, SynthesisError, DiskFullError)
"""errors that the same work would meet anywhere, and again"""


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
