"""The resources of this machine, beside the devices that torch reports, and the version of this code."""

import os
import subprocess
from pathlib import Path

from raydream import __version__


def machine_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def code_version(folder: Path = Path(__file__).parent) -> str:
    """Return the version of raydream, with the commit where its folder belongs to a git checkout.

    Args:
        folder: of the code.
    """
    git = ["git", "-C", str(folder)]
    try:
        # An installed package may lie within the checkout of another project, which does not track it.
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", "__init__.py"], check=True, capture_output=True, timeout=10
        )
        described = [*git, "describe", "--always", "--dirty=, changed", "--exclude=*", "--abbrev=10"]
        commit = subprocess.run(described, check=True, capture_output=True, timeout=10, text=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__} (commit {commit})"
