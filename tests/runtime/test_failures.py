import pytest

from raydream.errors import InputError, RaydreamError, ShardError, StallError
from raydream.runtime.failures import MAX_FAILURES, Attempts, own_error

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
