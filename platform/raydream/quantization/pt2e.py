"""8-bit programs of torch.export by torchao's PT2E path, for x86 processors through torch.compile."""

import io
import logging
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from raydream.errors import RaydreamError, first_line
from raydream.store.atomic import write_atomically

_ANY = torch.export.Dim("count", min=1)
"""number of images"""


def check_torchao() -> None:
    """Raise RaydreamError where torchao is missing or does not fit the torch in use."""
    # torch has come to know torchao's enumerations by itself, and warns of that.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    try:
        from torchao.quantization.pt2e import quantize_pt2e  # noqa: F401
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer  # noqa: F401
    except Exception as error:  # of an extension that was built for another torch, any kind
        raise RaydreamError(
            f"no PyTorch program is written, as torchao cannot be used with torch {torch.__version__} "
            f"({first_line(error)}): install raydream[quantize]; the ONNX file needs no torchao"
        ) from error


def quantize_program(
    network: nn.Module, input_shape: tuple[int, int, int], batches: Iterable[Tensor], keep: Collection[str] = ()
) -> nn.Module:
    """Quantize a network to 8 bits: weights int8 per channel, activations uint8, by torchao's X86 quantizer.

    Args:
        network: floating-point, on the CPU; stays unchanged.
        input_shape: [C,H,W] of its images.
        batches: batches to calibrate on, float32 [N,C,H,W], normalized.
        keep: names of layers that stay in floating point.

    Returns:
        the quantized program as a module, for any number of images; torch.compile makes integer kernels of it.

    Raises:
        RaydreamError: see `check_torchao`.
    """
    check_torchao()
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    for name in keep:
        quantizer.set_module_name_qconfig(name, None)
    example = (torch.zeros(2, *input_shape),)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torchao's own use of what torch deprecates
        program = torch.export.export(network.eval(), example, dynamic_shapes=({0: _ANY},)).module()
        prepared = prepare_pt2e(program, quantizer)
        for batch in batches:
            prepared(batch)
        made: nn.Module = convert_pt2e(prepared)
    return made


def save_program(quantized: nn.Module, input_shape: tuple[int, int, int], path: Path) -> None:
    """Write a quantized program for `torch.export.load`; raises OSError."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(quantized, (torch.zeros(2, *input_shape),), dynamic_shapes=({0: _ANY},))
        torch.export.save(program, content)
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()))
