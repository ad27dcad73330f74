"""Synthesizers: algorithms that make images, one a file, all of one signature.

A synthesizer is built from (teacher, SynthesisConfig), turns a `Request` into a `Synthesis`, and keeps what it learns
from batch to batch in its `state_dict`.
"""

from raydream.synthesis.adaptive import AdaptiveDeepInversion
from raydream.synthesis.dafl import DAFL
from raydream.synthesis.deep_inversion import DeepInversion
from raydream.synthesis.deepdream import DeepDream
from raydream.synthesis.fast import Fast
from raydream.synthesis.noise import Noise
from raydream.synthesis.request import OnProgress, Request, Synthesis
from raydream.synthesis.synthesizer import Synthesizer

SYNTHESIZERS: dict[str, type[Synthesizer]] = {
    "noise": Noise,
    "deepdream": DeepDream,
    "deep_inversion": DeepInversion,
    "adaptive": AdaptiveDeepInversion,
    "dafl": DAFL,
    "fast": Fast,
}

__all__ = ["SYNTHESIZERS", "OnProgress", "Request", "Synthesis", "Synthesizer"]
