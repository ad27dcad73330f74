"""The job in which other networks classify the images of a run."""

import numpy as np
import torch

from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import EvaluateConfig, TeacherConfig
from raydream.data.image_set import ImageSet
from raydream.errors import InputError
from raydream.evaluation.cross_model import target_shares
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.reporting.progress import waiting
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import EvaluateSummary
from raydream.teachers.teacher import Teacher
from raydream.teachers.verifiers import load_verifiers


def evaluate(command: Command[EvaluateConfig]) -> EvaluateSummary:
    """Count how many images of a run the teacher and other networks classify as their target; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: EvaluateConfig, resumed: RunFolder | None, say: Say) -> tuple[EvaluateConfig, list[Teacher]]:
    images, verifiers = ImageSet(config.images), load_verifiers(config.verifiers)
    for index, verifier in enumerate(verifiers):
        _check_fits(images, verifier.config, index)
    return config, verifiers


def _make(run: JobRun[EvaluateConfig], verifiers: list[Teacher]) -> EvaluateSummary:
    with waiting("the images to be classified", run.console):
        return _judged(run, verifiers)


def _judged(run: JobRun[EvaluateConfig], verifiers: list[Teacher]) -> EvaluateSummary:
    images = ImageSet(run.config.images)
    device = use_device(run.config.device, torch.get_num_threads(), torch.cuda.device_count())
    logits = np.concatenate([batch.teacher_logits for batch in images.batches()])
    targets = np.concatenate([batch.targets for batch in images.batches()])
    shares = {"teacher": float((logits.argmax(1) == targets).mean())}
    by_class: dict[str, list[float | None]] = {}
    for verifier in verifiers:
        name = f"{verifier.config.network} ({verifier.fingerprint})"
        counts = target_shares(images.batches(), verifier.to(device))
        shares[name] = float(counts[:, 0].sum() / counts[:, 1].sum())
        by_class[name] = [float(hits / of) if of else None for hits, of in counts]
    return EvaluateSummary(
        images=len(images), images_of=run.config.images, target_share=shares, target_share_by_class=by_class
    )


def _check_fits(images: ImageSet, verifier: TeacherConfig, index: int) -> None:
    channels, classes = images[0][0].shape[0], 1 + max(int(batch.targets.max()) for batch in images.batches())
    if verifier.input_shape[0] != channels:
        allowed = f"a network for images of {channels} channels"
        raise InputError(f"verifiers.{index}.input_shape", verifier.input_shape, allowed, "name another verifier")
    if verifier.classes < classes:
        allowed = f">= {classes}, as the images' targets are"
        raise InputError(f"verifiers.{index}.classes", verifier.classes, allowed, "name a verifier of these classes")


def _rows(summary: EvaluateSummary) -> dict[str, str]:
    shares = summary.target_share
    return {name: f"{share:.1%} of {summary.images} images are classified as target" for name, share in shares.items()}


JOB = Job(name="evaluate", check=_check, make=_make, rows=_rows, files={"summary": "summary.json"})
