"""Do the tests find plausible slips? Applies each patch in this folder in turn, and runs tests until one fails.

Each patch is a slip in one room of the code; it names the tests that mirror this room. In a copy of the tracked files
the room's tests run first (those of the fast tier), and the whole fast tier where they find nothing.

    make faults                                           # all; FAULTS="limiter view" takes those with such names
    python tests/faults/check.py --rooms-only limiter     # not the whole tier
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND, PASSED = 1, 0
"""pytest's exit status where a test failed, and where none did"""


def main() -> int:
    """Print a row for each patch as it is done; returns 1 where one was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of patches; all by default")
    parser.add_argument("--rooms-only", action="store_true", help="do not go on with the whole fast tier")
    asked = parser.parse_args()
    patches = sorted(Path(__file__).parent.glob("*.patch"))
    chosen = [each for each in patches if not asked.names or any(name in each.stem for name in asked.names)]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_tracked_files(Path(folder))
        for patch in chosen:
            began = time.monotonic()
            found = found_by(patch, Path(folder), asked.rooms_only)
            missed += found is None
            print(f"{patch.stem:40} {found or 'NOT FOUND':70} {time.monotonic() - began:5.0f} s", flush=True)
    print(f"{len(chosen)} faults, {missed} not found")
    return int(missed > 0)


def copy_tracked_files(to: Path) -> None:
    """The working tree as git knows it, with what is not committed yet."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def found_by(patch: Path, tree: Path, rooms_only: bool) -> str | None:
    """The first test that fails with the patch, after "room: " or "tier: "; None where all pass."""
    rooms = re.search(r"^Room: (.+)$", patch.read_text(), re.MULTILINE)
    if rooms is None:
        raise ValueError(f"{patch} does not say which tests mirror its room: Room: tests/...")
    apply(patch, tree)
    try:
        failed = first_failure(tree, rooms[1].split())
        if failed or rooms_only:
            return failed and f"room: {failed}"
        failed = first_failure(tree, [])
        return failed and f"tier: {failed}"
    finally:
        apply(patch, tree, "--reverse")


def apply(patch: Path, tree: Path, *options: str) -> None:
    """Apply a patch, or with `--reverse` take it back; lines may have moved since it was written."""
    done = subprocess.run(
        ["patch", "--strip=1", "--no-backup-if-mismatch", *options, "--input", patch],
        cwd=tree, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{patch.name} does not apply any more; rewrite it:\n{done.stdout}{done.stderr}")


def first_failure(tree: Path, tests: list[str]) -> str | None:
    """The first test of the fast tier that fails; None where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "platform")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode == PASSED:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != FOUND and failed is None:
        raise RuntimeError(f"pytest ended with status {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return failed[1] if failed else "?"


if __name__ == "__main__":
    sys.exit(main())
