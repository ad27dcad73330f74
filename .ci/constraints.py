"""Prints the installed version of all that this project needs at run time, timm included, as constraints for pip."""

import importlib.metadata
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


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
    print("# What this project was tested with: `make constraints`. cluster.yaml and docs/rayjob.yaml install by it.")
    for name, version in sorted(closure(project["dependencies"] + project["optional-dependencies"]["timm"]).items()):
        print(f"{name}=={version}")
