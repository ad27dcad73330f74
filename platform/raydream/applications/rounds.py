"""A whole run in one process, without Ray: the rounds in lockstep, one batch after the other.

This is the reference that the runtime's lockstep mode must equal to the bit (with one Train worker), and the way to
run many small experiments side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raydream.buffer.sampler import uniform_draw
from raydream.config import DistillConfig
from raydream.networks import build_student
from raydream.records import ImageBatch, Snapshot
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.shards import ShardStore
from raydream.students.distillation import Distiller
from raydream.synthesis.batch import BatchMaker
from raydream.teachers.teacher import Teacher, to_arrays


@dataclass(frozen=True)
class Rounds:
    """What a run leaves behind.

    Attributes:
        student: trained, on the CPU.
        batches: all images, in the order of their ids.
    """

    student: nn.Module
    batches: list[ImageBatch]


def run_rounds(
    config: DistillConfig,
    teacher: Teacher,
    on_round: Callable[[int, nn.Module], None] = lambda steps_done, student: None,
    store: ShardStore | None = None,
) -> Rounds:
    """Make images and learn from them, alternating strictly.

    Args:
        config: of the run; what it says of processes is not looked at.
        teacher: to invert.
        on_round: called with (distillation steps done, student) at the end of each round's training.
        store: where batches are committed; what it holds already is taken from it. It must be this configuration's.
    """
    schedule = Schedule.of(config)
    torch.manual_seed(derive_seed(config.seed, "student weights"))
    student = build_student(config.student, config.teacher)
    distiller = Distiller(teacher, student, config.student, schedule.total_steps, config.seed)
    maker = BatchMaker("in-process", teacher, config.synthesis, lambda: build_student(config.student, config.teacher))
    batches: list[ImageBatch] = []
    step = 0
    for round_index in range(schedule.rounds + 1):
        snapshot = Snapshot(step, to_arrays(distiller.learned)) if round_index else None
        for batch in schedule.batches_of(round_index):
            if store is not None and store.has(batch):
                batches.append(store.read(batch))
                continue
            source = schedule.source_of(batch, config)
            start = None if source is None else batches[schedule.position(source)]
            batches.append(maker.make(schedule.order(batch, config), snapshot, start).batch)
            if store is not None:
                store.write(batches[-1])
        images = np.concatenate([made.images for made in batches])
        while step < schedule.total_steps and schedule.round_of_step(step) == round_index:
            drawn = uniform_draw(config.seed, step, len(images), schedule.draw)
            distiller.step(torch.from_numpy(images[drawn]), step)
            step += 1
            if schedule.ends_round(step):
                on_round(step, distiller.learned)
    return Rounds(distiller.learned.eval(), batches)
