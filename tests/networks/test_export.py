"""Exported networks answer as the ones they were exported from, to any number of images."""

import onnx
import onnxruntime
import pytest
import torch

from raydream.networks.export import export_onnx, export_program
from raydream.pruning.streams import find_streams, remove
from tests.pruning.test_streams import network_of, some_removed


@pytest.fixture(
    scope="module",
    params=[
        "cifar_resnet20",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("digits", "torchvision:mobilenet_v2")),
    ],
)
def pruned(request):
    network, shape = network_of(request.param)
    streams = find_streams(network, shape)
    return remove(network, streams, some_removed(streams)).float().eval(), shape


@torch.no_grad()
def test_onnx(pruned, tmp_path):
    network, shape = pruned
    export_onnx(network, shape, tmp_path / "student.onnx")
    onnx.checker.check_model(str(tmp_path / "student.onnx"))
    assert not any(node.metadata_props for node in onnx.load(tmp_path / "student.onnx").graph.node)
    assert __file__.encode() not in (tmp_path / "student.onnx").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        x = torch.randn(count, *shape)
        (logits,) = session.run(["logits"], {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), network(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_torch_export(pruned, tmp_path):
    network, shape = pruned
    export_program(network, shape, tmp_path / "student.pt2")
    program = torch.export.load(str(tmp_path / "student.pt2")).module()
    for count in (1, 2, 5):
        x = torch.randn(count, *shape)
        torch.testing.assert_close(program(x), network(x))
