"""What is done to runs, and what must be left of them."""

import os
import signal
import time
from pathlib import Path

from benchmarks.processes import command_of, descendants
from raydream.runs.journal import read_journal


def kill(driver: int, kind: str, with_signal: signal.Signals = signal.SIGKILL) -> list[int]:
    """Signal all processes of a kind (`ray::Generator`) that a driver has; returns which."""
    victims = [pid for pid, command in descendants(driver).items() if command.startswith(kind)]
    for pid in victims:
        os.kill(pid, with_signal)
    return victims


def damage(shard: Path) -> None:
    """Flip the bits of one byte."""
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)


def noted(run_dir: Path) -> str:
    """All that the run's journal tells."""
    return "\n".join(entry.text for entry in read_journal(run_dir / "journal.jsonl"))


def assert_nothing_left(run_dir: Path, processes: dict[int, str], patience_s: float = 20.0) -> None:
    """Neither half-written files, nor (soon) any of the processes that were seen at work."""
    assert not list(run_dir.rglob("*.aside"))
    assert_ended(processes, patience_s)


def assert_ended(processes: dict[int, str], patience_s: float) -> None:
    """None of these processes, by id with their command lines, is there after so many seconds."""
    deadline = time.monotonic() + patience_s
    seen = {pid: command[:8] for pid, command in processes.items() if command}  # the dead have no command line
    while left := [pid for pid, command in seen.items() if (command_of(pid) or "").startswith(command)]:
        assert time.monotonic() < deadline, {pid: processes[pid] for pid in left}
        time.sleep(0.2)
