"""Synthesizers: algorithms that make images, all of one signature.

`raydream.config.METHODS` lists them: which class each is, and what it minimizes.

A synthesizer is built from (teacher, SynthesisConfig), turns a `Request` into a `Synthesis`, and keeps what it learns
from batch to batch in its `state_dict`.
"""

from importlib import import_module

from raydream.config import METHODS
from raydream.synthesis.request import OnProgress, Request, Synthesis
from raydream.synthesis.synthesizer import Synthesizer


def _class_at(place: str) -> type[Synthesizer]:
    module, _, name = place.partition(":")
    found: type[Synthesizer] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


SYNTHESIZERS = {name: _class_at(method.synthesizer) for name, method in METHODS.items()}
"""the synthesizer class of each method"""

__all__ = ["SYNTHESIZERS", "OnProgress", "Request", "Synthesis", "Synthesizer"]
