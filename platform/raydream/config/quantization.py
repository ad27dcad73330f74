"""How a network is quantized."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, NonNegativeInt
from raydream.errors import InputError

BitWidth = Annotated[int, Field(ge=2, le=8)]
SOURCES = ("noise", "deepdream", "real")


@dataclass(frozen=True, config=STRICT)
class QuantizationConfig:
    """To how many bits a network is quantized, how, and which layers are left out."""

    weights: BitWidth = 8
    """bits of the weights of convolutions and linear layers, each output channel with a step size of its own"""
    activations: BitWidth = 8
    """bits of the inputs of these layers"""
    edges: BitWidth = 8
    """bits that the weights and inputs of the first and the last layer have at least"""
    keep: str | tuple[str, ...] = ()
    """names of layers that stay in floating point, with commas between several, such as those that the table of
    sensitivity puts first"""
    method: Literal["post_training", "distillation"] = "post_training"
    """post_training: ranges are measured on calibration images and nothing is trained, which suffices for 8 bits;
    distillation: the quantized network then learns from the float one, with step sizes that learn (LSQ), which fewer
    bits need"""
    calibration_images: Count = 512
    """images that ranges are measured on, evenly spread over those that there are"""
    ranges: Literal["auto", "min_max", "entropy", "percentile", "mse"] = "auto"
    """how ranges follow from what layers see. min_max: all of it; percentile: all but a small share; entropy, at 8 bits
    alone: the least loss of information; mse, below 8 bits alone: the least squared error; auto: min_max at 8 bits,
    mse below"""
    epochs: NonNegativeInt = 30
    """passes over all images where method is distillation"""
    frozen: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of the distillation steps after which BN layers keep their running statistics and normalize by them; 0:
    from the first step on; 1: never"""
    compare: str | tuple[str, ...] = SOURCES
    """other calibration images whose results stand beside those of the images: noise, deepdream, real (where the data
    have a training split), with commas between several; none named: no comparison"""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.compared if name not in SOURCES]:
            raise InputError("quantization.compare", unknown[0], "noise, deepdream or real", "leave it out")
        if twice := [name for index, name in enumerate(self.kept) if name in self.kept[:index]]:
            raise InputError("quantization.keep", twice[0], "each layer once", "name it once")
        if self.ranges == "entropy" and not self.integer:
            remedy = "choose mse or percentile, which know other numbers of bits"
            raise InputError("quantization.ranges", "entropy", "another one unless all bits are 8", remedy)
        if self.ranges == "mse" and self.integer:
            remedy = "ONNX Runtime finds the ranges at 8 bits: choose entropy or percentile"
            raise InputError("quantization.ranges", "mse", "another one where all bits are 8", remedy)

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the layers to keep, one by one."""
        return _names(self.keep)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the calibration images to compare with, one by one."""
        return _names(self.compare)

    @property
    def integer(self) -> bool:
        """Whether libraries quantize the network: all bits are 8, and nothing is trained."""
        return self.method == "post_training" and self.weights == self.activations == 8

    @property
    def chosen_ranges(self) -> Literal["min_max", "entropy", "percentile", "mse"]:
        """The method that finds the ranges, once `auto` is resolved."""
        if self.ranges == "auto":
            return "min_max" if self.integer else "mse"
        return self.ranges

    @property
    def simulated_ranges(self) -> Literal["min_max", "percentile", "mse"]:
        """The method for fake quantization, which knows no entropy."""
        return "mse" if self.chosen_ranges == "entropy" else self.chosen_ranges

    @property
    def label(self) -> str:
        """The usual short name, such as W4A8."""
        return f"W{self.weights}A{self.activations}"


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in names if name.strip())
