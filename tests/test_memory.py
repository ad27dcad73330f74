"""How much memory is free, by what the system and its control groups say."""

from pathlib import Path

import pytest

from raydream import memory

MEMINFO = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 800 kB\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch) -> Path:
    """The files by which a Linux machine describes itself; as yet, there is no control group."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "used", "of_files", "free"),
    [
        ("max", "1000", "10", 800 * 1024),
        ("500000", "100000", "0", 400_000),
        ("500000", "100000", "60000", 460_000),  # the kernel gives these up
        ("900000000", "100000", "0", 800 * 1024),
        ("1000", "5000", "0", 0),
        ("nonsense", "1", "1", 800 * 1024),
    ],
)
def test_a_control_group_may_leave_less_than_the_machine(machine: Path, limit, used, of_files, free) -> None:
    for name, text in (("max", limit), ("current", used), ("stat", f"anon 5\nfile {of_files}")):
        (machine / f"memory.{name}").write_text(f"{text}\n")
    assert memory.free_memory() == free


def test_without_a_description_all_memory_counts(machine: Path) -> None:
    assert memory.free_memory() == 800 * 1024
    (machine / "meminfo").unlink()
    assert memory.free_memory() > 2**28


@pytest.mark.parametrize(("size", "fits"), [(0, True), (800 * 1024, True), (800 * 1024 + 1, False), (2**80, False)])
def test_what_fits_is_what_is_free(machine: Path, size: int, fits: bool) -> None:
    if fits:
        memory.check_fits(size)
        return
    with pytest.raises(ValueError, match="of memory, of which 800 KiB are free"):
        memory.check_fits(size)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "0.977 KiB"), (3 * 2**29, "1.5 GiB"), (2**40, "1 TiB")],
)
def test_sizes_are_shown_in_words(size: int, words: str) -> None:
    assert memory.in_words(size) == words
