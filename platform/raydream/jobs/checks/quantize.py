"""The checks before a quantization starts."""

from raydream.config import QuantizeConfig
from raydream.extras import require
from raydream.jobs.checks.images import CheckedInputs, check_additions, check_inputs
from raydream.quantization.checks import check_quantizable


def check_quantization(config: QuantizeConfig) -> CheckedInputs:
    """Load and probe the teacher, and check that it can be quantized as configured, with these images.

    Raises:
        InputError: a checkpoint, a set of images or real data that do not fit, or a network that cannot be quantized.
        MistakeError: the extra `quantize` is not installed.
    """
    require("quantize", "quantizing")
    inputs = check_inputs(config)
    check_additions(config, inputs)
    check_quantizable(inputs.network, config)
    return inputs
