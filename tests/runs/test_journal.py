import time

from raydream.runs.journal import Journal, read_journal


def test_what_is_noted_is_shown_and_kept_beyond_the_session(tmp_path):
    path, shown = tmp_path / "journal.jsonl", []
    before = time.time()
    Journal(path, shown.append).note("generator 0 died")
    Journal(path, shown.append).note("grüße\nin two lines")
    entries = read_journal(path)
    assert [entry.text for entry in entries] == shown == ["generator 0 died", "grüße\nin two lines"]
    assert before <= entries[0].moment <= entries[1].moment <= time.time()


def test_a_half_written_line_costs_nothing_but_itself(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, lambda text: None).note("first")
    with path.open("a") as file:
        file.write('{"moment": 3.0, "te\n[]\n{"moment": 1.0}\n')
    Journal(path, lambda text: None).note("next")
    path.write_bytes(path.read_bytes() + b'{"moment": 4.0, "te')
    Journal(path, lambda text: None).note("last")
    assert [entry.text for entry in read_journal(path)] == ["first", "next", "last"]


def test_a_run_without_faults_has_no_entries(tmp_path):
    assert read_journal(tmp_path / "journal.jsonl") == []
