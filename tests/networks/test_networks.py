"""The project's own networks: their shapes, their sizes in the literature, and real weights for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import TeacherConfig
from raydream.config.network_names import BUILT_IN, PRUNED, QUANTIZED
from raydream.networks import DERIVED, NETWORKS
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.observed import ObservedNetwork
from raydream.networks.resnet import PaddedShortcut, ResidualBlock
from raydream.networks.wide_resnet import PreActivationBlock
from raydream.teachers.loading import load_teacher

torch.set_num_threads(1)

SHARED = Path(__file__).parents[3] / "shared"


def randomised(network: nn.Module) -> nn.Module:
    """The network in eval mode, with BN layers that have something to say."""
    torch.manual_seed(0)
    for layer in batch_norm_layers(network).values():
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias)
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return network.eval()


def test_the_names_that_are_known_without_torch_are_those_of_the_factories():
    assert tuple(NETWORKS) == BUILT_IN and {PRUNED, QUANTIZED} == DERIVED.keys()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 100)])
def test_each_network_maps_images_to_logits(name, channels, classes):
    network = NETWORKS[name](input_channels=channels, classes=classes)
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, classes)


@pytest.mark.parametrize("size", [(32, 48), (33, 64), (40, 35)])
@pytest.mark.parametrize("name", ["digits", "cifar_resnet20", "cifar_vgg11_bn", "cifar_wrn16_1"])
def test_images_need_not_be_square(name, size):
    assert NETWORKS[name](input_channels=3)(torch.randn(2, 3, *size)).shape == (2, 10)


def test_ten_classes_of_color_images_are_what_the_networks_for_cifar_are_for():
    for name in [name for name in NETWORKS if name.startswith("cifar_")]:
        weights = list(NETWORKS[name]().parameters())
        assert (weights[0].shape[1], weights[-1].shape[0]) == (3, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_bn_layer_runs_once_so_that_all_can_be_inverted(name):
    network = NETWORKS[name](input_channels=3)
    observed, runs = ObservedNetwork(network, statistics=True), []
    for layer_name, layer in batch_norm_layers(observed.network).items():
        layer.register_forward_hook(lambda *_, name=layer_name: runs.append(name))
    observed(torch.zeros(1, 3, 32, 32))
    assert sorted(runs) == sorted(batch_norm_layers(network))


SIZES = {
    # weights with 3 channels and 10 classes: He et al. 2016, table 6 (0.27, 0.46, 0.66 and 0.85 million), and the
    # public CIFAR implementations that the names stand for
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet18": 11_173_962,
    "cifar_resnet34": 21_282_122,
    "cifar_vgg11_bn": 9_231_114,
    "cifar_vgg16_bn": 14_728_266,
    "cifar_wrn16_1": 175_066,
    "cifar_wrn40_2": 2_243_546,
    "cifar_mobilenet_v2": 2_236_682,  # torchvision's for 10 classes: strides have no weights
}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("cifar_")])
def test_each_network_has_the_size_that_it_has_in_the_literature(name):
    assert sum(parameter.numel() for parameter in NETWORKS[name]().parameters()) == SIZES[name]


LAYERS = {
    **{f"cifar_resnet{depth}": depth for depth in (18, 20, 32, 34, 44, 56)},
    "cifar_vgg11_bn": 11 - 2,  # with one linear layer for three
    "cifar_vgg16_bn": 16 - 2,
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_name_tells_the_layers(name):
    layers = [layer for layer in NETWORKS[name]().modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert sum(isinstance(layer, nn.Linear) or layer.kernel_size == (3, 3) for layer in layers) == LAYERS[name]


RESOLUTIONS = {
    "digits": [32, 16],
    "cifar_resnet20": [32, 16, 8],
    "cifar_resnet56": [32, 16, 8],
    "cifar_resnet18": [32, 16, 8, 4],
    "cifar_resnet34": [32, 16, 8, 4],
    "cifar_vgg11_bn": [32, 16, 8, 4, 2],
    "cifar_vgg16_bn": [32, 16, 8, 4, 2],
    "cifar_wrn16_1": [32, 16, 8],
    "cifar_wrn40_2": [32, 16, 8],
    "cifar_mobilenet_v2": [32, 16, 8, 4],
}


@pytest.mark.parametrize("name", RESOLUTIONS)
def test_each_stage_halves_the_size(name):
    network, seen = NETWORKS[name](input_channels=3), []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.shape[-1]))
    network(torch.randn(2, 3, 32, 32))
    assert sorted(set(seen), reverse=True) == RESOLUTIONS[name]


@pytest.mark.parametrize(
    ("channels", "stride", "size"), [(2, 2, (8, 8)), (4, 2, (7, 5)), (6, 1, (4, 4)), (0, 2, (6, 4))]
)
def test_the_padded_shortcut_takes_every_second_pixel_between_channels_of_zeros(channels, stride, size):
    x = torch.randn(2, 3, *size)
    rows, columns = range(0, size[0], stride), range(0, size[1], stride)
    expected = torch.zeros(2, 3 + channels, len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected[:, channels // 2 : channels // 2 + 3, i, j] = x[:, :, row, column]
    assert torch.equal(PaddedShortcut(x.shape[1], x.shape[1] + channels, stride)(x), expected)


BLOCKS = {
    "option A": lambda *shape: ResidualBlock(*shape, padded=True),
    "option B": ResidualBlock,
    "pre-activation": PreActivationBlock,
}


@pytest.mark.parametrize(("size", "half"), [((8, 8), (4, 4)), ((6, 10), (3, 5)), ((7, 5), (4, 3)), ((1, 1), (1, 1))])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_with_a_stride_halves_the_size(kind, size, half):
    assert BLOCKS[kind](4, 8, 2)(torch.randn(2, 4, *size)).shape == (2, 8, *half)
    assert BLOCKS[kind](4, 8, 1)(torch.randn(2, 4, *size)).shape == (2, 8, *size)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_that_changes_no_shape_has_a_shortcut_without_weights(kind):
    same, wider = BLOCKS[kind](8, 8, 1), BLOCKS[kind](4, 8, 2)
    convolutions = [module for module in same.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.kernel_size for convolution in convolutions] == [(3, 3), (3, 3)]
    ones = [module for module in wider.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)]
    assert len(ones) == (0 if kind == "option A" else 1)


def test_without_its_convolutions_a_block_is_its_shortcut():
    x = torch.randn(2, 4, 6, 6)
    for padded in (True, False):
        block = randomised(ResidualBlock(4, 8, 2, padded))
        nn.init.zeros_(block.bn2.weight)
        nn.init.zeros_(block.bn2.bias)
        torch.testing.assert_close(block(x), functional.relu(block.shortcut(x)))
    block = randomised(PreActivationBlock(4, 4, 1))
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("wide", "stride"), [(4, 1), (8, 1), (8, 2)])
def test_a_pre_activation_block_is_that_of_the_paper(wide, stride):
    block = randomised(PreActivationBlock(4, wide, stride))
    x = torch.randn(2, 4, 6, 6)

    def active(x: Tensor, bn: nn.Module) -> Tensor:
        scale = bn.weight / (bn.running_var + 1e-5).sqrt()
        return ((x - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]).clamp(min=0)

    first = active(x, block.bn1)
    inner = active(functional.conv2d(first, block.conv1.weight, stride=stride, padding=1), block.bn2)
    expected = functional.conv2d(inner, block.conv2.weight, padding=1)
    # The authors' network: the shortcut starts at the activation where the shape changes, else at the input.
    expected = expected + (x if wide == 4 else functional.conv2d(first, block.shortcut.weight, stride=stride))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 34])
def test_the_four_stage_resnets_are_torchvisions_without_the_stem_that_pools(depth):
    network = randomised(NETWORKS[f"cifar_resnet{depth}"]())
    original = torchvision.models.get_model(f"resnet{depth}", weights=None, num_classes=10)
    original.conv1, original.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    names = {name: name.replace("shortcut", "downsample").replace("linear", "fc") for name in network.state_dict()}
    original.load_state_dict({names[name]: value for name, value in network.state_dict().items()})
    x = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(network(x), original.eval()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("depth", [11, 16])
def test_the_vggs_are_torchvisions_with_one_linear_layer(depth):
    network = randomised(NETWORKS[f"cifar_vgg{depth}_bn"]())
    with torch.device("meta"):  # its own linear layers are large
        original = torchvision.models.get_model(f"vgg{depth}_bn", weights=None).features
    original = original.to_empty(device="cpu").eval()
    original.load_state_dict(network.features.state_dict())
    x = torch.randn(2, 3, 32, 32)
    expected = original(x).flatten(1) @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="there are no shared weights")
@pytest.mark.parametrize("depth", [20, pytest.param(56, marks=pytest.mark.long)])
def test_real_weights_load_as_they_are_and_classify_real_images(depth):
    teacher = load_teacher(
        TeacherConfig(
            network=f"cifar_resnet{depth}",
            checkpoint=str(SHARED / "weights" / f"cifar10_resnet{depth}.th"),
            input_shape=(3, 32, 32),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    )
    real = np.load(SHARED / "data" / "cifar10" / "lossless4k.npz")
    images = torch.from_numpy(real["x"][:500]).permute(0, 3, 1, 2)
    found = torch.cat([teacher.logits(part) for part in images.split(100)]).argmax(1).numpy()
    assert (found == real["y"][:500]).mean() >= 0.99
