"""A teacher's training: the bits of version 0.1, exact resumption, and the parts of several workers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from raydream.augmentation import random_flip, random_shift
from raydream.config import TeacherConfig, TeacherJobConfig, TrainingConfig
from raydream.data.digits import load_digits
from raydream.data.splits import Split
from raydream.errors import DivergenceError, InputError
from raydream.networks import build_teacher
from raydream.runtime.checkpoints import steps_saved
from raydream.runtime.messages import StudentReport
from raydream.runtime.teaching import TeacherPlan
from raydream.runtime.training import learn
from raydream.seeds import derive_seed, generator
from raydream.store.folders import Folder, LocalFolder
from raydream.store.records import Snapshot
from raydream.supervised.training import LabeledFeed, begin_teacher, epochs_of, train_teacher
from raydream.teachers.normalization import Normalization
from raydream.teachers.teacher import fingerprint, to_arrays

TINY = TeacherConfig(arguments={"width": 4})
CPU = torch.device("cpu")


def some_digits(count: int = 150) -> Split:
    train = load_digits().train
    return Split(train.images[:count], train.labels[:count])


def loop_of_version_0_1(teacher: TeacherConfig, config: TrainingConfig, train: Split) -> nn.Module:
    """The training of version 0.1 as it was written, with torch's own schedule."""
    torch.manual_seed(derive_seed(config.seed, "teacher weights"))
    network, normalization = build_teacher(teacher), Normalization(teacher.mean, teacher.std)
    x, labels = normalization(torch.from_numpy(train.images)), torch.from_numpy(train.labels)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(x) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps)
    for epoch in range(1, config.epochs + 1):
        random = generator(config.seed, "teacher order", epoch)
        network.train()
        for rows in torch.split(torch.randperm(len(x), generator=random), config.batch_size):
            view = random_shift(x[rows], config.shift, normalization.valid_range()[0], random)
            loss = functional.cross_entropy(network(view), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network


def test_a_recipe_of_version_0_1_gives_its_teacher_to_the_bit() -> None:
    config = TrainingConfig(epochs=2, seed=3)
    one, other = (train(TINY, config, some_digits()) for train in (loop_of_version_0_1, train_teacher))
    assert fingerprint(to_arrays(one)) == fingerprint(to_arrays(other))
    assert not other.training and all(values.is_contiguous() for values in other.parameters())


def plain_loop(config: TrainingConfig, train: Split) -> nn.Module:
    """SGD, warm-up and cosine as a user writes them with torch alone; weights, order and views are the project's."""
    torch.manual_seed(derive_seed(config.seed, "teacher weights"))
    network = build_teacher(TINY).to(memory_format=torch.channels_last).train()
    x, labels = torch.tensor(train.images), torch.tensor(train.labels)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (TINY.mean, TINY.std))
    sgd = torch.optim.SGD(
        network.parameters(), config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    steps, warm_up = config.epochs * -(-len(x) // config.batch_size), config.warm_up
    rise = torch.optim.lr_scheduler.LinearLR(sgd, 1 / warm_up, total_iters=warm_up - 1)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps - warm_up)
    schedule = torch.optim.lr_scheduler.SequentialLR(sgd, [rise, fall], [warm_up])
    for epoch in range(1, config.epochs + 1):
        random = generator(config.seed, "teacher order", epoch)
        for rows in torch.split(torch.randperm(len(x), generator=random), config.batch_size):
            view = random_shift((x[rows].float() / 255 - mean) / std, config.shift, -mean / std, random)
            view = random_flip(view, random).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(view)
            loss = functional.cross_entropy(logits.float(), labels[rows], label_smoothing=config.label_smoothing)
            sgd.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            sgd.step()
            schedule.step()
    return network


def test_a_recipe_of_sgd_and_cosine_equals_a_plain_loop() -> None:
    """To the bit but for the learning rate, which torch's schedules accumulate in another order."""
    config = TrainingConfig(
        epochs=2, seed=3, batch_size=32, optimizer="sgd", learning_rate=0.05, weight_decay=5e-4, decay="cosine",
        warm_up=4, label_smoothing=0.1, flip=True, precision="bf16",
    )  # fmt: skip
    own, plain = train_teacher(TINY, config, some_digits()), plain_loop(config, some_digits())
    for one, other in zip(own.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other.contiguous(), rtol=1e-4, atol=1e-6)


class Killed(BaseException):
    """Ends a training as a kill does: without any warning to it."""


@dataclass
class Reports:
    """Takes a training's reports."""

    taken: list[StudentReport[Snapshot]] = field(default_factory=list)

    def put(self, item: StudentReport[Snapshot]) -> None:
        self.taken.append(item)


def trained(
    config: TrainingConfig, checkpoints: Folder, tell: Callable[[int], object] = lambda step: None
) -> list[StudentReport[Snapshot]]:
    split, reports = some_digits(), Reports()
    epochs = epochs_of(len(split.labels), config)
    learn(
        TeacherPlan(TeacherJobConfig(teacher=TINY, training=config), lambda: split, epochs, reports, tell), checkpoints
    )
    return reports.taken


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(epochs=3),
        TrainingConfig(
            epochs=3, optimizer="sgd", decay="cosine", warm_up=2, ema=0.9, flip=True, zoom=0.2, label_smoothing=0.1,
            class_weights="balanced", clip_norm=1.0,
        ),
    ],
    ids=["defaults", "all options"],
)  # fmt: skip
@pytest.mark.parametrize("killed_at", [2, 3, 5, 6])  # in the first epoch, at its end, in the second, at its end
def test_a_killed_training_resumes_to_the_same_weights_to_the_bit(
    config: TrainingConfig, killed_at: int, tmp_path: Path
) -> None:
    def kill(step: int) -> None:
        if step == killed_at:
            raise Killed

    straight, checkpoints = trained(config, LocalFolder(tmp_path / "straight")), LocalFolder(tmp_path / "killed")
    with pytest.raises(Killed):
        trained(config, checkpoints, kill)
    resumed_at = steps_saved(checkpoints)
    assert resumed_at == (killed_at - 1) // 3 * 3  # three steps an epoch; the checkpoint of an end comes after its step
    resumed = trained(config, checkpoints)
    assert resumed[-1].snapshot.step == straight[-1].snapshot.step == 9
    assert fingerprint(resumed[-1].snapshot.state) == fingerprint(straight[-1].snapshot.state)
    losses = [report.losses.tolist() for report in straight]
    assert [report.losses.tolist() for report in resumed if len(report.losses)] == losses[resumed_at // 3 :]


def test_a_training_that_is_done_reports_what_was_learned_and_repeats_nothing(tmp_path: Path) -> None:
    config, checkpoints = TrainingConfig(epochs=2), LocalFolder(tmp_path)
    first = trained(config, checkpoints)
    (again,) = trained(config, checkpoints)
    assert not len(again.losses) and fingerprint(again.snapshot.state) == fingerprint(first[-1].snapshot.state)
    alone = train_teacher(TINY, config, some_digits())
    assert fingerprint(to_arrays(alone)) == fingerprint(first[-1].snapshot.state)


EPOCHS = [
    # (images, batch size, workers): images of an epoch, steps
    ((997, 64, 1), 997, 16),
    ((129, 64, 1), 128, 2),
    ((130, 64, 1), 130, 3),
    ((131, 64, 2), 128, 2),
    ((132, 64, 2), 132, 3),
    ((5, 64, 2), 5, 1),
    ((3, 64, 2), 3, 1),
]


@pytest.mark.parametrize(("given", "images", "steps"), EPOCHS)
def test_a_last_step_that_is_too_small_for_its_workers_is_left_out(
    given: tuple[int, int, int], images: int, steps: int
) -> None:
    count, batch_size, workers = given
    epochs = epochs_of(count, TrainingConfig(batch_size=batch_size, epochs=7), workers)
    assert (epochs.images, epochs.steps, epochs.total_steps) == (images, steps, 7 * steps)


def feed(rank: int, workers: int, images: int = 23) -> LabeledFeed:
    config, values = TrainingConfig(batch_size=8), torch.arange(images)
    return LabeledFeed(values, values, config, epochs_of(images, config, workers), rank, workers)


@pytest.mark.parametrize("epoch", [0, 1])
def test_workers_share_the_images_of_each_step_and_draw_views_of_their_own(epoch: int) -> None:
    parts = [list(feed(rank, 3).epoch(epoch)) for rank in range(3)]
    alone = list(feed(0, 1).epoch(epoch))
    for step, whole in enumerate(alone):
        together = torch.cat([part[step].labels for part in parts])
        assert torch.equal(together, whole.labels) and torch.equal(together, whole.images)
    assert sorted(torch.cat([batch.labels for batch in alone]).tolist()) == list(range(23))
    drawn = [torch.rand(1, generator=part[0].random).item() for part in parts]
    assert len({*drawn}) == 3


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(epoch: int, seed: int) -> list[int]:
        other = replace(feed(0, 1), config=TrainingConfig(batch_size=8, seed=seed))
        return torch.cat([batch.labels for batch in other.epoch(epoch)]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*each)) for each in ((0, 0), (1, 0), (0, 1))}) == 3


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(DivergenceError, match=r"the teacher diverged: lower training\.learning_rate"):
        train_teacher(TINY, TrainingConfig(epochs=2, optimizer="sgd", learning_rate=1e30), some_digits())


def test_weights_for_other_classes_are_refused_wherever_a_teacher_is_trained() -> None:
    config = TrainingConfig(class_weights=(1.0, 2.0))
    with pytest.raises(InputError, match=r"training\.class_weights = \[1\.0, 2\.0\]: must be balanced, none, or 10"):
        begin_teacher(TINY, config, some_digits(), CPU, lambda network: network)
