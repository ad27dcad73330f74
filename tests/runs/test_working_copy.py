"""The working copy of a run folder that is in a store, for which a folder of this machine stands here."""

from pathlib import Path

import pytest

from raydream.runs.metrics_table import MetricsTable, read_metrics
from raydream.runs.working_copy import WorkingCopy
from raydream.store.folders import LocalFolder


def steps(folder: Path) -> list[int]:
    return [int(step) for step in read_metrics(folder / "metrics.parquet")["step"]]


def write(copy: WorkingCopy, step: int, merged: bool = False) -> None:
    table = MetricsTable(copy.path / "metrics.parquet")
    table.append((float(step), None, "student", "loss", None, step, None, 0.5))
    table.flush()
    if merged:
        table.merge()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_metrics_of_a_killed_session_are_fetched_and_continued(store: Path) -> None:
    first = WorkingCopy(LocalFolder(store))
    write(first, 0)
    first.save()
    assert steps(store) == [0]
    second = WorkingCopy(LocalFolder(store))
    second.fetch()
    assert steps(second.path) == [0]
    write(second, 1)
    second.save()
    write(second, 2, merged=True)
    second.save()
    assert steps(store) == [0, 1, 2]
    assert [path for path in store.rglob("*") if path.is_file()] == [store / "metrics.parquet"]


def test_what_is_deleted_here_is_deleted_in_the_store_and_nothing_else(store: Path) -> None:
    (store / "images").mkdir()
    (store / "images" / "r0000-b0000.parquet").write_bytes(b"by a generator")
    (store / "summary.json").write_text("{}", encoding="utf-8")
    copy = WorkingCopy(LocalFolder(store))
    copy.fetch()
    (copy.path / "later.json").write_text("{}", encoding="utf-8")
    copy.save()
    (copy.path / "summary.json").unlink()
    copy.save()
    found = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    assert found == {"later.json", "images/r0000-b0000.parquet"}


def test_a_save_that_fails_deletes_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = WorkingCopy(LocalFolder(store))
    write(copy, 0)
    copy.save()
    write(copy, 1, merged=True)
    with monkeypatch.context() as patch:
        patch.setattr("raydream.store.folders.LocalFolder.write", lambda *args: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            copy.save()
    assert steps(store) == [0]
    copy.save()
    assert steps(store) == [0, 1]


def test_fetching_again_leaves_nothing_of_what_was_here(store: Path) -> None:
    early, other = WorkingCopy(LocalFolder(store)), WorkingCopy(LocalFolder(store))
    write(other, 0)
    other.save()
    early.fetch()
    write(other, 1, merged=True)
    other.save()
    early.fetch()
    write(early, 2)
    early.save()
    assert steps(store) == steps(early.path) == [0, 1, 2]
