"""The job that asks other networks what they see in the images of a run."""

import time
from typing import Any

import numpy as np
import torch
from rich.console import Console

from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import EvaluateConfig, TeacherConfig
from raydream.data.image_set import ImageSet
from raydream.errors import InputError
from raydream.evaluation.cross_model import target_shares
from raydream.reporting.progress import result_table
from raydream.runs import run_folder
from raydream.store.atomic import write_json
from raydream.teachers.verifiers import load_verifiers


def evaluate(command: Command[EvaluateConfig]) -> dict[str, Any]:
    """Count how many images of a run the teacher and other networks classify as their target.

    Returns:
        the summary, which is also in the run folder; shares are in [0, 1].

    Raises:
        InputError: no images, or a verifier that cannot be loaded or does not fit them; before anything is written.
    """
    began_at, config, console = time.time(), command.config, Console()
    images = ImageSet(config.images)
    threads = torch.get_num_threads()
    device = use_device(config.device, threads, torch.cuda.device_count())
    verifiers = {}
    for index, verifier in enumerate(load_verifiers(config.verifiers)):
        _check_fits(images, verifier.config, index)
        verifiers[f"{verifier.config.network} ({verifier.fingerprint})"] = verifier.to(device)
    logits = np.concatenate([batch.teacher_logits for batch in images.batches()])
    targets = np.concatenate([batch.targets for batch in images.batches()])
    shares = {"teacher": float((logits.argmax(1) == targets).mean())}
    by_class: dict[str, list[float | None]] = {}
    for name, verifier in verifiers.items():
        counts = target_shares(images.batches(), verifier)
        shares[name] = float(counts[:, 0].sum() / counts[:, 1].sum())
        by_class[name] = [float(hits / of) if of else None for hits, of in counts]
    summary = {
        "images": len(images),
        "images_of": config.images,
        "target_share": shares,
        "target_share_by_class": by_class,
        "wall_s": time.time() - began_at,
    }
    folder = command.folder()
    with run_folder.held(folder):
        write_json(folder.summary, summary)
    rows = {name: f"{share:.1%} of {len(images)} images classified as their target" for name, share in shares.items()}
    console.print(result_table(rows | {"summary": folder.shown(folder.summary.name)}))
    return summary


def _check_fits(images: ImageSet, verifier: TeacherConfig, index: int) -> None:
    channels, classes = images[0][0].shape[0], 1 + max(int(batch.targets.max()) for batch in images.batches())
    if verifier.input_shape[0] != channels:
        allowed = f"a network for images of {channels} channels"
        raise InputError(f"verifiers.{index}.input_shape", verifier.input_shape, allowed, "name another verifier")
    if verifier.classes < classes:
        allowed = f">= {classes}, as the images' targets are"
        raise InputError(f"verifiers.{index}.classes", verifier.classes, allowed, "name a verifier of these classes")
