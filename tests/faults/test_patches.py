"""Each patch still applies to the tree; whether tests find its mistake is what `make faults` shows."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
@pytest.mark.parametrize("patch", sorted(HERE.glob("*.patch")), ids=lambda path: path.stem)
def test_a_fault_applies(patch: Path) -> None:
    command = ["patch", "--dry-run", "--strip=1", "--input", str(patch)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, f"rewrite it, as the code has moved:\n{done.stdout}{done.stderr}"
