"""Noise: the class loss alone (the paper's baseline "L only")."""

from raydream.synthesis.inversion import Inversion


class Noise(Inversion):
    """min over x of CE(x, y): the teacher is sure, and people see noise."""

    terms = ("classification",)
