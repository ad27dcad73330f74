"""A machine that has torch, numpy and pydantic, with what these need, and no other package."""

import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path

from tests.calls import ROOT

PRESENT = ("torch", "numpy", "pydantic")


def bare_environment() -> dict[str, str]:
    """For a process in which all other installed packages seem to be missing."""
    there = _with_requirements(PRESENT)
    found = importlib.metadata.packages_distributions()
    missing = [name for name, owners in found.items() if not there & {_canonical(owner) for owner in owners}]
    # Inductor needs setuptools, which brings copies of what itself needs.
    brought = {path.name for path in Path(str(importlib.util.find_spec("setuptools").origin)).parent.glob("_vendor/*")}
    paths = [Path(__file__).with_name("bare"), ROOT / "platform"]
    names = ",".join(name for name in {*missing} - brought - {"raydream"})
    return {**os.environ, "MISSING_PACKAGES": names, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def _with_requirements(names: tuple[str, ...]) -> set[str]:
    seen: set[str] = set()
    waiting = [*names]
    while waiting:
        name = _canonical(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += [re.split(r"[^\w.-]", each)[0] for each in required if "extra ==" not in each]
    return seen


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
