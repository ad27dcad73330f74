import pytest

from raydream.runtime.training import needs_ray_train

BY_RAY_TRAIN = [
    # (workers wanted, streamed): trained by Ray Train
    ((1, False), False),
    ((1, True), True),
    ((2, False), True),
    ((2, True), True),
]


@pytest.mark.parametrize(("student", "by_ray_train"), BY_RAY_TRAIN)
def test_one_worker_that_streams_nothing_needs_no_ray_train(student: tuple[int, bool], by_ray_train: bool) -> None:
    assert needs_ray_train(*student) == by_ray_train
