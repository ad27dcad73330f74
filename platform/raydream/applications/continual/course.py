"""A whole sequence of steps in one process, without Ray; each is initialized from the previous step's network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from raydream.applications.continual.learning import Callbacks, learn_classes
from raydream.applications.continual.measures import confusion_matrix
from raydream.applications.continual.methods import METHODS
from raydream.applications.continual.widening import build_widened
from raydream.config import ContinualConfig, DataConfig
from raydream.data import Dataset, load_data
from raydream.data.splits import Split
from raydream.errors import InputError
from raydream.seeds import derive_seed
from raydream.teachers.teacher import Teacher, make_teacher


@dataclass(frozen=True)
class Group:
    """Real images of classes that join together, labeled by the network's outputs.

    Attributes:
        train: empty where no method learns from them: the teacher's classes, where there is no oracle.
    """

    train: Split
    validation: Split
    test: Split


def load_groups(config: ContinualConfig) -> list[Group]:
    """Load the data of the teacher's classes and of each step's classes.

    The old classes' training images are read only for the oracles.

    Raises:
        InputError: data are missing, or do not fit the network.
    """
    groups, first = [], 0
    oracles = any(METHODS[method].images == "real" for method in config.methods)
    for index, data in enumerate((config.data, *config.steps)):
        classes = len(data.classes) if index else config.teacher.classes
        try:
            real = _data(config, data, classes)
            train = real.train if index or oracles else Split(real.test.images[:0], real.test.labels[:0])
            parts = [_moved(part, first) for part in (train, real.validation, real.test)]
        except InputError as error:
            if index == 0:
                raise
            field = f"steps.{index - 1}.{error.field.removeprefix('data.')}"
            raise InputError(field, error.value, error.allowed, error.remedy) from error
        groups.append(Group(*parts))
        first += classes
    return groups


def _data(config: ContinualConfig, data: DataConfig, classes: int) -> Dataset:
    real = load_data(data, config.teacher, classes)
    assert real is not None  # as the configuration has seen
    return real


def _moved(split: Split, first: int) -> Split:
    return Split(split.images, split.labels + first)


def joined(splits: list[Split]) -> Split:
    """Join several splits."""
    return Split(np.concatenate([each.images for each in splits]), np.concatenate([each.labels for each in splits]))


def at_most(split: Split, per_class: int, seed: int) -> Split:
    """Draw at most a given number of images of each class, by a seed."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(split.labels == label))[:per_class] for label in np.unique(split.labels)]
    chosen = np.sort(np.concatenate(rows))
    return Split(split.images[chosen], split.labels[chosen])


@dataclass(frozen=True)
class LearnedStep:
    """The result of a step.

    Attributes:
        step: its number from 1.
        network: in eval mode.
        confusion: int64 [K,K] on the test images of all classes that it has met.
        curve: after each epoch its number, the mean loss, and the shares of old and of new validation images that are
            classified correctly.
        images: uint8 [K0,C,H,W], one image per old class of those that represented them; None without such images.
    """

    step: int
    network: nn.Module
    confusion: np.ndarray
    curve: list[dict[str, float]]
    images: np.ndarray | None


class Course:
    """The steps of one method from one seed.

    Args:
        config: the configuration of all methods.
        method: key of `METHODS`.
        seed: this course's seed.
        teacher: the network that knows the first group, on the device to compute on.
        groups: see `load_groups`.
        on_progress: called with the share of the course that is done, in [0, 1].
    """

    def __init__(
        self,
        config: ContinualConfig,
        method: str,
        seed: int,
        teacher: Teacher,
        groups: list[Group],
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        self._config, self._method, self._seed, self._groups = config, METHODS[method], seed, groups
        self._teacher, self._on_progress = teacher, on_progress
        self.sizes = [config.teacher.classes, *(len(step.classes) for step in config.steps)]

    def steps(self, done: int = 0, state: dict[str, torch.Tensor] | None = None) -> Iterator[LearnedStep]:
        """Take the steps one after another.

        Args:
            done: number of steps taken before.
            state: weights and BN statistics after the last of these.

        Raises:
            DivergenceError: the inversion or the learning diverged.
        """
        network = self._teacher.network
        if state is not None:
            network = build_widened(self._config.teacher, sum(self.sizes[: done + 1]))
            network.load_state_dict(state)
            network = network.to(self._teacher.device)
        for step in range(done + 1, len(self._groups)):
            learned = self._step(step, network)
            network = learned.network
            yield learned

    def _step(self, step: int, network: nn.Module) -> LearnedStep:
        classes = sum(self.sizes[:step])
        description = replace(self._config.teacher, classes=classes)
        old = make_teacher(network, description).to(self._teacher.device)
        seed = derive_seed(self._seed, "continual", step)
        before, after = self._groups[:step], self._groups[: step + 1]
        curve: list[dict[str, float]] = []

        def on_epoch(epoch: int, loss: float, learning: nn.Module) -> None:
            shares = [self._share(learning, groups) for groups in (before, after[step:])]
            curve.append({"epoch": epoch, "loss": loss, "old": shares[0], "new": shares[1]})
            self._on_progress((step - 0.5 + 0.5 * epoch / self._config.epochs) / (len(self._groups) - 1))

        def on_made(share: float) -> None:
            self._on_progress((step - 1 + 0.5 * share) / (len(self._groups) - 1))

        real = None
        if self._method.images == "real":
            real = joined([each.train for each in before])
            real = at_most(real, self._config.images_per_class, derive_seed(seed, "real images"))
        callbacks = Callbacks(on_epoch, on_made)
        learned, images = learn_classes(
            self._config, self._method, old, self._groups[step].train, real, seed, callbacks
        )
        test = joined([group.test for group in after])
        confusion = confusion_matrix(learned, old.normalization, test, classes + self.sizes[step])
        shown = None
        if images is not None:
            one = at_most(images, 1, 0)
            shown = one.images[np.argsort(one.labels)]
        return LearnedStep(step, learned, confusion, curve, shown)

    def _share(self, network: nn.Module, groups: list[Group]) -> float:
        split = joined([group.validation for group in groups])
        counts = confusion_matrix(network, self._teacher.normalization, split, sum(self.sizes))
        return float(np.trace(counts) / counts.sum())
