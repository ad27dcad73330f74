"""8-bit files of ONNX Runtime and torchao: they answer as the float network does, and are smaller."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from raydream.data.calibration import CalibrationImages
from raydream.errors import RaydreamError
from raydream.networks import build_network
from raydream.networks.export import export_onnx
from raydream.quantization import pt2e
from raydream.quantization.integer_form import integer_form
from raydream.quantization.layers import bits_by_layer, layers_in_order
from raydream.quantization.measuring import file_costs, peak_memory
from raydream.quantization.onnx_static import RANGES, OnnxNetwork, quantize_onnx
from raydream.quantization.ranges import calibrated, observe
from tests.quantization.zoo import MEAN, SHAPE, STD, zoo_images, zoo_network

TORCHVISION = ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5", "regnet_y_400mf")


def images_of(pixels: np.ndarray) -> CalibrationImages:
    return CalibrationImages(pixels, MEAN, STD, batch_size=16)


@torch.no_grad()
def distance(logits: torch.Tensor | np.ndarray, expected: torch.Tensor) -> float:
    """Relative to the expected ones' spread."""
    return float((torch.as_tensor(logits) - expected).std() / expected.std())


@pytest.fixture(scope="module")
def float_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "float.onnx"
    export_onnx(zoo_network(), SHAPE, path)
    return path


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    with torch.no_grad():
        return zoo_network()(torch.cat(list(images_of(zoo_images()))))


def weights_in(path: Path) -> set[str]:
    """Names of the weights that a file holds as int8."""
    return {
        each.name.removesuffix("_quantized")
        for each in onnx.load(path).graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and each.name.endswith(".weight_quantized")
    }


@pytest.mark.parametrize("ranges", RANGES)
def test_an_onnx_file_of_8_bits_answers_as_the_float_one(ranges, float_file, expected, tmp_path):
    path, images = tmp_path / "int8.onnx", images_of(zoo_images())
    quantize_onnx(float_file, path, images, ranges)
    onnx.checker.check_model(str(path))
    assert distance(OnnxNetwork(path, 1).logits(images), expected) < 0.1
    for count in (1, 5):
        assert OnnxNetwork(path, 1)(np.zeros((count, *SHAPE), np.float32)).shape == (count, 6)
    assert weights_in(path) == {f"{name}.weight" for name in layers_in_order(zoo_network(), SHAPE)}
    assert list(tmp_path.iterdir()) == [path]


def test_each_channel_of_a_weight_has_its_own_scale(float_file, tmp_path):
    quantize_onnx(float_file, tmp_path / "int8.onnx", images_of(zoo_images()), "min_max")
    scales = {each.name: list(each.dims) for each in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert scales["3.project.weight_scale"] == [8] and scales["0.weight_scale"] == [8]


def test_layers_that_are_kept_stay_float(float_file, tmp_path):
    path = tmp_path / "int8.onnx"
    kept = ["0", "3.filter", "9"]
    quantize_onnx(float_file, path, images_of(zoo_images()), "min_max", kept)
    layers = set(layers_in_order(zoo_network(), SHAPE)) - set(kept)
    assert weights_in(path) == {f"{name}.weight" for name in layers}
    with pytest.raises(ValueError, match="no weights of the layer 'conv9'"):
        quantize_onnx(float_file, path, images_of(zoo_images()), "min_max", ["conv9"])


def test_the_images_decide_the_ranges(float_file, expected, tmp_path):
    wrong = images_of(np.full_like(zoo_images(), 127))
    quantize_onnx(float_file, tmp_path / "wrong.onnx", wrong, "min_max")
    assert distance(OnnxNetwork(tmp_path / "wrong.onnx", 1).logits(images_of(zoo_images())), expected) > 0.3


def test_what_a_file_costs(float_file, tmp_path):
    path = tmp_path / "int8.onnx"
    quantize_onnx(float_file, path, images_of(zoo_images()), "min_max")
    costs = file_costs([float_file, path], SHAPE, (1, 4), passes=3)
    assert [cost.size_bytes for cost in costs] == [float_file.stat().st_size, path.stat().st_size]
    for cost in costs:
        assert {size: latency.batch_size for size, latency in cost.latencies.items()} == {1: 1, 4: 4}
        assert all(0 < each.low_s <= each.median_s <= each.high_s for each in cost.latencies.values())
        assert set(cost.peak_memory_bytes) == {1, 4} and cost.threads == 1


@pytest.mark.long
def test_memory_grows_with_the_images_of_a_pass(float_file):
    few, many = (peak_memory(float_file, (count, *SHAPE), 1) for count in (1, 4096))
    assert many - few > 4096 * 8 * 6 * 6 * 4


def test_a_program_of_torchao_answers_as_the_float_network(expected, tmp_path):
    network, images = zoo_network(), images_of(zoo_images())
    before = copy.deepcopy(network.state_dict())
    made = pt2e.quantize_program(network, SHAPE, images, keep=["9"])
    x = torch.cat(list(images))
    with torch.no_grad():
        assert 0 < distance(made(x), expected) < 0.1
        pt2e.save_program(made, SHAPE, tmp_path / "int8.pt2")
        loaded = torch.export.load(str(tmp_path / "int8.pt2")).module()
        assert torch.equal(loaded(x), made(x)) and loaded(x[:1]).shape == (1, 6)
    kinds = [value.dtype for value in made.state_dict().values() if value.dim() in (2, 4)]
    assert kinds.count(torch.int8) == len(layers_in_order(network, SHAPE)) - 1  # all but the one that is kept
    assert not network.training and all(torch.equal(before[name], each) for name, each in network.state_dict().items())


def test_a_torchao_that_does_not_fit_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization.pt2e", None)
    with pytest.raises(RaydreamError, match=r"no PyTorch program is written.*install raydream\[quantize\]"):
        pt2e.quantize_program(zoo_network(), SHAPE, images_of(zoo_images()))


@pytest.mark.parametrize(("bits", "most"), [(8, 0.05), (6, 0.2), (4, 0.8)])
@torch.no_grad()
def test_fake_quantization_takes_the_same_layers(bits, most, expected):
    network, images = zoo_network(), images_of(zoo_images())
    wanted = bits_by_layer(layers_in_order(network, SHAPE), bits, bits, 8)
    made = calibrated(network, wanted, observe(network, wanted, lambda: images), "mse")
    assert distance(made(torch.cat(list(images))), expected) < most


@pytest.mark.long
@pytest.mark.parametrize("name", TORCHVISION)
@torch.no_grad()
def test_networks_of_torchvision(name, tmp_path):
    torch.manual_seed(0)
    network = build_network(f"torchvision:{name}", {}, 3, 6)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of all batches
    shape = (3, 32, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (64, *shape), dtype=np.uint8)
    images = CalibrationImages(pixels, MEAN, STD, batch_size=32)
    for _ in range(3):
        for batch in images:
            network(batch)
    network.eval()
    x = torch.cat(list(images))
    expected = network(x)
    layers = layers_in_order(network, shape)
    wanted = bits_by_layer(layers, 8, 8, 8)
    seen = observe(network, wanted, lambda: images)
    for alone in layers[::7]:
        assert 0 < distance(calibrated(network, {alone: (8, 8)}, seen, "min_max")(x), expected) < 0.7, alone
    # Some fifty layers with random weights amplify the rounding of all of them; answers with nothing in common would
    # be 1.4 apart.
    assert distance(calibrated(network, wanted, seen, "min_max")(x), expected) < 1.1
    assert distance(pt2e.quantize_program(network, shape, images)(x), expected) < 1.1
    export_onnx(network, shape, tmp_path / "float.onnx")
    quantize_onnx(tmp_path / "float.onnx", tmp_path / "int8.onnx", images, "min_max", [layers[0]])
    assert distance(OnnxNetwork(tmp_path / "int8.onnx", 1).logits(images), expected) < 1.1
    assert weights_in(tmp_path / "int8.onnx") == {f"{each}.weight" for each in layers[1:]}


@pytest.mark.parametrize("bits", [4, pytest.param(3, marks=pytest.mark.long), pytest.param(8, marks=pytest.mark.long)])
@torch.no_grad()
def test_a_network_of_few_bits_is_the_same_in_a_file_with_a_byte_for_each_weight(bits, float_file, tmp_path):
    network, images = zoo_network(), images_of(zoo_images())
    layers = layers_in_order(network, SHAPE)
    wanted = bits_by_layer(layers, bits, bits, 8)
    made = calibrated(network, wanted, observe(network, wanted, lambda: images), "mse")
    export_onnx(integer_form(made), SHAPE, tmp_path / "few.onnx")
    x = torch.cat(list(images))
    # A value half-way between two of a grid may be rounded otherwise after another order of additions.
    assert distance(OnnxNetwork(tmp_path / "few.onnx", 1).logits(images), made(x)) < 0.02
    assert distance(made(x), network(x)) > 0.02 or bits == 8
    held = {each.name: each for each in onnx.load(tmp_path / "few.onnx").graph.initializer}
    integers = [onnx.numpy_helper.to_array(each) for each in held.values() if each.data_type == onnx.TensorProto.INT8]
    weights = [each for each in integers if each.ndim > 1]
    assert len(weights) == len(layers)
    assert sorted(np.unique(each).size <= 2**bits for each in weights)[2:] == [True] * (len(layers) - 2)
    floats = [each for each in held.values() if each.data_type == onnx.TensorProto.FLOAT and np.prod(each.dims) > 16]
    assert not floats, "the weights before they were rounded are no part of the file"
