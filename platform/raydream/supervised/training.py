"""The training of a teacher on labeled real images, by the loop that students learn by."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydream.compute import threads_that_pay
from raydream.config import TeacherConfig, TrainingConfig
from raydream.data.splits import Split
from raydream.errors import DivergenceError
from raydream.networks import build_teacher
from raydream.schedule import Epochs
from raydream.seeds import derive_seed, generator
from raydream.students.learning import learn_epochs
from raydream.supervised.step import LabeledBatch, SupervisedLearning, class_weights
from raydream.teachers.normalization import Normalization

CPU = torch.device("cpu")

LEAST_IMAGES = 2
"""of a worker in a step: batch normalization has no statistics of one image"""


def epochs_of(images: int, config: TrainingConfig, workers: int = 1) -> Epochs:
    """Return the passes over a number of images; a last step with too few images for the workers is left out."""
    rest = images % config.batch_size
    left_out = rest if rest < LEAST_IMAGES * workers and rest < images else 0
    return Epochs(images - left_out, config.batch_size, config.epochs)


@dataclass(frozen=True)
class LabeledFeed:
    """The labeled images of one worker's steps, in an order per epoch that follows from the seed.

    Attributes:
        images, labels: of all workers, uint8 [N,C,H,W] and int64 [N], in the memory of the training device.
        config: the recipe.
        epochs: passes over them.
        rank, workers: this worker's number, and the number of workers.
    """

    images: Tensor
    labels: Tensor
    config: TrainingConfig
    epochs: Epochs
    rank: int = 0
    workers: int = 1

    def epoch(self, epoch: int) -> Iterator[LabeledBatch]:
        """Yield this worker's part of each step of an epoch, numbered from 0."""
        random = generator(self.config.seed, "teacher order", epoch + 1)
        order = torch.randperm(len(self.images), generator=random)[: self.epochs.images].to(self.images.device)
        # All workers draw the same order; only the first draws its views where the order ends.
        views = generator(self.config.seed, "teacher view", epoch + 1, self.rank) if self.rank else random
        for rows in torch.split(order, self.config.batch_size):
            mine = torch.tensor_split(rows, self.workers)[self.rank]
            yield LabeledBatch(self.images[mine], self.labels[mine], views)


def begin_teacher(
    teacher: TeacherConfig,
    config: TrainingConfig,
    train: Split,
    device: torch.device,
    place: Callable[[nn.Module], nn.Module],
    rank: int = 0,
    workers: int = 1,
) -> tuple[SupervisedLearning, LabeledFeed]:
    """Return a network with fresh weights and its optimizer, and the images that it learns from.

    Args:
        train: labeled real images, at least two for each worker.
        device: to train on; all images lie in its memory.
        place: puts the network on the device, in its training wrapper.
        rank, workers: of this worker.

    Raises:
        InputError: the weights of classes are not one for each class.
    """
    config.check_classes(teacher.classes)
    torch.manual_seed(derive_seed(config.seed, "teacher weights"))
    network = place(build_teacher(teacher).to(memory_format=torch.channels_last))
    normalization = Normalization(teacher.mean, teacher.std).to(device)
    weights, epochs = (
        class_weights(config, train.labels, teacher.classes),
        epochs_of(len(train.labels), config, workers),
    )
    images, labels = (torch.tensor(values, device=device) for values in (train.images, train.labels))
    weights = None if weights is None else weights.to(device)
    learning = SupervisedLearning(network, config, normalization, weights, epochs.total_steps, rank)
    return learning, LabeledFeed(images, labels, config, epochs, rank, workers)


def trained(learning: SupervisedLearning) -> nn.Module:
    """Return what was learned as a network in eval mode, on the CPU, in the memory format of one that is loaded."""
    network = learning.learned.cpu().to(memory_format=torch.contiguous_format)
    return network.eval().requires_grad_(True)


def check_loss(loss: float) -> None:
    """Raise DivergenceError for a mean loss of an epoch that is not finite."""
    if not torch.tensor(loss).isfinite():
        raise DivergenceError("the teacher diverged: lower training.learning_rate, or set training.clip_norm")


def train_teacher(
    teacher: TeacherConfig, config: TrainingConfig, train: Split, device: torch.device = CPU
) -> nn.Module:
    """Train a network from scratch in this process alone; `raydream train` is the same with checkpoints and workers.

    Args:
        train: labeled real images.
        device: see `begin_teacher`.

    Returns:
        the network in eval mode, on the CPU.

    Raises:
        DivergenceError: the loss of an epoch is not finite.
    """
    learning, feed = begin_teacher(teacher, config, train, device, lambda network: network.to(device))
    losses: list[Tensor] = []

    def on_epoch(epoch: int) -> None:
        check_loss(torch.stack(losses).mean().item())
        losses.clear()

    def on_step(step: int, loss: Tensor, agreement: Tensor) -> None:
        losses.append(loss)

    with threads_that_pay(learning.student, teacher.input_shape, config.batch_size):
        learn_epochs(learning, feed.epochs, 0, feed.epoch, on_step, on_epoch)
    return trained(learning)
