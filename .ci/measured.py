"""Runs a command and says what it took: wall, user and system seconds of all its processes, daemons included.

Ray's processes outlive the one that started them, and its raylet waits for none of its workers, so a shell's `time`
sees a part of them only. The command runs in a control group of its own, whose account the kernel keeps. That takes
Linux and root; elsewhere the seconds are those of processes that were waited for, and the line says so.

    python .ci/measured.py NAME COMMAND [ARGUMENT ...]

`tests/ledger.py` reads the same account while tests run. $LEDGER names a file that gets the line, too.
"""

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

GROUPS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup"))
"""where control groups of version 1, and of version 2, keep accounts of processors"""


def main(name: str, *command: str) -> int:
    """Run the command; returns its exit status."""
    group = new_group()
    began = time.monotonic()
    status = subprocess.run(command, env={**os.environ, "LEDGER_GROUP": str(group or "")}).returncode
    wall_s = time.monotonic() - began
    user_s, system_s = used_s(group) if group else waited_for_s()
    counted = "" if group else " (of processes that were waited for)"
    line = f"{name:14} {wall_s:5.0f} s, {user_s:5.0f} user + {system_s:4.0f} system CPU-seconds{counted}"
    print(line, flush=True)
    if ledger := os.environ.get("LEDGER"):
        with Path(ledger).open("a") as file:
            file.write(f"{line}\n")
    if group:
        leave(group)
    return status if status >= 0 else 128 - status


def new_group() -> Path | None:
    """A control group in which this process is now, and what it starts from now on; None where there are none."""
    for place in GROUPS:
        group = place / f"measured-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os.getpid()))
            used_s(group)
            return group
    return None


def leave(group: Path) -> None:
    """Go back to where groups are, and remove the group unless processes are left in it."""
    with contextlib.suppress(OSError):
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def used_s(group: Path) -> tuple[float, float]:
    """User and system CPU-seconds of all that ran in a group; raises OSError where it keeps no account."""
    if (group / "cpuacct.usage_user").exists():
        user, system = (int((group / f"cpuacct.usage_{kind}").read_text()) for kind in ("user", "sys"))
        return user / 1e9, system / 1e9
    rows = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(rows["user_usec"]) / 1e6, int(rows["system_usec"]) / 1e6


def waited_for_s() -> tuple[float, float]:
    """User and system CPU-seconds of children that have ended, and of those that these waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
