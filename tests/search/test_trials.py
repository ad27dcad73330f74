import pytest

from raydream.search.trials import Trials

VALUES = {"updates": 10, "seconds": 1.0, "images": 8, "step": 4}


def values(accuracy: float, updates: int = 10) -> dict[str, float]:
    return VALUES | {"accuracy": accuracy, "feature_distance": 1.0 - accuracy, "updates": updates}


@pytest.fixture
def trials(tmp_path):
    made = Trials(tmp_path / "trials.jsonl")
    for number, scores in enumerate([(0.2, 0.5), (0.3, 0.9), (0.95,)]):
        made.begin(number, {"synthesis.jitter": number})
        for report, score in enumerate(scores):
            made.report(number, report, values(score, 10 * (report + 1)))
    made.end(0, "done")
    made.end(1, "done")
    made.end(2, "stopped")
    made.begin(3, {"synthesis.jitter": 9})
    made.end(3, "failed", "SynthesisError: it diverged")
    return made


def test_what_is_noted_is_there_at_once_and_in_the_next_session(trials, tmp_path):
    again = Trials(tmp_path / "trials.jsonl")
    for known in (trials, again):
        assert [trial.status for _, trial in known.items()] == ["done", "done", "stopped", "failed"]
        assert known[1].reports == [values(0.3), values(0.9, 20) | {"seconds": 2.0}] and len(known[1].moments) == 2
        assert known[3].reason == "SynthesisError: it diverged" and known[2].point == {"synthesis.jitter": 2}
    assert 4 not in again and again.count("done") == 2


def test_nothing_is_noted_twice_and_the_first_word_on_an_end_holds(trials, tmp_path):
    before = (tmp_path / "trials.jsonl").read_bytes()
    trials.begin(0, {"synthesis.jitter": 7})
    trials.report(0, 1, values(0.99))
    trials.report(0, 2, values(0.99))  # it has ended
    trials.end(2, "done")
    assert (tmp_path / "trials.jsonl").read_bytes() == before


def test_the_seconds_of_a_trial_add_up_over_its_reports_whoever_made_them(tmp_path):
    trials = Trials(tmp_path / "trials.jsonl")
    trials.begin(0, {})
    trials.report(0, 0, values(0.4) | {"seconds": 3.0})
    again = Trials(tmp_path / "trials.jsonl")
    again.report(0, 0, values(0.4) | {"seconds": 0.5})  # made again to get further, which is not counted twice
    again.report(0, 1, values(0.5) | {"seconds": 4.0})
    assert [each["seconds"] for each in again[0].reports] == [3.0, 7.0]
    assert Trials(tmp_path / "trials.jsonl")[0].reports == again[0].reports


def test_a_report_is_noted_only_in_its_turn(tmp_path):
    trials = Trials(tmp_path / "trials.jsonl")
    trials.begin(0, {})
    trials.report(0, 1, values(0.5))
    assert trials[0].reports == []
    trials.report(0, 0, values(0.4))
    trials.report(0, 0, values(0.6))
    assert [each["accuracy"] for each in trials[0].reports] == [0.4]


def test_a_line_that_a_kill_left_half_written_costs_nothing_else(trials, tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "report", "trial": 2, "val')
    with path.open("a") as file:
        file.write('\n{"event": "report", "trial": 77, "values": {}, "moment": 1}\n[1]\n{"trial": 1}\n')
    again = Trials(path)
    assert [number for number, _ in again.items()] == [0, 1, 2, 3] and len(again[2].reports) == 1
    again.begin(4, {"synthesis.jitter": 4})
    assert 4 in Trials(path)


def test_the_best_came_to_its_end(trials):
    assert trials.best("accuracy") == 1 and trials.best("feature_distance") == 1  # and not trial 2
    assert trials[2].scores("feature_distance") == [pytest.approx(-0.05)]


def test_the_first_of_equals_is_the_best_and_none_where_none_ended(tmp_path):
    trials = Trials(tmp_path / "trials.jsonl")
    for number in range(2):
        trials.begin(number, {})
        trials.report(number, 0, values(0.5))
        assert trials.best("accuracy") is None
    for number in (1, 0):
        trials.end(number, "done")
    assert trials.best("accuracy") == 0


def test_the_table_has_a_row_for_each_report_and_one_for_a_trial_without(trials):
    table = trials.table("accuracy")
    assert table["trial"].tolist() == [0, 0, 1, 1, 2, 3] and table["report"].tolist() == [1, 2, 1, 2, 1, 0]
    last = table[table["last"]].set_index("trial")
    assert last["accuracy"].tolist()[:3] == [0.5, 0.9, 0.95] and last["score"].isna().tolist() == [False] * 3 + [True]
    assert last.loc[3, "reason"] == "SynthesisError: it diverged" and last["synthesis.jitter"].tolist() == [0, 1, 2, 9]


def test_progress_is_what_all_trials_had_spent_when_each_ended(trials):
    progress = trials.progress("accuracy")
    assert progress["trial"].tolist() == [0, 1, 2] and progress["best"].tolist() == [0.5, 0.9, 0.95]
    assert progress["updates"].tolist() == [20, 40, 50] and progress["seconds"].tolist() == [2.0, 4.0, 5.0]
