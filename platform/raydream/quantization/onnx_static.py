"""8-bit ONNX files by ONNX Runtime's static quantizer (QDQ, weights per channel)."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from raydream.data.calibration import CalibrationImages
from raydream.store.atomic import write_atomically

RANGES = {"min_max": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""ONNX Runtime's names of the methods that find the ranges of activations"""


def quantize_onnx(source: Path, to: Path, images: CalibrationImages, ranges: str, keep: Collection[str] = ()) -> None:
    """Quantize a floating-point ONNX file to 8 bits: weights int8 per channel, activations uint8.

    Args:
        source: written by `export_onnx`, whose weights have the names of the network's layers.
        to: the file to write.
        images: images to calibrate on; with entropy and percentile, ONNX Runtime holds the outputs of all layers for
            all of them in memory at once.
        ranges: a key of `RANGES`.
        keep: names of layers that stay in floating point.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: a layer to keep is not in the file.
        OSError: the file cannot be written.
    """
    from onnxruntime import quantization  # here, as only this and its session need it
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)  # ONNX's own inference suffices
        images.rewind()
        made = Path(folder) / "quantized.onnx"
        quantization.quantize_static(
            str(prepared),
            str(made),
            images,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[RANGES[ranges]],
            nodes_to_exclude=_nodes_of(prepared, keep),
        )
        content = made.read_bytes()
    write_atomically(to, lambda temporary: temporary.write_bytes(content))


def _nodes_of(path: Path, layers: Collection[str]) -> list[str]:
    """Return the names of the nodes that compute with the weights of some layers."""
    import onnx

    nodes = {name: node.name for node in onnx.load(path).graph.node for name in node.input}
    wanted = {layer: f"{layer}.weight" for layer in layers}
    if missing := [layer for layer, weight in wanted.items() if weight not in nodes]:
        raise ValueError(f"the ONNX file has no weights of the layer {missing[0]!r}")
    return [nodes[weight] for weight in wanted.values()]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the quantizer's output and its advice to preprocess a file that has just been preprocessed."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)


class OnnxNetwork:
    """A session of ONNX Runtime on the CPU.

    Args:
        path: path of a file that maps `images`, float32 [N,C,H,W] after normalization, to `logits` [N,K].
        threads: number of threads of an operation, >= 1.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits [N,K] of normalized images [N,C,H,W]."""
        (logits,) = self._session.run(["logits"], {"images": images})
        return np.asarray(logits)

    def logits(self, images: CalibrationImages) -> np.ndarray:
        """Return float32 logits [N,K] of all images, computed batch by batch."""
        return np.concatenate([self(batch.numpy()) for batch in images])
