"""Networks for users who do not have this project: ONNX, and torch's own exchange format."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raydream.extras import require
from raydream.store.atomic import write_atomically

_ANY = torch.export.Dim("count", min=1)
"""number of images"""


def export_onnx(network: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write a network as ONNX: `images`, float32 [N,C,H,W] after normalization, to `logits` [N,K], for any N.

    Raises:
        MistakeError: the packages for ONNX are not installed.
        torch.onnx.errors.OnnxExporterError: it uses operations that ONNX cannot express.
        OSError: the file cannot be written.
    """
    require("onnx", path.name)
    noisy = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.cpu().eval(),
                (torch.zeros(2, *input_shape),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: _ANY},),
                dynamo=True,
                verbose=False,
            )
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    _forget_sources(program.model)
    write_atomically(path, lambda temporary: program.save(str(temporary)))


def _forget_sources(model: Any) -> None:
    """Remove the lines of source code, with their paths, that the exporter notes at each node."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def export_program(network: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write a network as a program of torch.export (`torch.export.load`), for any number of images; raises OSError."""
    program = torch.export.export(network.cpu().eval(), (torch.zeros(2, *input_shape),), dynamic_shapes=({0: _ANY},))
    content = io.BytesIO()
    torch.export.save(program, content)
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()))
