"""The supervised step against references that are computed another way: by hand in float64, and by torch's schedule."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydream.config import TrainingConfig
from raydream.seeds import generator
from raydream.supervised.step import LabeledBatch, SupervisedLearning, class_weights, one_cycle
from raydream.teachers.normalization import Normalization

CLASSES = 3
LABELS = np.array([0, 2, 2, 1, 2, 0])
PLAIN = {"shift": 0, "optimizer": "sgd", "decay": "cosine", "weight_decay": 0.0}


def images(count: int = len(LABELS), side: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 1, side, side), dtype=np.uint8))


def linear_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES))


def learning(network: nn.Module, config: TrainingConfig, steps: int = 10) -> SupervisedLearning:
    weights = class_weights(config, LABELS, CLASSES)
    return SupervisedLearning(network, config, Normalization((0.3,), (0.35,)), weights, steps)


def batch() -> LabeledBatch:
    return LabeledBatch(images(), torch.from_numpy(LABELS), generator(0, "views"))


def slow_loss(network: nn.Module, smoothing: float, weights: list[float]) -> tuple[float, np.ndarray]:
    """The loss, and its gradient by the weight of the linear layer, by loops in float64."""
    x = (images().numpy().reshape(len(LABELS), -1) / 255.0 - 0.3) / 0.35
    weight, bias = (values.detach().double().numpy() for values in network[1].parameters())
    whole = sum(weights[label] for label in LABELS)
    loss, gradient = 0.0, np.zeros_like(weight)
    for row, label in zip(x, LABELS, strict=True):
        exponentials = np.exp(weight @ row + bias)
        p = exponentials / exponentials.sum()
        q = [smoothing / CLASSES + (1 - smoothing) * (k == label) for k in range(CLASSES)]
        loss -= sum(weights[k] * q[k] * np.log(p[k]) for k in range(CLASSES)) / whole
        heavy = sum(weights[k] * q[k] for k in range(CLASSES))
        for k in range(CLASSES):
            gradient[k] += (p[k] * heavy - weights[k] * q[k]) * row / whole
    return loss, gradient


@pytest.mark.parametrize(
    ("settings", "smoothing", "weights"),
    [
        ({}, 0.0, [1.0, 1.0, 1.0]),
        ({"label_smoothing": 0.2}, 0.2, [1.0, 1.0, 1.0]),
        ({"class_weights": (0.5, 3.0, 1.0)}, 0.0, [0.5, 3.0, 1.0]),
        ({"class_weights": "balanced", "label_smoothing": 0.1}, 0.1, [6 / (3 * 2), 6 / (3 * 1), 6 / (3 * 3)]),
    ],
)
def test_loss_and_update_equal_a_slow_reference(settings: dict, smoothing: float, weights: list[float]) -> None:
    network = linear_network()
    loss, gradient = slow_loss(network, smoothing, weights)
    before = network[1].weight.detach().double().numpy().copy()
    config = TrainingConfig(learning_rate=0.25, **PLAIN, **settings)
    found, _ = learning(network, config).step(batch(), 0)
    assert found.item() == pytest.approx(loss, rel=1e-5)
    # The momentum buffer of Nesterov's first step is the gradient.
    np.testing.assert_allclose(network[1].weight.detach().numpy(), before - 0.25 * 1.9 * gradient, rtol=1e-4, atol=1e-6)


def test_the_share_named_right_is_that_before_the_update() -> None:
    network = linear_network()
    x = (images().double().flatten(1) / 255 - 0.3) / 0.35
    right = (x @ network[1].weight.double().T + network[1].bias.double()).argmax(1).numpy() == LABELS
    _, share = learning(network, TrainingConfig(learning_rate=9.0, **PLAIN)).step(batch(), 0)
    assert 0 < right.mean() < 1 and share.item() == pytest.approx(right.mean())


def test_balanced_weights_are_one_on_average_and_finite_without_images_of_a_class() -> None:
    weights = class_weights(TrainingConfig(class_weights="balanced"), np.array([0, 0, 0, 2]), 3)
    assert weights is not None and weights.tolist() == pytest.approx([4 / 9, 4 / 3, 4 / 3])
    assert class_weights(TrainingConfig(), LABELS, 3) is None


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 480])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_cycle_is_torchs_to_the_bit(optimizer: str, total: int) -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    theirs = torch.optim.AdamW(weights) if optimizer == "adamw" else torch.optim.SGD(weights, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.01, total_steps=total)
    ours = learning(linear_network(), TrainingConfig(optimizer=optimizer), total)
    for step in range(total):
        group = theirs.param_groups[0]
        momentum = group["betas"][0] if optimizer == "adamw" else group["momentum"]
        assert one_cycle(0.01, step, total) == (group["lr"], momentum)
        settings = ours.optimizer_settings(step)
        assert {name: group[name] for name in settings} == settings
        theirs.step()
        if step + 1 < total:
            schedule.step()


def test_cosine_rises_over_the_warm_up_and_falls_to_zero() -> None:
    config = TrainingConfig(learning_rate=0.4, decay="cosine", warm_up=4)
    rates = [learning(linear_network(), config, 24).learning_rate(step) for step in range(25)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[14] == pytest.approx(0.2) and rates[24] == pytest.approx(0.0)
    assert learning(linear_network(), config, 24).optimizer_settings(7).keys() == {"lr"}


def views(settings: dict) -> tuple[Tensor, Tensor]:
    """What the network sees of images 8 pixels wide, and the images as the network would see them unchanged."""
    network, seen = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)), []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    shown = LabeledBatch(images(side=8), torch.from_numpy(LABELS), generator(0, "view"))
    learning(network, TrainingConfig(**settings)).step(shown, 0)
    return seen[0], Normalization((0.3,), (0.35,))(shown.images)


def test_half_of_the_images_are_mirrored_where_that_is_asked_for() -> None:
    view, plain = views({"shift": 0, "flip": True})
    kinds = {"plain": [torch.equal(*pair) for pair in zip(view, plain, strict=True)]}
    kinds["mirrored"] = [torch.equal(seen, image.flip(2)) for seen, image in zip(view, plain, strict=True)]
    assert any(kinds["plain"]) and any(kinds["mirrored"])
    assert all(a != b for a, b in zip(*kinds.values(), strict=True))


@pytest.mark.parametrize("settings", [{"shift": 2}, {"shift": 0, "zoom": 0.3}])
def test_views_are_cropped_where_that_is_asked_for(settings: dict) -> None:
    view, plain = views(settings)
    assert view.shape == plain.shape and not torch.equal(view, plain)


def test_the_average_is_what_was_learned() -> None:
    network = linear_network()
    averaged = learning(network, TrainingConfig(ema=0.5, **PLAIN))
    before = network[1].weight.detach().clone()
    averaged.step(batch(), 0)
    kept = 1 / 10  # of the first step, which forgets faster
    expected = kept * before + (1 - kept) * network[1].weight.detach()
    torch.testing.assert_close(averaged.learned[1].weight, expected)
    assert learning(network, TrainingConfig(**PLAIN)).learned is network


def test_precision_bf16_computes_in_bf16_and_keeps_weights_in_fp32() -> None:
    network, seen = linear_network(), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss, _ = learning(network, TrainingConfig(precision="bf16", **PLAIN)).step(batch(), 0)
    assert seen == [torch.bfloat16] and loss.dtype == torch.float32
    assert all(values.dtype == torch.float32 for values in network.parameters())
