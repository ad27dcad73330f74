"""Data-free pruning (section 4.3): channels go step by step, and the network recovers by distillation on images."""

import copy
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from raydream.buffer.sampler import permuted_epoch, uniform_draw
from raydream.config import PruneConfig, TeacherConfig
from raydream.errors import first_line
from raydream.networks import PRUNED, build_teacher
from raydream.networks.pruned import parse_widths, resized, widths_of, widths_text, with_selected_shortcuts
from raydream.pruning import costs
from raydream.pruning.checks import cost_of
from raydream.pruning.importance import CRITERIA, Evidence
from raydream.pruning.latency_table import LatencyTable
from raydream.pruning.ranking import Rule, choose_channels
from raydream.pruning.streams import find_streams, remove
from raydream.schedule import Epochs, predecessor
from raydream.seeds import derive_seed
from raydream.store.atomic import damaged_name
from raydream.store.folders import Folder
from raydream.store.learned import LearnedStates
from raydream.store.records import BatchId, ImageBatch, Order, Snapshot
from raydream.store.safetensors_file import metadata_of
from raydream.store.shards import ShardStore
from raydream.students.distillation import Distiller
from raydream.synthesis.batch import BatchMaker
from raydream.targets import choose_targets
from raydream.teachers.teacher import Teacher, fingerprint, to_arrays

CHECKPOINT = "pruned.safetensors"


@dataclass(frozen=True)
class Stage:
    """What is done in one go.

    Attributes:
        kind: remove channels, distil, or add images.
        index: of its kind, from 0; for add, the round.
        epochs: of distillation.
        decay: of the learning rate over them.
    """

    kind: Literal["remove", "distil", "add"]
    index: int
    epochs: int = 0
    decay: Literal["constant", "cosine", "step"] = "constant"


def stages_of(config: PruneConfig) -> list[Stage]:
    """All stages in order; they follow from the configuration alone."""
    pruning, additions, last = config.pruning, config.additions, config.student.decay
    stages: list[Stage] = []
    for step in range(pruning.steps):
        ends = step == pruning.steps - 1
        epochs, decay = (pruning.epochs, last) if ends else (pruning.between_epochs, "constant")
        stages += [Stage("remove", step), Stage("distil", step, epochs, decay)]
    for added in range(additions.rounds):
        stages += [Stage("add", added), Stage("distil", pruning.steps + added, additions.epochs, last)]
    return [stage for stage in stages if stage.kind != "distil" or stage.epochs]


def total_steps(config: PruneConfig, images: int) -> int:
    """Distillation steps of the whole run on so many images, and on those that are added."""
    steps = 0
    for stage in stages_of(config):
        if stage.kind == "add":
            images += config.additions.batches * config.synthesis.batch_size
        steps += Epochs(images, min(config.student.batch_size, images), stage.epochs).total_steps
    return steps


def described(teacher: TeacherConfig, network: nn.Module) -> TeacherConfig:
    """What is left of a teacher as a network that `build_network` builds; its weights are named by nothing."""
    arguments = dict(teacher.arguments)
    of = arguments.pop("of") if teacher.network == PRUNED else teacher.network
    arguments |= {"of": of, "widths": widths_text(widths_of(network))}
    return replace(teacher, network=PRUNED, arguments=arguments, checkpoint=None)


def build_pruned(teacher: TeacherConfig, widths: str) -> nn.Module:
    """A teacher's network with other widths of its layers, without its weights.

    Args:
        widths: as `widths_text` writes them.
    """
    return resized(build_teacher(teacher), parse_widths(widths)).eval()


@dataclass(frozen=True)
class Told:
    """What has just been done.

    Attributes:
        stage: in which.
        network: as it is now; changes as the run goes on.
        step: distillation steps of the whole run so far.
        losses, agreements: of each step of an epoch; agreement is the share of views on which the network and the
            teacher name the same class.
        note: what did not go as asked; empty otherwise.
    """

    stage: Stage
    network: nn.Module
    step: int
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    agreements: np.ndarray = field(default_factory=lambda: np.empty(0))
    note: str = ""


@dataclass
class State:
    """How far a run is.

    Attributes:
        network: pruned so far.
        stage: number of the stage that comes, or goes on.
        epoch: that it goes on with.
        step: distillation steps behind it.
        optimizer: its state within a stage, by parameter; empty at a stage's beginning.
    """

    network: nn.Module
    stage: int = 0
    epoch: int = 0
    step: int = 0
    optimizer: dict[int, dict[str, Tensor]] | None = None


class Pruning:
    """A run: the same network for the same arguments, however often it is stopped and gone on with.

    Args:
        config: of the run; what it says of processes is not looked at.
        teacher: on the device to compute on; is left alone.
        images: uint8 [N,C,H,W], all of them.
        folder: of the checkpoints, one after each removal and each epoch; None: none are kept.
        store: where images that are added are committed; None: nowhere.
        tell: called after each removal, each epoch and each round of images.
        on_work: called now and then with the distillation steps of the whole run so far, which need not have grown.
    """

    def __init__(
        self,
        config: PruneConfig,
        teacher: Teacher,
        images: np.ndarray,
        folder: Folder | None = None,
        store: ShardStore | None = None,
        tell: Callable[[Told], None] = lambda told: None,
        on_work: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._config, self._teacher, self._images = config, teacher, images
        self._folder, self._store, self.tell, self._on_work = folder, store, tell, on_work
        self._learned = LearnedStates(None if store is None else store.folder, keep=None)
        self._stages = stages_of(config)
        self._shape = config.teacher.input_shape
        original = with_selected_shortcuts(_copy(teacher))
        self._cost = cost_of(config.pruning.of, original, self._shape)
        self._all = costs.total(self._cost, widths_of(original))
        self._state = State(original)
        self._added: dict[BatchId, ImageBatch] = {}

    @property
    def step(self) -> int:
        """Distillation steps so far."""
        return self._state.step

    def run(self) -> nn.Module:
        """Do all that is left to do; returns the pruned network, in eval mode."""
        state = self._state = self._restored() or self._state
        while state.stage < len(self._stages):
            stage = self._stages[state.stage]
            {"remove": self._remove, "distil": self._distil, "add": self._add}[stage.kind](stage)
            state.stage, state.epoch, state.optimizer = state.stage + 1, 0, None
            self._save()
        self._all_images()  # of which some may have been damaged since
        return state.network.eval()

    def _remove(self, stage: Stage) -> None:
        pruning, state = self._config.pruning, self._state
        streams, widths = find_streams(state.network, self._shape), widths_of(state.network)
        importance = CRITERIA[pruning.criterion](state.network, streams, self._evidence(stage))
        goal = self._all * (1.0 - pruning.ratio * (stage.index + 1) / pruning.steps)
        amount = costs.total(self._cost, widths) - goal
        rule, table = Rule(pruning.least, pruning.block, by_cost=pruning.of == "flops"), None
        if pruning.eta:
            folder = Path(pruning.latency_tables)
            size, news = pruning.latency_batch_size, functools.partial(self._on_work, state.step)
            table = LatencyTable(state.network, self._shape, size, folder, news)
            rule = replace(rule, latency=table, eta=pruning.eta)
        removed = choose_channels(streams, importance, widths, self._cost, amount, rule)
        if table is not None:
            table.save()
        state.network = remove(state.network, streams, removed)
        left = costs.total(self._cost, widths_of(state.network))
        note = ""
        if left > goal * (1.0 + 1e-9):
            why = "no other removal would make the network faster"
            note = f"{left / self._all:.1%} of the {pruning.of} stay and not {goal / self._all:.1%}: {why}"
        self.tell(Told(stage, state.network, state.step, note=note))

    def _evidence(self, stage: Stage) -> Evidence:
        batches = [torch.from_numpy(self._images[rows]) for rows in self._drawn(stage)]
        seed = derive_seed(self._config.seed, "importance", stage.index)
        return Evidence(self._teacher, batches, self._config.student.temperature, seed)

    def _drawn(self, stage: Stage) -> list[np.ndarray]:
        """Positions of the images in each batch that importance is measured on."""
        count, seed = self._config.pruning.batches, derive_seed(self._config.seed, "importance images", stage.index)
        return np.split(uniform_draw(seed, 0, len(self._images), count * self._config.student.batch_size), count)

    def _distil(self, stage: Stage) -> None:
        state, student = self._state, replace(self._config.student, decay=stage.decay)
        images = self._all_images()
        epochs = Epochs(len(images), min(student.batch_size, len(images)), stage.epochs)
        seed = derive_seed(self._config.seed, "pruning", stage.index)
        state.network.requires_grad_(True)
        distiller = Distiller(self._teacher, state.network, student, epochs.total_steps, seed)
        if state.optimizer is not None:
            groups = distiller.optimizer.state_dict()["param_groups"]
            distiller.optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        while state.epoch < epochs.count:
            first = state.epoch * epochs.steps
            rows = permuted_epoch(seed, state.epoch, epochs.images, epochs.steps)
            told = []
            for at, each in enumerate(rows):
                told.append(distiller.step(torch.from_numpy(images[each]), first + at))
                self._on_work(state.step + at + 1)
            state.epoch, state.step = state.epoch + 1, state.step + epochs.steps
            state.optimizer = distiller.optimizer.state_dict()["state"]
            if state.epoch < epochs.count:
                self._save()
            losses, agreements = (torch.stack(values).cpu().numpy() for values in zip(*told, strict=True))
            self.tell(Told(stage, state.network, state.step, losses, agreements))

    def _add(self, stage: Stage) -> None:
        for batch in self._batches_of(stage):
            self._batch(batch)
        self.tell(Told(stage, self._state.network, self._state.step))

    def _batches_of(self, stage: Stage) -> list[BatchId]:
        return [BatchId(stage.index + 1, index) for index in range(self._config.additions.batches)]

    def _batch(self, batch: BatchId) -> ImageBatch:
        """A batch that competes with the network as it is: made now, unless it has been made before."""
        if batch in self._added:
            return self._added[batch]
        if self._store is not None and self._store.has(batch):
            self._added[batch] = self._store.read(batch)
        else:
            build = functools.partial(copy.deepcopy, self._state.network)
            maker = BatchMaker("pruning", self._teacher, self._config.synthesis, build, states=self._learned)
            snapshot = Snapshot(self._state.step, to_arrays(self._state.network))
            made = maker.make(self._order(batch), snapshot, None, lambda share: self._on_work(self._state.step))
            self._added[batch] = made.batch
            if self._store is not None:
                self._store.write(self._added[batch])
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
        """Those that the run was given, and those of the rounds so far."""
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
            "widths": widths_text(widths_of(state.network)),
            "fingerprint": _fingerprint(content),
        }
        self._folder.write(CHECKPOINT, safetensors.torch.save(content, metadata))

    def _restored(self) -> State | None:
        """As the last checkpoint has it; a damaged one is set aside, and the run begins anew."""
        if self._folder is None or not self._folder.has(CHECKPOINT):
            return None
        try:
            return _read(self._folder.read(CHECKPOINT), _copy(self._teacher))
        except (ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            name = damaged_name(CHECKPOINT)
            self._folder.rename(CHECKPOINT, name)
            note = f"the checkpoint is damaged ({first_line(error)}): it is kept as {name}, and pruning begins anew"
            self.tell(Told(self._stages[0], self._state.network, 0, note=note))
            return None


def _copy(teacher: Teacher) -> nn.Module:
    return copy.deepcopy(teacher.network)


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint({name: value.numpy() for name, value in tensors.items()})


def _read(content: bytes, network: nn.Module) -> State:
    """A checkpoint; raises one of many errors where it is damaged."""
    tensors = safetensors.torch.load(content)
    metadata = metadata_of(content)
    if metadata["fingerprint"] != _fingerprint(tensors):
        raise ValueError("its weights are not those that were written")
    device = next(network.parameters()).device
    network = resized(network, parse_widths(metadata["widths"])).to(device)
    weights = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    network.load_state_dict(weights)
    optimizer: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, index, *rest = name.split(".")
        if kind == "optimizer":
            optimizer.setdefault(int(index), {})[rest[0]] = value
    return State(network, optimizer=optimizer or None, **json.loads(metadata["progress"]))
