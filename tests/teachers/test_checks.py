"""Which networks can be a teacher, and be inverted: all kinds of batch normalization, and all that have none."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from raydream.config import StageConfig, TeacherConfig
from raydream.errors import InputError
from raydream.losses.feature_statistics import FeatureDistances
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.digits import digits_network
from raydream.networks.observed import ObservedNetwork
from raydream.synthesis.checks import check_network
from raydream.teachers.checks import check_shapes, probe
from raydream.teachers.teacher import fingerprint, to_arrays
from tests.tiny import WIDTH, tiny_network, tiny_synthesis

DIGITS = TeacherConfig(arguments={"width": WIDTH})
ALL_METHODS = ("noise", "deepdream", "deep_inversion", "adaptive")
NEED_STATISTICS = ("deep_inversion", "adaptive")


def described(channels: int, height: int, width: int, classes: int = 10) -> TeacherConfig:
    shape = (channels, height, width)
    return TeacherConfig(input_shape=shape, mean=(0.5,) * channels, std=(0.5,) * channels, classes=classes)


COLOR = described(3, 8, 8)


def network_of(layer: nn.Module, bias: bool = False) -> nn.Sequential:
    """A small network for color images 8x8 with this layer behind its first convolution of four channels."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=bias), layer, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


def trained(network: nn.Module) -> nn.Module:
    """The network with running statistics as training leaves them."""
    for layer in batch_norm_layers(network).values():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return network


def refusal(network: nn.Module, config: TeacherConfig, **synthesis: object) -> InputError:
    with pytest.raises(InputError) as caught:
        check_network(network, config, tiny_synthesis(**synthesis), trained=True)
    assert "\n" not in str(caught.value)
    return caught.value


class Named(nn.Module):
    """A network that hands its images to its layer by name."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.linear = nn.BatchNorm2d(3), nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.bn(input=x).flatten(1))


class OwnNorm(nn.BatchNorm2d):
    """What timm and detection libraries derive from torch's."""


KINDS = {
    "1d of features": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.BatchNorm1d(10)),
    "1d of series": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(248, 10)
    ),
    "2d": lambda: network_of(nn.BatchNorm2d(4)),
    "2d without affine": lambda: network_of(nn.BatchNorm2d(4, affine=False)),
    "2d with a cumulative average": lambda: network_of(nn.BatchNorm2d(4, momentum=None)),
    "3d": lambda: nn.Sequential(nn.Unflatten(1, (1, 3)), nn.BatchNorm3d(1), nn.Flatten(), nn.Linear(192, 10)),
    "sync": lambda: network_of(nn.SyncBatchNorm(4)),
    "converted to sync": lambda: nn.SyncBatchNorm.convert_sync_batchnorm(network_of(nn.BatchNorm2d(4))),
    "frozen": lambda: network_of(FrozenBatchNorm2d(4)),
    "derived": lambda: network_of(OwnNorm(4)),
    "beside one without statistics": lambda: network_of(
        nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(2, 4))
    ),
}
AWKWARD = {
    "3d behind a convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(384, 10)
    ),
    "called by name": Named,
}


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=kind) for kind, make in KINDS.items()),
        pytest.param(AWKWARD["3d behind a convolution"], id="3d behind a convolution"),
        pytest.param(AWKWARD["called by name"], id="called by name"),
    ],
)
def test_every_kind_of_batch_normalization_is_found_and_can_be_inverted(make):
    torch.manual_seed(0)
    network = make()
    with_statistics = {name: m for name, m in batch_norm_layers(network).items() if m.running_mean is not None}
    assert len(with_statistics) == 1
    for layer in with_statistics.values():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    for method in ALL_METHODS:
        check_network(network, COLOR, tiny_synthesis(method=method), trained=True)
    observed = ObservedNetwork(network, statistics=True)
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    seen = observed(images)
    distances = FeatureDistances(observed)(seen.statistics)
    distances.sum().backward()
    assert seen.logits.shape == (4, 10) and list(observed.layers) == list(with_statistics)
    assert distances.item() > 0 and images.grad.abs().sum() > 0


def folded() -> nn.Module:
    network = trained(network_of(nn.BatchNorm2d(4))).eval()
    return nn.Sequential(fuse_conv_bn_eval(network[0], network[1]), *network[2:])


FOLDED = "biases in all its convolutions: BN was perhaps folded into them for inference"
UNTRACKED = "has BN layers that keep no running statistics (track_running_stats=False)"
WITHOUT = {
    "folded": (folded, FOLDED),
    "no statistics": (lambda: network_of(nn.BatchNorm2d(4, track_running_stats=False)), UNTRACKED),
    "no statistics, folded or not": (
        lambda: network_of(nn.BatchNorm2d(4, track_running_stats=False), bias=True),
        UNTRACKED,
    ),
    "group norm": (lambda: network_of(nn.GroupNorm(2, 4)), "has no BN layers;"),
    "group norm and biases": (lambda: network_of(nn.GroupNorm(2, 4), bias=True), "has no BN layers;"),
    "instance norm": (lambda: network_of(nn.InstanceNorm2d(4), bias=True), "has no BN layers;"),
    "instance norm with statistics": (
        lambda: network_of(nn.InstanceNorm2d(4, track_running_stats=True), bias=True),
        "has no BN layers;",
    ),
    "layer norm": (lambda: network_of(nn.LayerNorm(8), bias=True), "has no BN layers;"),
    "biases in one of two convolutions": (
        lambda: network_of(nn.Conv2d(4, 4, 1, bias=True)),
        "has no BN layers;",
    ),
    "no normalization": (lambda: network_of(nn.Identity()), "has no BN layers;"),
    "no convolution": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), "has no BN layers;"),
}


@pytest.mark.parametrize("method", NEED_STATISTICS)
@pytest.mark.parametrize("what", WITHOUT)
def test_a_network_without_statistics_is_told_why_it_cannot_be_inverted(what, method):
    make, says = WITHOUT[what]
    error = refusal(make(), COLOR, method=method)
    assert (error.field, error.value) == ("synthesis.method", method)
    assert f"noise, deepdream or dafl for digits, which {'has no BN layers but ' if says == FOLDED else ''}{says}" in (
        f"{error.allowed}; "
    )
    assert "a teacher with batch normalization that keeps running statistics" in error.remedy


@pytest.mark.parametrize("method", ["noise", "deepdream"])
@pytest.mark.parametrize("what", WITHOUT)
def test_other_methods_need_no_statistics(what, method):
    check_network(WITHOUT[what][0](), COLOR, tiny_synthesis(method=method), trained=True)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_that_were_never_trained_are_told_where_weights_were_loaded(kind):
    fresh = KINDS[kind]()
    for method in NEED_STATISTICS:
        check_network(fresh, COLOR, tiny_synthesis(method=method), trained=False)
        error = refusal(fresh, COLOR, method=method)
        assert (error.field, error.value) == ("synthesis.method", method)
        assert "whose BN statistics were never trained (all zeros and ones)" in error.allowed
    check_network(fresh, COLOR, tiny_synthesis(method="deepdream"), trained=True)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_one_trained_statistic_suffices(name):
    network = digits_network(width=WIDTH)
    getattr(network[3].bn2, name)[0] += 1e-3
    check_network(network, DIGITS, tiny_synthesis(), trained=True)


class OnlyInTraining(nn.Module):
    """A network with a BN layer in an auxiliary head that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aux = network_of(nn.BatchNorm2d(4)), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = self.aux(x)
        return self.body(x)


def test_bn_layers_that_do_not_run_in_eval_mode_are_named():
    network = trained(OnlyInTraining())
    error = refusal(network, COLOR)
    assert (error.field, error.value) == ("teacher.network", "digits")
    assert "these BN layers are not run in eval mode: aux: leave them out of the network" in error.remedy
    check_network(network, COLOR, tiny_synthesis(method="deepdream"), trained=True)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 16), (5, 24, 7), (3, 32, 32), (4, 1, 40)])
def test_images_of_any_shape_and_channels_are_taken(shape):
    network = trained(digits_network(input_channels=shape[0], width=WIDTH, classes=4))
    check_network(network, described(*shape, classes=4), tiny_synthesis(), trained=True)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_wrong_number_of_channels_is_refused(channels):
    error = refusal(trained(digits_network(input_channels=3, width=WIDTH)), described(channels, 8, 8))
    assert (error.field, error.value) == ("teacher.input_shape", (channels, 8, 8))
    assert f"maps images ({channels}, 8, 8) to logits" in error.allowed and "channels" in error.remedy


@pytest.mark.parametrize("classes", [2, 9, 11, 1000])
def test_a_wrong_number_of_classes_is_refused(classes):
    error = refusal(tiny_network(), replace(DIGITS, classes=classes))
    assert (error.field, error.value) == ("teacher.classes", classes)
    assert "a probe of two images gave (2, 10)" in error.remedy


class Answering(nn.Module):
    """A network that answers with something else than logits."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(x.mean((2, 3)).repeat(1, 4)[:, :10])


def fail(x: Tensor) -> Tensor:
    raise KeyError("no such head\nand more lines")


ANSWERS = {
    "a tuple": (lambda x: (x, x), "teacher.input_shape", "a probe gave a tuple"),
    "a dict": (lambda x: {"logits": x}, "teacher.input_shape", "a probe gave a dict"),
    "nothing": (lambda x: None, "teacher.input_shape", "a probe gave a NoneType"),
    "an error": (fail, "teacher.input_shape", "a probe failed: 'no such head"),
    "a map of logits": (lambda x: x[:, :, None, None], "teacher.classes", "gave (2, 10, 1, 1)"),
    "one number each": (lambda x: x[:, 0], "teacher.classes", "gave (2,)"),
    "logits of the batch": (lambda x: x.mean(0), "teacher.classes", "gave (10,)"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_that_is_no_logits_is_refused(what):
    answer, field, says = ANSWERS[what]
    network = Answering(answer)
    error = refusal(network, COLOR, method="deepdream")
    assert error.field == field and says in error.remedy
    with pytest.raises(InputError, match=field):
        check_shapes(network, COLOR)
    assert network.training, "its mode is restored after an error"


def fixed() -> nn.Module:
    """A network that takes images of one size: a linear layer behind Flatten."""
    return trained(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 64, 10)))


STAGES = {
    # sizes of the stages before the last, and which is refused where the network takes 8x8 alone
    "smaller": ([(4, 4)], 0),
    "larger": ([(16, 16)], 0),
    "one side": ([(8, 4)], 0),
    "the second": ([(8, 8), (6, 8)], 1),
    "the first of two": ([(2, 2), (4, 4)], 0),
}


@pytest.mark.parametrize("what", STAGES)
@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_stage_of_a_size_that_the_network_cannot_take_is_named(what, method):
    sizes, refused = STAGES[what]
    stages = (*(StageConfig(size=size) for size in sizes), StageConfig())
    check_network(tiny_network(), DIGITS, tiny_synthesis(method=method, stages=stages), trained=True)
    error = refusal(fixed(), DIGITS, method=method, stages=stages)
    assert (error.field, error.value) == (f"synthesis.stages.{refused}.size", list(sizes[refused]))
    assert f"maps images {(1, *sizes[refused])} to logits" in error.allowed


def test_stages_at_the_teachers_own_size_suit_every_network():
    stages = (StageConfig(size=(8, 8)), StageConfig(iterations=3), StageConfig())
    check_network(fixed(), DIGITS, tiny_synthesis(stages=stages), trained=True)


@pytest.mark.parametrize("training", [True, False])
def test_checking_leaves_no_trace_in_the_network(training):
    network = tiny_network().train(training)
    before = fingerprint(to_arrays(network))
    stages = (StageConfig(size=(4, 4)), StageConfig())
    check_network(network, DIGITS, tiny_synthesis(stages=stages), trained=True)
    probe(network, DIGITS, "student.network", "digits", training=True)
    assert fingerprint(to_arrays(network)) == before
    assert all(module.training == training for module in network.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_a_probe_sees_what_only_training_mode_raises():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Unflatten(1, (10, 1)), Flat())
    assert probe(network, DIGITS, "student.network", "flat", training=False) == (2, 10)
    with pytest.raises(InputError, match=r"student.network = 'flat'.*a probe failed: no training"):
        probe(network, DIGITS, "student.network", "flat", training=True)


class Flat(nn.Flatten):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("no training")
        return super().forward(x)


class Keeping(nn.Module):
    """A network that keeps what it has computed of its weights in eval mode, as timm's LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale, self.kept = tiny_network(), nn.Parameter(torch.ones(10)), {}

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.body(x) * self.scale.exp()
        self.kept.setdefault("scale", self.scale.exp())
        return self.body(x) * self.kept["scale"]


def test_what_a_network_keeps_of_its_weights_has_no_graph():
    network = Keeping()
    check_network(network, DIGITS, tiny_synthesis(), trained=True)
    assert not copy.deepcopy(network).kept["scale"].requires_grad
    assert all(weight.requires_grad for weight in network.parameters()) and network.training
