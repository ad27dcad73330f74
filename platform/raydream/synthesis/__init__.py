"""Synthesizers: algorithms that make images, one a file, all of one signature.

A synthesizer is built from (teacher, SynthesisConfig), turns a `Request` into a `Synthesis`, and keeps what it learns
from batch to batch in its `state_dict`.
"""

from raydream.synthesis.adaptive import AdaptiveDeepInversion
from raydream.synthesis.deep_inversion import DeepInversion
from raydream.synthesis.deepdream import DeepDream
from raydream.synthesis.inversion import Inversion, OnProgress, Request, Synthesis
from raydream.synthesis.noise import Noise

SYNTHESIZERS: dict[str, type[Inversion]] = {
    "noise": Noise,
    "deepdream": DeepDream,
    "deep_inversion": DeepInversion,
    "adaptive": AdaptiveDeepInversion,
}

__all__ = ["SYNTHESIZERS", "Inversion", "OnProgress", "Request", "Synthesis"]
