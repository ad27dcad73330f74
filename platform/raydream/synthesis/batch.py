"""One image batch of a run, from its id to its record: what every generator does, wherever it runs."""

import numpy as np
import torch

from raydream.config import DistillConfig
from raydream.networks import build_student
from raydream.records import BatchId, ImageBatch, Provenance, Snapshot
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.teachers.teacher import Teacher, freeze, load_arrays


def make_batch(
    run: str,
    config: DistillConfig,
    schedule: Schedule,
    teacher: Teacher,
    batch: BatchId,
    snapshot: Snapshot | None,
    source: ImageBatch | None,
    generator: int,
) -> tuple[ImageBatch, dict[str, list[tuple[int, float]]]]:
    """Make one image batch of a run: the same pixels, targets and logits whoever makes it.

    Args:
        snapshot: the student to compete with; not looked at by a method that does not compete.
        source: images to start from (their targets are kept), or None for noise.
        generator: for the record only.

    Returns:
        the batch, and each loss term over the updates.
    """
    device = teacher.device
    student = None
    snapshot = snapshot if config.synthesis.competes else None
    if snapshot is not None:
        student = build_student(config)
        load_arrays(student, snapshot.state)
        student = freeze(student).to(device)
    targets = schedule.targets(batch) if source is None else source.targets
    seed = derive_seed(config.seed, "synthesis", batch.index, batch.round)
    synthesizer = SYNTHESIZERS[config.synthesis.method](teacher, config.synthesis)
    start = None if source is None else torch.from_numpy(np.array(source.images))
    made = synthesizer.synthesize(Request(torch.from_numpy(np.array(targets)), seed, student, start))
    logits = teacher.logits(made.images).cpu()
    coefficients = {name: float(getattr(config.synthesis.coefficients, name)) for name in made.losses}
    provenance = Provenance(
        run=run,
        batch=str(batch),
        generator=generator,
        seed=seed,
        method=config.synthesis.method,
        teacher=teacher.fingerprint,
        student_step=None if snapshot is None else snapshot.step,
        source=None if source is None else str(source.id),
        restarts=made.restarts,
        coefficients=coefficients,
        losses=made.losses,
        distances=made.distances,
        target_share=float((logits.argmax(1).numpy() == targets).mean()),
    )
    return ImageBatch(made.images.cpu().numpy(), np.array(targets), logits.numpy(), provenance), made.curve
