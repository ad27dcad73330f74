"""Distillation of a changed network on images alone, in stages that can be stopped anywhere (pruning, quantizing).

The configuration determines a run's stages. After each stage and each epoch the network, its optimizer and the position
in the stages are written to one file, so that a killed run resumes to the same network to the bit.
"""

import copy
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from raydream.buffer.sampler import permuted_epoch
from raydream.config import PruneConfig, QuantizeConfig
from raydream.errors import first_line
from raydream.schedule import Epochs, predecessor
from raydream.seeds import derive_seed
from raydream.store.atomic import damaged_name
from raydream.store.folders import Folder
from raydream.store.learned import LearnedStates
from raydream.store.records import BatchId, ImageBatch, Order, Snapshot
from raydream.store.safetensors_file import metadata_of
from raydream.store.shards import ShardStore
from raydream.store.unfinished import UnfinishedBatches
from raydream.students.distillation import Distiller
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.resuming import Checkpointing
from raydream.targets import choose_targets
from raydream.teachers.teacher import Teacher, fingerprint, to_arrays

Config = TypeVar("Config", bound=PruneConfig | QuantizeConfig)


@dataclass(frozen=True)
class RecoveryStage:
    """One stage of a run.

    Attributes:
        kind: remove channels, calibrate quantizers, distill, or add images.
        index: its index within its kind, from 0; for add, the round.
        epochs: number of distillation epochs.
        decay: decay of the learning rate over them.
    """

    kind: Literal["remove", "calibrate", "distill", "add"]
    index: int
    epochs: int = 0
    decay: Literal["constant", "cosine", "step"] = "constant"


def total_steps_of(config: Config, stages: Sequence[RecoveryStage], images: int) -> int:
    """Return the number of distillation steps of a whole run, on the given and the added images."""
    steps = 0
    for stage in stages:
        if stage.kind == "add":
            images += config.additions.batches * config.synthesis.batch_size
        steps += Epochs(images, min(config.student.batch_size, images), stage.epochs).total_steps
    return steps


@dataclass(frozen=True)
class StageReport:
    """The report of a stage or epoch that has just ended.

    Attributes:
        stage: the stage.
        network: the current network, which changes as the run continues.
        step: distillation steps of the whole run so far.
        losses, agreements: of each step of an epoch; agreement is the share of views on which the network and the
            teacher predict the same class.
        note: deviation from the configuration; empty without one.
    """

    stage: RecoveryStage
    network: nn.Module
    step: int
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    agreements: np.ndarray = field(default_factory=lambda: np.empty(0))
    note: str = ""


@dataclass
class RecoveryState:
    """The progress of a run.

    Attributes:
        network: the network with all changes so far.
        stage: number of the stage that is next or in progress.
        epoch: the next epoch in it.
        step: number of distillation steps done.
        optimizer: its state within a stage, by parameter; empty at a stage's beginning.
    """

    network: nn.Module
    stage: int = 0
    epoch: int = 0
    step: int = 0
    optimizer: dict[int, dict[str, Tensor]] | None = None


class Recovery(ABC, Generic[Config]):
    """A recovery run: the same arguments give the same network, however often the run is stopped and resumed.

    A subclass defines its own stages (`change`), and how its network is described and rebuilt (`describe`, `rebuild`).

    Args:
        config: the run's configuration; settings of processes are ignored.
        teacher: on the device to compute on; stays unchanged.
        images: uint8 [N,C,H,W], all of them.
        stages: the run's stages, in order.
        network: the network that the run starts with.
        folder: the folder for checkpoints, one after each stage and each epoch; None: no checkpoints.
        store: the store in which added images are committed; None: no store.
        report: called after each stage and each epoch.
        on_work: called repeatedly with the whole run's distillation steps so far, which need not have grown.

    Attributes:
        name: name of the kind of run, for seeds and messages.
        checkpoint: name of the file that a run is resumed from.
    """

    name: str
    checkpoint: str

    def __init__(
        self,
        config: Config,
        teacher: Teacher,
        images: np.ndarray,
        stages: Sequence[RecoveryStage],
        network: nn.Module,
        folder: Folder | None,
        store: ShardStore | None,
        report: Callable[[StageReport], None],
        on_work: Callable[[int], None],
    ) -> None:
        self._config, self._teacher, self._images, self._stages = config, teacher, images, stages
        self._folder, self._store, self.report, self._on_work = folder, store, report, on_work
        self._learned = LearnedStates(None if store is None else store.folder, keep=None)
        self._state = RecoveryState(network)
        self._added: dict[BatchId, ImageBatch] = {}

    @abstractmethod
    def change(self, stage: RecoveryStage) -> None:
        """Do a stage that is neither distillation nor adding images: replace the network and report it."""

    @abstractmethod
    def describe(self, network: nn.Module) -> dict[str, str]:
        """Return all that `rebuild` needs of a network besides its weights."""

    @abstractmethod
    def rebuild(self, description: Mapping[str, str]) -> nn.Module:
        """Build a network from its description, on the teacher's device, with any weights."""

    @property
    def step(self) -> int:
        """Return the number of distillation steps so far."""
        return self._state.step

    def run(self) -> nn.Module:
        """Do all remaining stages; returns the network, in eval mode."""
        state = self._state = self._restored() or self._state
        act = {"distill": self._distil, "add": self._add}
        while state.stage < len(self._stages):
            stage = self._stages[state.stage]
            act.get(stage.kind, self.change)(stage)
            state.stage, state.epoch, state.optimizer = state.stage + 1, 0, None
            self._save()
        self._all_images()  # of which some may have been damaged since
        return state.network.eval()

    def distiller(self, stage: RecoveryStage, total_steps: int, seed: int) -> Distiller:
        """Build the distiller of a stage with the given number of steps."""
        student = replace(self._config.student, decay=stage.decay)
        return Distiller(self._teacher, self._state.network, student, total_steps, seed)

    def _distil(self, stage: RecoveryStage) -> None:
        state = self._state
        images = self._all_images()
        epochs = Epochs(len(images), min(self._config.student.batch_size, len(images)), stage.epochs)
        seed = derive_seed(self._config.seed, self.name, stage.index)
        state.network.requires_grad_(True)
        distiller = self.distiller(stage, epochs.total_steps, seed)
        if state.optimizer is not None:
            groups = distiller.optimizer.state_dict()["param_groups"]
            distiller.optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        while state.epoch < epochs.count:
            first = state.epoch * epochs.steps
            rows = permuted_epoch(seed, state.epoch, epochs.images, epochs.steps)
            learned = []
            for at, each in enumerate(rows):
                learned.append(distiller.step(torch.from_numpy(images[each]), first + at))
                self._on_work(state.step + at + 1)
            state.epoch, state.step = state.epoch + 1, state.step + epochs.steps
            state.optimizer = distiller.optimizer.state_dict()["state"]
            if state.epoch < epochs.count:
                self._save()
            losses, agreements = (torch.stack(values).cpu().numpy() for values in zip(*learned, strict=True))
            self.report(StageReport(stage, state.network, state.step, losses, agreements))

    def _add(self, stage: RecoveryStage) -> None:
        for batch in self._batches_of(stage):
            self._batch(batch)
        self.report(StageReport(stage, self._state.network, self._state.step))

    def _batches_of(self, stage: RecoveryStage) -> list[BatchId]:
        return [BatchId(stage.index + 1, index) for index in range(self._config.additions.batches)]

    def _batch(self, batch: BatchId) -> ImageBatch:
        """Return a batch that competes with the current network: stored before, or made now."""
        if batch in self._added:
            return self._added[batch]
        if self._store is not None and self._store.has(batch):
            self._added[batch] = self._store.read(batch)
        else:
            build = functools.partial(copy.deepcopy, self._state.network)
            kept = None if self._store is None else Checkpointing(UnfinishedBatches(self._store.folder), lockstep=True)
            synthesis, states = self._config.synthesis, self._learned
            maker = BatchMaker(self.name, self._teacher, synthesis, build, states=states, checkpointing=kept)
            snapshot = Snapshot(self._state.step, to_arrays(self._state.network))
            made = maker.make(self._order(batch), snapshot, None, lambda share: self._on_work(self._state.step))
            self._added[batch] = made.batch
            if self._store is not None:
                self._store.write(self._added[batch])
                UnfinishedBatches(self._store.folder).delete(batch)
        return self._added[batch]

    def _order(self, batch: BatchId) -> Order:
        config, count = self._config, self._config.synthesis.batch_size
        batches = [each for stage in self._stages if stage.kind == "add" for each in self._batches_of(stage)]
        position = batches.index(batch)
        classes, first = config.teacher.classes, position * count
        targets = choose_targets(config.synthesis.targets, classes, first, count, config.seed)
        after = predecessor(batches.__getitem__, position, config.synthesis)
        return Order(batch, targets, derive_seed(config.seed, "synthesis", batch.index, batch.round), after)

    def _all_images(self) -> np.ndarray:
        """Return the run's given images and those of the rounds so far."""
        rounds = [stage for stage in self._stages[: self._state.stage] if stage.kind == "add"]
        added = [self._batch(batch).images for stage in rounds for batch in self._batches_of(stage)]
        return np.concatenate([self._images, *added]) if added else self._images

    def _save(self) -> None:
        if self._folder is None:
            return
        state, optimizer = self._state, self._state.optimizer or {}
        tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
        for index, values in optimizer.items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
        content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        metadata = {
            "progress": json.dumps({"stage": state.stage, "epoch": state.epoch, "step": state.step}),
            **self.describe(state.network),
            "fingerprint": _fingerprint(content),
        }
        self._folder.write(self.checkpoint, safetensors.torch.save(content, metadata))

    def _restored(self) -> RecoveryState | None:
        """Restore the last checkpoint; a damaged one is quarantined, and the run starts from scratch."""
        if self._folder is None or not self._folder.has(self.checkpoint):
            return None
        try:
            return self._read(self._folder.read(self.checkpoint))
        except (ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            name = damaged_name(self.checkpoint)
            self._folder.rename(self.checkpoint, name)
            note = f"the checkpoint is damaged ({first_line(error)}): it is kept as {name}, and {self.name} starts over"
            self.report(StageReport(self._stages[0], self._state.network, 0, note=note))
            return None

    def _read(self, content: bytes) -> RecoveryState:
        """Read a checkpoint; raises one of many errors where it is damaged."""
        tensors = safetensors.torch.load(content)
        metadata = metadata_of(content)
        if metadata["fingerprint"] != _fingerprint(tensors):
            raise ValueError("its weights are not those that were written")
        network = self.rebuild(metadata)
        own = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
        network.load_state_dict(own)
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, index, *rest = name.split(".")
            if kind == "optimizer":
                optimizer.setdefault(int(index), {})[rest[0]] = value
        return RecoveryState(network, optimizer=optimizer or None, **json.loads(metadata["progress"]))


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint({name: value.numpy() for name, value in tensors.items()})
