import pytest

from raydream.errors import RaydreamError
from raydream.runtime.roster import MAX_FAILURES, MAX_TRIES, Roster
from raydream.store.records import BatchId


def batch(index: int) -> BatchId:
    return BatchId(0, index)


def roster(generators: int = 2, patience_s: float = 10.0) -> Roster:
    made = Roster(patience_s)
    for generator in range(generators):
        made.joined(generator)
    return made


def test_nobody_is_idle_before_anybody_has_answered():
    empty = Roster(10.0)
    assert not empty.has_idle() and empty.at_hand == 0
    empty.joined(3)
    assert empty.has_idle() and empty.at_hand == 1


def test_whoever_has_waited_longest_is_next():
    two = roster()
    assert [two.begin(batch(0), 0.0), two.begin(batch(1), 0.0)] == [0, 1]
    assert not two.has_idle() and two.in_flight == [batch(0), batch(1)] and two.at_hand == 2
    assert two.done(batch(1)) == 1 and two.done(batch(0)) == 0
    assert two.begin(batch(2), 0.0) == 1
    assert two.in_flight == [batch(2)]


def test_a_generator_that_failed_is_away_until_it_answers():
    two = roster()
    two.begin(batch(0), 0.0)
    assert two.failed(batch(0), "killed") == 0
    assert two.in_flight == [] and two.at_hand == 1
    assert two.begin(batch(0), 0.0) == 1 and not two.has_idle()
    two.joined(0)
    assert two.has_idle() and two.retired == []


def test_a_generator_that_fails_again_and_again_is_taken_out():
    two = roster()
    for index in range(MAX_FAILURES):
        assert two.retired == []
        assert two.begin(batch(index), 0.0) == 0
        two.begin(batch(10 + index), 0.0)
        two.failed(batch(index), "broken")
        two.done(batch(10 + index))
        if 0 not in two.retired:
            two.joined(0)
            two.begin(batch(20 + index), 0.0)  # by generator 1, so that 0 is next again
            two.done(batch(20 + index))
    assert two.retired == [0] and two.at_hand == 1


def test_a_success_in_between_clears_a_generator():
    one = roster(1)
    for index in range(3 * MAX_FAILURES):
        one.begin(batch(index), 0.0)
        one.failed(batch(index), "killed")
        one.joined(0)
        one.begin(batch(index), 0.0)
        one.done(batch(index))
    assert one.retired == []


def test_a_batch_at_which_everybody_fails_ends_the_run_with_the_reason():
    many = roster(MAX_TRIES)
    for _ in range(MAX_TRIES - 1):
        many.begin(batch(7), 0.0)
        many.failed(batch(7), "diverged")
    assert many.retired == []
    many.begin(batch(7), 0.0)
    with pytest.raises(RaydreamError, match=r"4 times at batch r0000-b0007: diverged"):
        many.failed(batch(7), "diverged")


def test_a_batch_is_made_again_by_one_that_has_not_failed_at_it():
    three = roster(3)
    assert three.begin(batch(0), 0.0) == 0
    three.failed(batch(0), "killed")
    three.joined(0)
    three.begin(batch(1), 0.0), three.begin(batch(2), 0.0)
    three.done(batch(1))
    assert three.begin(batch(0), 0.0) == 1


def test_two_broken_generators_do_not_end_a_run_that_has_a_whole_one():
    three = roster(3)
    three.begin(batch(9), 0.0), three.done(batch(9))  # generator 0 is last in turn now
    assert three.begin(batch(1), 0.0) == 1
    assert three.begin(batch(2), 0.0) == 2
    assert three.begin(batch(3), 0.0) == 0  # the whole one is at work for long
    for _ in range(MAX_FAILURES):
        for broken, its in ((1, 1), (2, 2)):
            assert three.failed(batch(its), "broken") == broken
            if broken not in three.retired:
                three.joined(broken)
                three.begin(batch(its), 0.0)
    assert three.retired == [1, 2] and three.at_hand == 1
    three.done(batch(3))
    assert three.begin(batch(1), 0.0) == 0


def test_a_batch_ends_the_run_only_if_everybody_there_has_failed_at_it():
    two, tried = roster(), []
    with pytest.raises(RaydreamError, match="4 times at batch r0000-b0000: poison"):
        for tries in range(MAX_TRIES):
            tried.append(two.begin(batch(0), 0.0))
            two.begin(batch(50 + tries), 0.0)
            two.failed(batch(0), "poison")
            two.done(batch(50 + tries))
            two.joined(tried[-1])
    assert tried[:2] == [0, 1] and len(tried) == MAX_TRIES


def test_an_idle_generator_can_be_let_go():
    two = roster()
    two.begin(batch(0), 0.0)
    assert two.dismiss() == 1 and two.dismiss() is None
    assert two.at_hand == 1 and two.maker(batch(0)) == 0


def test_a_machine_that_went_away_is_held_against_nobody():
    one = roster(1)
    for _ in range(3 * MAX_TRIES):
        one.begin(batch(0), 0.0)
        one.failed(batch(0), "its node is gone", blame=False)
        one.joined(0)
    assert one.retired == [] and one.has_idle()


def test_a_generator_hangs_when_nothing_is_heard_for_too_long():
    two = roster(patience_s=10.0)
    two.begin(batch(0), 100.0)
    two.begin(batch(1), 105.0)
    assert two.hung(110.0) == []
    assert two.hung(110.1) == [(batch(0), 0)]
    two.heard(batch(0), 109.0)
    assert two.hung(118.0) == [(batch(1), 1)]
    two.done(batch(1))
    assert two.hung(119.0) == [] and two.hung(119.1) == [(batch(0), 0)]


def test_news_of_a_batch_that_is_done_change_nothing():
    one = roster(1)
    one.begin(batch(0), 0.0)
    one.done(batch(0))
    one.heard(batch(0), 50.0)
    assert one.hung(1e9) == [] and one.in_flight == []
