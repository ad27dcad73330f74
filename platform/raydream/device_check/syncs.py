"""Finds where a distillation step waits for the GPU, by torch's own warnings."""

import warnings
from collections import Counter
from pathlib import Path

import torch

from raydream.device_check.smoke import distiller, random_images
from raydream.device_check.steps import Figures
from raydream.device_check.subjects import find_subject

WARMED_UP = 3


def distillation_syncs(device: str) -> Figures:
    """Return the lines of code at which one step waits for the GPU, with counts; warms up first."""
    subject = find_subject("resnet20", device)
    learner, images = distiller(subject, WARMED_UP + 1), random_images(subject)
    for step in range(WARMED_UP):
        learner.step(images, step)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.step(images, WARMED_UP)
    torch.cuda.set_sync_debug_mode("default")
    places = places_of(caught)
    return {"waits": sum(places.values()), "places": places}


def places_of(caught: list[warnings.WarningMessage]) -> dict[str, int]:
    """Count warnings of synchronization by `folder/file:line`, most frequent first; other warnings are left out."""
    found = Counter(
        f"{Path(each.filename).parent.name}/{Path(each.filename).name}:{each.lineno}"
        for each in caught
        if "called a synchronizing" in str(each.message)
    )
    return dict(found.most_common())
