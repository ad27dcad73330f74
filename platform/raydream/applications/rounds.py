"""A whole run in one process, without Ray: the rounds in lockstep, one batch after the other.

This is the reference that the runtime's lockstep mode must equal to the bit (with one Train worker; on CUDA, after
`compute_deterministically`), and the way to run many small experiments side by side.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raydream.buffer.sampler import uniform_draw
from raydream.config import DistillConfig
from raydream.networks import build_student
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.store.learned import LearnedStates
from raydream.store.records import ImageBatch, Snapshot
from raydream.store.shards import ShardStore
from raydream.store.unfinished import UnfinishedBatches
from raydream.students.distillation import Distiller
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.resuming import Checkpointing
from raydream.teachers.teacher import Teacher, to_arrays


@dataclass(frozen=True)
class Rounds:
    """A run at the end of a round's training; after the last round, the run's result.

    Attributes:
        step: number of distillation steps done.
        student: the current student, which continues to learn with the run.
        batches: all images so far, in the order of their ids.
    """

    step: int
    student: nn.Module
    batches: list[ImageBatch]


def run_rounds(
    config: DistillConfig, teacher: Teacher, store: ShardStore | None = None, on_work: Callable[[], None] = lambda: None
) -> Rounds:
    """Run all rounds, see `rounds_of`; the returned student is in eval mode."""
    (last,) = deque(rounds_of(config, teacher, store, on_work=on_work), maxlen=1)
    last.student.eval()
    return last


def rounds_of(
    config: DistillConfig,
    teacher: Teacher,
    store: ShardStore | None = None,
    build: Callable[[], nn.Module] | None = None,
    on_work: Callable[[], None] = lambda: None,
) -> Iterator[Rounds]:
    """Make images and learn from them, alternating strictly; stops at the end of each round's training.

    Args:
        config: the run's configuration; settings of processes are ignored.
        teacher: the network to invert, on the device to compute on.
        store: the store in which batches are committed; those that it holds already are reused. It must belong to this
            configuration.
        build: builds the student's network; None: as the configuration describes it.
        on_work: called after each update of images and each distillation step.

    Raises:
        SynthesisError: see `Synthesizer.synthesize`.
    """
    schedule = Schedule.of(config)
    build = build or functools.partial(build_student, config.student, config.teacher)
    torch.manual_seed(derive_seed(config.seed, "student weights"))
    student = build().to(teacher.device)
    distiller = Distiller(teacher, student, config.student, schedule.total_steps, config.seed)
    chains, lockstep = config.synthesis.generator.chains, config.rounds.lockstep
    states = None if store is None else LearnedStates.of(store.folder, chains, all_kept=lockstep)
    checkpointing = None if store is None else Checkpointing(UnfinishedBatches(store.folder), lockstep=True)
    maker = BatchMaker(
        "in-process",
        teacher,
        config.synthesis,
        build,
        states=states,
        batches=schedule.total_batches,
        checkpointing=checkpointing,
    )
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
            batches.append(maker.make(schedule.order(batch, config), snapshot, start, lambda _: on_work()).batch)
            if store is not None:
                store.write(batches[-1])
                UnfinishedBatches(store.folder).delete(batch)
        images = np.concatenate([made.images for made in batches])
        while step < schedule.total_steps and schedule.round_of_step(step) == round_index:
            drawn = uniform_draw(config.seed, step, len(images), schedule.draw)
            distiller.step(torch.from_numpy(images[drawn]).to(teacher.device), step)
            step += 1
            on_work()
            if schedule.ends_round(step):
                yield Rounds(step, distiller.learned, list(batches))
