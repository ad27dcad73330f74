"""The metrics table: parts of a run in progress, one file at a session's end, and what a kill in between leaves."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raydream.errors import ShardError
from raydream.runs import metrics_table
from raydream.runs.metrics_table import COLUMNS, MetricsTable, has_metrics, read_metrics
from raydream.store.atomic import remove_leftovers


def row(step: int) -> tuple[Any, ...]:
    return (float(step), None, "student", "loss", None, step, None, 0.5)


def steps(path: Path) -> list[int]:
    return [int(step) for step in read_metrics(path)["step"]]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(metrics_table, "ROWS_PER_PART", 4)
    return tmp_path / "metrics.parquet"


def write(path: Path, first: int, last: int, merged: bool = False) -> None:
    """A session that flushes each row, and is killed, or ends in good order."""
    table = MetricsTable(path)
    for step in range(first, last):
        table.append(row(step))
        table.flush()
    if merged:
        table.merge()


def test_rows_are_read_in_their_order_before_and_after_they_are_merged(path: Path) -> None:
    write(path, 0, 10)
    assert sorted(each.name for each in (path.parent / "metrics").iterdir()) == [f"00000{n}.parquet" for n in (1, 2, 3)]
    assert not path.exists() and steps(path) == list(range(10))
    write(path, 10, 12, merged=True)
    assert [each.name for each in path.parent.iterdir()] == ["metrics.parquet"]
    assert steps(path) == list(range(12)) == list(pd.read_parquet(path)["step"])
    write(path, 12, 13)
    assert steps(path) == list(range(13)) and MetricsTable(path).end_s == 12.0


def test_a_table_that_was_merged_takes_more_rows(path: Path) -> None:
    table = MetricsTable(path)
    for step in range(3):
        table.append(row(step))
        table.merge()
        assert list(table.frame()["step"]) == steps(path) == list(range(step + 1))


def test_a_flush_leaves_full_parts_alone(path: Path) -> None:
    table = MetricsTable(path)
    for step in range(9):
        table.append(row(step))
        table.flush()
    parts = sorted((path.parent / "metrics").iterdir())
    before = [part.stat().st_mtime_ns for part in parts]
    table.flush()  # nothing is new
    assert [part.stat().st_mtime_ns for part in parts] == before
    table.append(row(9))
    table.flush()
    assert [part.stat().st_mtime_ns for part in parts[:2]] == before[:2]
    assert parts[2].stat().st_mtime_ns > before[2]


def test_values_keep_their_types_and_absent_ones_are_absent(path: Path) -> None:
    table = MetricsTable(path)
    table.append((1.0, 2.5, "generator-0", "span/make", 1, None, "r0001-b0000", None))
    table.append((4.0, None, "student", "loss", None, 2**53 + 1, None, float("nan")))
    table.merge()
    expected = pd.DataFrame(table.frame(), columns=list(COLUMNS)).astype(COLUMNS)
    for found in (read_metrics(path), pd.read_parquet(path)):
        assert {name: str(kind) for name, kind in found.dtypes.items()} == {
            name: str(kind) for name, kind in expected.dtypes.items()
        }
        assert found["step"].isna().tolist() == [True, False] and found["step"][1] == 2**53 + 1
        assert found["duration_s"].tolist()[0] == 2.5 and found["value"].isna().all()
    assert MetricsTable(path).end_s == 4.0


def test_the_file_of_an_older_version_is_continued(path: Path) -> None:
    pd.DataFrame([row(0), row(1)], columns=list(COLUMNS)).astype(COLUMNS).to_parquet(path, index=False)
    assert steps(path) == [0, 1]
    write(path, 2, 4)
    assert steps(path) == [0, 1, 2, 3]
    write(path, 4, 5, merged=True)
    assert steps(path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("deleted", [(), (1,), (1, 2, 3), (2,), (3,)])
def test_parts_that_were_merged_do_not_count_again(path: Path, deleted: tuple[int, ...]) -> None:
    write(path, 0, 10)
    parts = {each: each.read_bytes() for each in (path.parent / "metrics").iterdir()}
    write(path, 10, 10, merged=True)
    (path.parent / "metrics").mkdir()
    for part, content in parts.items():
        if int(part.stem) not in deleted:
            part.write_bytes(content)
    assert steps(path) == list(range(10))
    write(path, 10, 11)
    assert steps(path) == list(range(11))
    write(path, 11, 12, merged=True)
    assert steps(path) == list(range(12)) and not (path.parent / "metrics").exists()


class Killed(BaseException):
    pass


class Killer:
    """Lets some steps that change the disk happen, and none after these, not even those that clean up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for name in ("fsync", "replace", "unlink", "rmdir", "mkdir"):
            self._patch(monkeypatch, name)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, counted)


def test_a_kill_between_any_two_steps_neither_loses_nor_doubles_a_row(path: Path) -> None:
    killed = 0
    while True:
        here = path.parent / str(killed)
        here.mkdir()
        flushed, in_flight = 0, 0
        own = here / path.name
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch)
            killer.left = killed
            try:
                for session in range(2):  # the second continues a merged file
                    table = MetricsTable(own)
                    for first in range(6 * session, 6 * session + 6, 2):
                        table.append(row(first))
                        table.append(row(first + 1))
                        in_flight = first + 2
                        table.flush()
                        flushed = in_flight
                    table.merge()
                ended = True
            except Killed:
                ended = False
        remove_leftovers(here)
        found = steps(own) if has_metrics(own) else []
        assert found in (list(range(flushed)), list(range(in_flight))), killed
        write(own, len(found), 14, merged=True)
        assert steps(own) == list(range(14)) and [each.name for each in here.iterdir()] == [own.name], killed
        if ended:
            break
        killed += 1
    assert killed > 20


def test_a_reader_beside_a_merge_finds_each_row_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, 0, 10)
    real = metrics_table._parts
    listed = []

    def merged_meanwhile(where: Path) -> dict[int, Path]:
        listed.append(real(where))
        if len(listed) == 1:
            monkeypatch.setattr(metrics_table, "_parts", real)
            MetricsTable(where).merge()
        return listed[0]

    monkeypatch.setattr(metrics_table, "_parts", merged_meanwhile)
    assert steps(path) == list(range(10)) and len(listed[0]) == 3


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-40], lambda whole: whole[:20] + b"xxx"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_of_a_damaged_part_the_others_stay(path: Path, damage: Any, number: int) -> None:
    write(path, 0, 10)
    part = path.parent / "metrics" / f"00000{number}.parquet"
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(ShardError, match=f"00000{number}.parquet cannot be read"):
        read_metrics(path)
    table = MetricsTable(path)
    assert table.damage is not None and f"-00000{number}.parquet, and its curves are missing" in table.damage
    left = [step for step in range(10) if step // 4 != number - 1]
    assert list(table.frame()["step"]) == left and MetricsTable(path).damage is None
    table.append(row(10))
    table.merge()
    assert steps(path) == [*left, 10]
    assert len(list((path.parent / "metrics").glob("_damaged-*"))) == 1


def test_of_a_damaged_file_parts_that_it_contained_still_count(path: Path) -> None:
    write(path, 0, 6)
    parts = {each: each.read_bytes() for each in (path.parent / "metrics").iterdir()}
    write(path, 6, 6, merged=True)
    (path.parent / "metrics").mkdir()
    for part, content in parts.items():
        part.write_bytes(content)
    path.write_bytes(b"PAR1")
    assert "cannot be read" in str(MetricsTable(path).damage)
    assert steps(path) == list(range(6))


def test_what_is_no_part_is_passed_over(path: Path) -> None:
    write(path, 0, 2)
    for name in (".000002.parquet.1234abcd.aside", "_damaged-1-000002.parquet", "notes.txt", "2.parquet"):
        (path.parent / "metrics" / name).write_bytes(b"x")
    assert steps(path) == [0, 1] and MetricsTable(path).damage is None


def test_a_run_without_metrics(path: Path) -> None:
    assert not has_metrics(path) and MetricsTable(path).frame().empty
    with pytest.raises(ShardError, match="cannot be read"):
        read_metrics(path)
    MetricsTable(path).merge()
    assert has_metrics(path) and read_metrics(path).empty
