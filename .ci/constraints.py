"""Prints the installed version of all that this project needs at run time, extras included, as constraints for pip."""

import importlib.metadata
import itertools
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

APART = ("all", "docs", "dev", "mlflow", "wandb")
"""extras that name others, that are for development, or that no cluster needs: the trackers' clients"""


def closure(wanted: list[str]) -> dict[str, str]:
    """Installed versions by name of these requirements, and of what they need in turn on this machine."""
    versions: dict[str, str] = {}
    waiting = [(Requirement(text), "") for text in wanted]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for named in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, named) not in seen:
                seen.add((name, named))
                versions[name] = importlib.metadata.version(name)
                waiting += [(Requirement(text), named) for text in importlib.metadata.requires(name) or []]
    return versions


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name not in APART}
    wanted = [*project["dependencies"], *itertools.chain(*extras.values())]
    print("# What this project was tested with: `make constraints`. cluster.yaml and the Dockerfile install by it.")
    for name, version in sorted(closure(wanted).items()):
        print(f"{name}=={version}")
