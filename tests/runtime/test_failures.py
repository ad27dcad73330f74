from collections.abc import Callable

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, StallError, SynthesisError
from raydream.runtime.failures import MAX_FAILURES, Attempts, last_line, own_error

CRASH = RuntimeError("a worker died")


def test_a_student_is_begun_again_so_many_times_at_one_checkpoint_and_no_more() -> None:
    attempts = Attempts(reached=100)
    assert [attempts.again(CRASH, 100) for _ in range(MAX_FAILURES + 1)] == [True] * MAX_FAILURES + [False]


def test_a_student_that_gets_further_may_fail_as_often_as_it_does() -> None:
    attempts = Attempts(reached=0)
    for reached in range(10, 500, 10):
        assert attempts.again(CRASH, reached) and attempts.again(CRASH, reached)


def test_getting_further_without_a_failure_counts() -> None:
    attempts = Attempts(reached=0)
    for _ in range(MAX_FAILURES):
        assert attempts.again(CRASH, 0)
    assert attempts.again(CRASH, 300) and attempts.failures == 1


@pytest.mark.parametrize("error", [StallError("nothing joins"), ShardError("torn"), InputError("a", 1, "b", "c")])
def test_what_would_not_go_away_is_not_tried_again(error: RaydreamError) -> None:
    rays = RuntimeError("of Ray")
    rays.__cause__ = error
    assert own_error(rays, "") is error
    assert not Attempts(reached=0).again(rays, 100)


def of_task(error: Exception) -> Exception:
    """As `ray.get` raises what a task or a method of an actor raised: of both types, with the remote traceback."""
    text = f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n{type(error).__module__}.{error!r}'
    return RayTaskError("f", text, error, proctitle="ray::f", pid=1, ip="127.0.0.1").as_instanceof_cause()


def of_worker(error: Exception) -> Exception:
    """As the task that waits for a Train job raises what one of its workers raised."""
    return of_task(WorkerGroupError("rank 0", {0: UserExceptionWithTraceback(error, "a traceback")}))


def of_controller(error: Exception) -> Exception:
    return of_task(ControllerError(error))


def of_task_of_task(error: Exception) -> Exception:
    """As a Train worker fails that asked an actor in vain, or a task whose argument could not be made."""
    return of_worker(of_task(error))


WAYS = [of_task, of_worker, of_controller, of_task_of_task]
OWN = [
    SynthesisError("the inversion kept diverging"),
    DiskFullError("no space is left for a"),
    ShardError("torn"),
    InputError("a.b", 1, "more", "take 2"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_an_own_error_of_a_remote_process_is_its_own_sentence(
    way: Callable[[Exception], Exception], error: RaydreamError
) -> None:
    found = own_error(way(error), "the student failed")
    assert type(found) is type(error) and str(found) == str(error)


@pytest.mark.parametrize("way", WAYS)
def test_another_error_of_a_remote_process_is_one_sentence(way: Callable[[Exception], Exception]) -> None:
    found = own_error(way(RuntimeError("CUDA error: out of luck\nFor debugging, set this\nand that")), "it failed")
    assert str(found) == "it failed: RuntimeError: CUDA error: out of luck"


def test_what_an_own_error_was_raised_from_does_not_replace_it() -> None:
    error = RaydreamError("all generators failed again and again")
    error.__cause__ = of_task(ShardError("torn"))
    assert own_error(error, "") is error


def test_a_remote_error_that_was_raised_from_another_is_told_as_it_was_raised() -> None:
    error = RuntimeError("no device")
    error.__cause__ = KeyError("cuda")
    assert str(own_error(of_task(error), "it failed")) == "it failed: RuntimeError: no device"


def test_an_actor_that_cannot_be_made_says_why_in_one_sentence() -> None:
    failed = RayTaskError(
        "f", "Traceback (most recent call last):\nraydream.errors.ShardError: torn", ShardError("torn")
    )
    assert str(own_error(ActorDiedError(failed), "the evaluator failed")) == "the evaluator failed: torn"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Traceback\n  File\nraydream.errors.DiskFullError: no space is left for a", "no space is left for a"),
        ("Traceback\n\x1b[36mray::f()\x1b[39m\nOSError: gone\n\n", "OSError: gone"),
        ("\x1b[31mred\x1b[0m", "red"),
        (" \n", ""),
        ("", ""),
    ],
)
def test_a_remote_traceback_is_told_by_its_last_line(text: str, line: str) -> None:
    assert last_line(text) == line


@ray.remote(num_cpus=0)
class Fails:
    """An actor that raises what it is given."""

    def __init__(self, at_once: Exception | None = None) -> None:
        if at_once:
            raise at_once

    def now(self, error: Exception) -> None:
        raise error


@pytest.mark.usefixtures("joined")
def test_errors_of_real_processes_are_one_sentence() -> None:
    actor = Fails.remote()  # type: ignore[attr-defined]
    for error in OWN:
        with pytest.raises(ray.exceptions.RayTaskError) as raised:
            ray.get(actor.now.remote(error))
        assert isinstance(raised.value, RaydreamError) and "\n" in str(raised.value), "as Ray has it"
        found = own_error(raised.value, "it failed")
        assert type(found) is type(error) and str(found) == str(error)
    with pytest.raises(ray.exceptions.RayTaskError) as raised:
        ray.get(actor.now.remote(RuntimeError("the device\nis broken")))
    assert str(own_error(raised.value, "it failed")) == "it failed: RuntimeError: the device"
    with pytest.raises(ray.exceptions.RayActorError) as never:
        ray.get(Fails.remote(InputError("a.b", 1, "more", "take 2")).now.remote(CRASH))  # type: ignore[attr-defined]
    assert str(own_error(never.value, "it failed")) == "it failed: a.b = 1: must be more; take 2."
