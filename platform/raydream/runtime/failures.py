"""Translates Ray's errors into one sentence, and decides whether to try again."""

import re
from dataclasses import dataclass

from ray.exceptions import RayTaskError

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, StallError, SynthesisError, first_line

HOPELESS = (InputError, ShardError, SynthesisError, DiskFullError)
"""errors that would recur anywhere, so that a retry is useless"""
MAX_FAILURES = 3
"""number of failed Train jobs before the student reaches its next checkpoint"""
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_OWN_NAME = re.compile(r"^raydream\.errors\.\w+: ")


@dataclass
class Attempts:
    """Decides whether a failed student restarts: after every failure, as long as it gets further in between.

    Attributes:
        reached: number of steps in its last checkpoint when it last failed or started.
        failures: number in a row without progress.
    """

    reached: int
    failures: int = 0

    def again(self, error: BaseException, reached: int) -> bool:
        """Return whether to try again after this Ray failure, with the last checkpoint at `reached` steps."""
        self.reached, before = reached, self.reached
        self.failures = 1 if reached > before else self.failures + 1
        return self.failures <= MAX_FAILURES and not isinstance(own_error(error, ""), (*HOPELESS, StallError))


def own_error(error: BaseException, what: str) -> RaydreamError:
    """Return the raydream error that a Ray error carries, or else a RaydreamError of one sentence.

    Ray raises what a task raised as an error that inherits from both `RayTaskError` and the task's error, and whose
    text is the remote traceback. So the type alone does not show that an error is raydream's.

    Args:
        what: what failed; begins the sentence about an error that is not raydream's.
    """
    if found := _find_own(error):
        return found
    root = error
    while _is_rays(root) and (carried := _carried(root)):
        root = carried[0]
    said = last_line(str(root)) if _is_rays(root) else f"{type(root).__name__}: {first_line(root)}"
    return RaydreamError(f"{what}: {said or type(root).__name__}")


def last_line(text: str) -> str:
    """Return the last line of a remote traceback, without color codes and names of raydream's error classes."""
    lines = _COLOR.sub("", text).strip().splitlines()
    return _OWN_NAME.sub("", lines[-1].strip()) if lines else ""


def _is_rays(error: BaseException) -> bool:
    return type(error).__module__.startswith("ray.")


def _find_own(error: BaseException) -> RaydreamError | None:
    if isinstance(error, RaydreamError) and not isinstance(error, RayTaskError):
        return error
    return next(filter(None, map(_find_own, _carried(error))), None)


def _carried(error: BaseException) -> list[BaseException]:
    """Return the errors within a Ray error: a task's, those of Train's workers or controller, or its cause."""
    names = ("cause", "controller_failure", "_base_exc", "__cause__")
    found = [getattr(error, name, None) for name in names] + [*getattr(error, "worker_failures", {}).values()]
    return [each for each in found if isinstance(each, BaseException)]
