"""Results of courses in a folder: two files per step, written so that a kill leaves nothing half-done.

A step exists once its JSON exists; its weights are written before. The folder is the only record of progress.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from raydream.applications.continual.course import LearnedStep
from raydream.applications.continual.measures import Accuracies, accuracies, forgetting
from raydream.store.documents import read_json
from raydream.store.folders import Folder
from raydream.teachers.teacher import fingerprint, to_arrays

IMAGES = "images"
"""stored with the weights, by this name: one image of each old class"""
FIGURES = ("accuracy_all", "accuracy_old", "accuracy_new", "accuracy_average", "forgetting")


class CourseResults:
    """The steps that courses have completed.

    Args:
        folder: the folder of results, which need not exist.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def commit(self, method: str, seed: int, learned: LearnedStep, seconds: float) -> None:
        """Write a step's files; raises OSError, or DiskFullError.

        Args:
            seconds: the step's duration.
        """
        tensors = {f"network.{name}": value.contiguous() for name, value in learned.network.state_dict().items()}
        if learned.images is not None:
            tensors[IMAGES] = torch.from_numpy(np.ascontiguousarray(learned.images))
        tensors = {name: value.detach().cpu() for name, value in tensors.items()}
        entry = {
            "method": method,
            "seed": seed,
            "step": learned.step,
            "seconds": seconds,
            "confusion": learned.confusion.tolist(),
            "curve": learned.curve,
            "fingerprint": fingerprint(to_arrays(learned.network)),
        }
        name = _name(method, seed, learned.step)
        self._folder.write(f"{name}.safetensors", safetensors.torch.save(tensors))
        self._folder.write(f"{name}.json", json.dumps(entry).encode())

    def steps(self, method: str, seed: int) -> list[dict[str, Any]]:
        """Return a course's stored steps up to the first missing or damaged one, from which steps are repeated."""
        found: list[dict[str, Any]] = []
        while True:
            name = f"{_name(method, seed, len(found) + 1)}.json"
            try:
                entry = read_json(self._folder, name) if self._folder.has(name) else None
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                return found
            found.append(entry)

    def begin(self, method: str, seed: int) -> tuple[int, dict[str, Tensor] | None]:
        """Return the number of a course's completed steps, and the weights after the last of them."""
        for entry in reversed(self.steps(method, seed)):
            if (state := self._state(entry)) is not None:
                return int(entry["step"]), state
        return 0, None

    def images(self, method: str, seed: int, step: int) -> np.ndarray | None:
        """Return the images of the old classes, uint8 [K0,C,H,W]; None where there are none, or they cannot be read."""
        tensors = self._tensors(_name(method, seed, step))
        return tensors[IMAGES].numpy() if tensors and IMAGES in tensors else None

    def _state(self, entry: Mapping[str, Any]) -> dict[str, Tensor] | None:
        tensors = self._tensors(_name(entry["method"], entry["seed"], entry["step"])) or {}
        state = {name.removeprefix("network."): value for name, value in tensors.items() if name != IMAGES}
        arrays = {name: value.numpy() for name, value in state.items()}
        return state if state and fingerprint(arrays) == entry.get("fingerprint") else None

    def _tensors(self, name: str) -> dict[str, Tensor] | None:
        try:
            tensors: dict[str, Tensor] = safetensors.torch.load(self._folder.read(f"{name}.safetensors"))
            return tensors
        except (FileNotFoundError, ValueError, safetensors.SafetensorError):
            return None


def _name(method: str, seed: int, step: int) -> str:
    return f"{method}-{seed}-{step}"


def figures_of(steps: list[dict[str, Any]], teacher: np.ndarray, sizes: list[int]) -> dict[str, Any]:
    """Compute the figures of one course, shares in [0, 1].

    Args:
        steps: all of it.
        teacher: confusion matrix before the first step.
        sizes: classes of each group.

    Returns:
        `FIGURES` after the last step; `steps`: the accuracies before the first step and after each.
    """
    matrices = [teacher, *(np.array(step["confusion"]) for step in steps)]
    reached = [accuracies(matrix, sizes[: index + 1]) for index, matrix in enumerate(matrices)]
    last = reached[-1]
    values = (last.all, last.old, last.new, last.average, forgetting(reached))
    return {**dict(zip(FIGURES, values, strict=True)), "steps": reached}


def summarized(courses: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the courses of one method over seeds, with `_spread`, the standard deviation (None of one course).

    Args:
        courses: as `figures_of` gives them, one at least.
    """
    summary: dict[str, Any] = {"courses": len(courses)}
    for name in FIGURES:
        values = [course[name] for course in courses]
        summary[name] = mean(values)
        summary[f"{name}_spread"] = stdev(values) if len(values) > 1 else None
    steps: list[list[Accuracies]] = [course["steps"] for course in courses]
    summary["steps"] = [_mean_of([course[index] for course in steps]) for index in range(len(steps[0]))]
    return summary


def _mean_of(steps: list[Accuracies]) -> dict[str, Any]:
    plain = [asdict(each) for each in steps]
    values = {f"accuracy_{name}": [each[name] for each in plain] for name in ("all", "old", "new", "average")}
    means: dict[str, Any] = {name: None if None in each else mean(each) for name, each in values.items()}
    return means | {"accuracy_by_group": [mean(each) for each in zip(*(each.groups for each in steps), strict=True)]}


def table_of(method: str, seed: int, steps: list[Accuracies]) -> pd.DataFrame:
    """Return a row per step, from 0 (before the first): method, seed, step, accuracies, and a column per group."""
    rows = []
    for index, reached in enumerate(steps):
        row: dict[str, Any] = {"method": method, "seed": seed, "step": index}
        row |= {f"accuracy_{name}": getattr(reached, name) for name in ("all", "old", "new", "average")}
        rows.append(row | {f"accuracy_group_{group}": share for group, share in enumerate(reached.groups)})
    return pd.DataFrame(rows)
