"""Settings of quantization."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, NonNegativeInt
from raydream.errors import InputError

BitWidth = Annotated[int, Field(ge=2, le=8)]
SOURCES = ("noise", "deepdream", "real")


@dataclass(frozen=True, config=STRICT)
class QuantizationConfig:
    """The bits of a quantized network, the method, and the layers that stay in floating point."""

    weights: BitWidth = 8
    """bits of the weights of convolutions and linear layers, with a step size per output channel"""
    activations: BitWidth = 8
    """bits of the inputs of these layers"""
    edges: BitWidth = 8
    """fewest bits of the weights and inputs of the first and the last layer"""
    keep: str | tuple[str, ...] = ()
    """comma-separated names of layers that stay in floating point, such as the first ones in the table of
    sensitivity"""
    method: Literal["post_training", "distillation"] = "post_training"
    """post_training: ranges are measured on calibration images and nothing is trained, which is enough for 8 bits;
    distillation: the quantized network then learns from the float one, with learned step sizes (LSQ), as fewer bits
    require"""
    calibration_images: Count = 512
    """number of images that ranges are measured on, evenly spread over all"""
    ranges: Literal["auto", "min_max", "entropy", "percentile", "mse"] = "auto"
    """method of finding ranges from layers' inputs. min_max: all values; percentile: all but a small share; entropy,
    only at 8 bits: the least loss of information; mse, only below 8 bits: the least squared error; auto: min_max at 8
    bits, mse below"""
    epochs: NonNegativeInt = 30
    """passes over all images where method is distillation"""
    frozen: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of the distillation steps after which BN layers keep their running statistics and normalize by them; 0:
    from the first step on; 1: never"""
    compare: str | tuple[str, ...] = SOURCES
    """other calibration images to compare with, comma-separated: noise, deepdream, real (where the data have a training
    split); empty: no comparison"""

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
        """The names of the layers to keep, as a list."""
        return _names(self.keep)

    @property
    def compared(self) -> tuple[str, ...]:
        """The names of the calibration images to compare with, as a list."""
        return _names(self.compare)

    @property
    def integer(self) -> bool:
        """Return whether libraries quantize the network: all bits are 8, and nothing is trained."""
        return self.method == "post_training" and self.weights == self.activations == 8

    @property
    def chosen_ranges(self) -> Literal["min_max", "entropy", "percentile", "mse"]:
        """The method that finds the ranges, once `auto` is resolved."""
        if self.ranges == "auto":
            return "min_max" if self.integer else "mse"
        return self.ranges

    @property
    def simulated_ranges(self) -> Literal["min_max", "percentile", "mse"]:
        """The method for fake quantization, which has no entropy method."""
        return "mse" if self.chosen_ranges == "entropy" else self.chosen_ranges

    @property
    def label(self) -> str:
        """The usual short name of the bits, such as W4A8."""
        return f"W{self.weights}A{self.activations}"


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in names if name.strip())
