"""One step of class-incremental learning: a network with new classes from one without them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from raydream.applications.continual.images import OldClasses, invert
from raydream.applications.continual.methods import BothViews, LearningStep, Method
from raydream.applications.continual.widening import output_layer, widened
from raydream.buffer.sampler import permuted_epoch, uniform_draw
from raydream.compute import autocast, choose_dtype
from raydream.config import ContinualConfig, StudentConfig
from raydream.data.splits import Split
from raydream.errors import DivergenceError
from raydream.networks.observed import WithFeatures
from raydream.seeds import derive_seed, generator
from raydream.students.distillation import learning_rate, make_optimizer
from raydream.students.view import StudentView
from raydream.teachers.teacher import Teacher

OnEpoch = Callable[[int, float, nn.Module], None]


class ClassLearner:
    """Trains a copy of a network on new classes; a step depends only on its arguments and the state.

    Args:
        old: the network before the step, which stays unchanged.
        new: real images of the new classes, labeled from K0 on.
        method: the way to learn.
        config: the steps' configuration; `network` and settings of processes are ignored.
        epochs: total number of passes over the new images.
        seed: of all that is random.

    Attributes:
        network: the learning network.
        step: number of steps done.
    """

    def __init__(self, old: Teacher, new: Split, method: Method, config: StudentConfig, epochs: int, seed: int) -> None:
        classes, known = int(new.labels.max()) + 1, old.config.classes
        self._old, self._new, self._method, self._config, self._seed = old, new, method, config, seed
        self.network = widened(old.network, known, classes - known, derive_seed(seed, "weights"))
        self.network.requires_grad_(True)
        pairs = (old.network, known), (self.network, classes)
        self._both = [WithFeatures(network, output_layer(network, count)) for network, count in pairs]
        self._optimizer = make_optimizer(self.network, config)
        self._steps = -(-len(new.labels) // config.batch_size)
        self._epochs, self._dtype = epochs, choose_dtype(config.precision, old.device)
        self._view = StudentView(config.view, old.normalization)
        self.step = 0

    def learn(self, until: int, old_images: Split | None, on_epoch: OnEpoch = lambda *_: None) -> None:
        """Train until a number of epochs is done.

        Args:
            old_images: images of the old classes; None without them.
            on_epoch: called after each epoch with its number from 1, the mean loss, and the network.

        Raises:
            DivergenceError: the loss is not a finite number.
        """
        for epoch in range(self.step // self._steps, until):
            losses = []
            for rows in permuted_epoch(self._seed, epoch, len(self._new.labels), self._steps):
                drawn = None
                if old_images is not None:
                    drawn = _rows(old_images, uniform_draw(self._seed, self.step, len(old_images.labels), len(rows)))
                losses.append(self._update(_rows(self._new, rows), drawn))
                self.step += 1
            loss = float(torch.stack(losses).mean())
            if not math.isfinite(loss):
                raise DivergenceError(f"the learning diverged in epoch {epoch + 1}: lower student.learning_rate")
            on_epoch(epoch + 1, loss, self.network)
        self.network.eval()

    def _update(self, new: Split, old: Split | None) -> Tensor:
        self._optimizer.param_groups[0]["lr"] = learning_rate(self._config, self.step, self._epochs * self._steps)
        # One batch through the networks: BN then keeps statistics of old and new classes together.
        parts = [part for part in (old, new) if part is not None]
        images = torch.from_numpy(np.concatenate([part.images for part in parts])).to(self._old.device)
        random = generator(self._seed, "view", self.step)
        view = self._view(images, random)
        view = view.contiguous(memory_format=torch.channels_last)
        self.network.train()
        torch.manual_seed(derive_seed(self._seed, "dropout", self.step))  # of networks that have any
        with autocast(self._dtype, view.device):
            with torch.no_grad():
                old_logits, old_features = self._both[0](view)
            logits, features = self._both[1](view)
        outputs = old_logits.float(), logits.float(), old_features.float(), features.float()
        seen, first = [], 0
        for part in parts:
            rows = slice(first, first + len(part.labels))
            classes = torch.from_numpy(part.labels).to(view.device)
            seen.append(BothViews(outputs[0][rows], outputs[1][rows], outputs[2][rows], outputs[3][rows], classes))
            first = rows.stop
        step = LearningStep(seen[-1], seen[0] if old is not None else None, self._both[1].head, self._both[0].head)
        loss = self._method.loss(step)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self._config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_norm)
        self._optimizer.step()
        return loss.detach()


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a step of learning; both do nothing by default.

    Attributes:
        epoch: see `ClassLearner.learn`.
        made: called with the share of images that are made, in [0, 1].
    """

    epoch: OnEpoch = lambda *_: None
    made: Callable[[float], None] = lambda share: None


def learn_classes(
    config: ContinualConfig,
    method: Method,
    old: Teacher,
    new: Split,
    real: Split | None,
    seed: int,
    callbacks: Callbacks,
) -> tuple[nn.Module, Split | None]:
    """Train a network that knows the new classes and, as far as the method allows, the old ones.

    Where images compete with the learning network, half of them are made before training, and half in the middle of it.

    Args:
        old: the previous step's network, with its BN statistics, in eval mode.
        new: real images of the new classes, labeled from K0 on.
        real: real images of the old ones; only oracles use them.
        seed: the step's seed.

    Returns:
        the network in eval mode, and the images of the old classes.

    Raises:
        SynthesisError: the inversion diverged.
    """
    learner = ClassLearner(old, new, method, config.student, config.epochs, derive_seed(seed, "learning"))
    if method.images != "made":
        images = real if method.images == "real" else None
        learner.learn(config.epochs, images, callbacks.epoch)
        return learner.network, images
    classes = old.config.classes
    count, synthesis = classes * config.images_per_class, replace(config.synthesis, method=method.synthesizer)
    if not synthesis.competes:
        images = invert(old, synthesis, count, derive_seed(seed, "images"), on_progress=callbacks.made)
        learner.learn(config.epochs, images, callbacks.epoch)
        return learner.network, images
    first = invert(
        old, synthesis, count // 2, derive_seed(seed, "images"), on_progress=lambda share: callbacks.made(share / 2)
    )
    learner.learn(config.epochs // 2, first, callbacks.epoch)
    rival, rest = OldClasses(learner.network, classes), derive_seed(seed, "competing images")
    second = invert(old, synthesis, count - count // 2, rest, rival, lambda share: callbacks.made((1 + share) / 2))
    images = Split(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))
    learner.learn(config.epochs, images, callbacks.epoch)
    return learner.network, images


def _rows(split: Split, rows: np.ndarray) -> Split:
    return Split(split.images[rows], split.labels[rows])
