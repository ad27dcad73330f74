"""What Ray's errors are about, in one sentence, and whether it is worth trying again."""

import re
from dataclasses import dataclass

from ray.exceptions import RayTaskError

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, StallError, SynthesisError, first_line

HOPELESS = (InputError, ShardError, SynthesisError, DiskFullError)
"""errors that the same work would meet anywhere, and again"""
MAX_FAILURES = 3
"""of Train jobs before the student is at its next checkpoint"""
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_OWN_NAME = re.compile(r"^raydream\.errors\.\w+: ")


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
    """The error of raydream's own that one of Ray's carries, or else a RaydreamError of one sentence.

    Ray raises what a task raised as an error that inherits from both `RayTaskError` and the task's error, and whose
    text is the remote traceback. So the type alone does not say that an error is raydream's own.

    Args:
        what: failed, which begins the sentence about an error that is not raydream's own.
    """
    if found := _find_own(error):
        return found
    root = error
    while _is_rays(root) and (carried := _carried(root)):
        root = carried[0]
    said = last_line(str(root)) if _is_rays(root) else f"{type(root).__name__}: {first_line(root)}"
    return RaydreamError(f"{what}: {said or type(root).__name__}")


def last_line(text: str) -> str:
    """The last line of a remote traceback, without color codes and without the name of a class of raydream's errors."""
    lines = _COLOR.sub("", text).strip().splitlines()
    return _OWN_NAME.sub("", lines[-1].strip()) if lines else ""


def _is_rays(error: BaseException) -> bool:
    return type(error).__module__.startswith("ray.")


def _find_own(error: BaseException) -> RaydreamError | None:
    if isinstance(error, RaydreamError) and not isinstance(error, RayTaskError):
        return error
    return next(filter(None, map(_find_own, _carried(error))), None)


def _carried(error: BaseException) -> list[BaseException]:
    """What one of Ray's errors is about: a task's error, those of Train's workers or its controller, or its cause."""
    names = ("cause", "controller_failure", "_base_exc", "__cause__")
    found = [getattr(error, name, None) for name in names] + [*getattr(error, "worker_failures", {}).values()]
    return [each for each in found if isinstance(each, BaseException)]
