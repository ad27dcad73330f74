"""The texts by which TensorBoard describes a run: what it is, how it is repeated, and its configuration."""

import shlex
from collections.abc import Mapping
from typing import Any

from raydream import __version__
from raydream.runs.run_folder import RunFolder
from raydream.store.yaml_files import yaml_text


def described(
    job: str, does: str, folder: RunFolder, machine: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, str]:
    """Return the texts of a run in Markdown, by their tags.

    Args:
        job: name of its command.
        does: what the command does, in a sentence.
        machine: where it runs, and the versions of its packages, by name.
        settings: all of them, nested.
    """
    rows = {"run": folder.run, "folder": folder.shown(), "raydream": __version__} | {
        name: ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, Mapping) else str(value)
        for name, value in machine.items()
    }
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])
    again = shlex.join(["raydream", job, "--config", folder.shown(folder.config.name)])
    resumed = shlex.join(["raydream", job, "--resume", folder.shown()])
    return {
        "run/1 description": f"**raydream {job}**: {does}\n\n{table}",
        "run/2 command": f"The same run again, in a new folder:\n\n    {again}\n\nTo resume it:\n\n    {resumed}",
        "run/3 configuration": "\n".join(f"    {line}" for line in yaml_text(dict(settings)).splitlines()),
    }
