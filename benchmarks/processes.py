"""The processes that a job has started."""

from pathlib import Path


def command_of(pid: int) -> str | None:
    """A process's command line; None where there is no such process."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None


def descendants(pid: int) -> dict[int, str]:
    """Command lines of a process's descendants by process id."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (command := command_of(int(entry.name))) is not None:
            try:
                stat = (entry / "stat").read_text(encoding="utf-8")
            except OSError:
                continue
            names[int(entry.name)] = command
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    below = {pid}
    for _ in range(8):
        below |= {child for child, parent in parents.items() if parent in below}
    return {child: names[child] for child in below - {pid}}
