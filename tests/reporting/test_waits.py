import re

import pytest

from raydream.reporting.waits import LONG_S, LongWaits


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def waits(clock: Clock, said: list[str]) -> LongWaits:
    return LongWaits(said.append, clock)


def test_a_short_wait_is_not_shown(waits: LongWaits, clock: Clock, said: list[str]) -> None:
    assert waits.update({"student": "batch 4"}) == ""
    clock.now += LONG_S - 0.1
    assert waits.update({"student": "batch 4"}) == "" and said == []
    assert waits.update({}) == "" and waits.longest_s == 0.0


def test_a_long_wait_is_said_once_and_shown_as_long_as_it_lasts(
    waits: LongWaits, clock: Clock, said: list[str]
) -> None:
    waits.update({"student": "batch 4 of 9"})
    clock.now += 12
    assert waits.update({"student": "batch 4 of 9"}) == "student: waiting 12 s for batch 4 of 9"
    clock.now += 20
    # What is missing may change, and the process has waited all the same.
    assert waits.update({"student": "batch 5 of 9"}) == "student: waiting 32 s for batch 5 of 9"
    assert waits.longest_s == 32
    assert len(said) == 1 and re.fullmatch(r"student: waiting since \d\d:\d\d:\d\d for batch 4 of 9", said[0])


def test_a_wait_that_ended_begins_again_at_zero(waits: LongWaits, clock: Clock, said: list[str]) -> None:
    for _ in range(2):
        waits.update({"student": "a snapshot"})
        clock.now += 11
        assert waits.update({"student": "a snapshot"}) == "student: waiting 11 s for a snapshot"
        waits.update({})
        clock.now += 11
        assert waits.update({"student": "a snapshot"}) == ""
        waits.update({})
    assert len(said) == 2


def test_each_process_has_its_own_wait(waits: LongWaits, clock: Clock) -> None:
    waits.update({"student": "images"})
    clock.now += 6
    waits.update({"student": "images", "generators": "a student"})
    clock.now += 6
    assert waits.update({"student": "images", "generators": "a student"}) == "student: waiting 12 s for images"
    clock.now += 6
    assert waits.update({"student": "images", "generators": "a student"}).count("waiting") == 2
