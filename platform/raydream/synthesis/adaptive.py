"""Adaptive DeepInversion, "ADI": images on which the student disagrees with the teacher (section 3.3, eq. 8-9)."""

from raydream.synthesis.inversion import Inversion


class AdaptiveDeepInversion(Inversion):
    """min over x of CE(x, y) + R_DI(x) + alpha_c (1 - JS(p_T(x), p_S(x))).

    A batch without a student (the first ones of a run) is made by DeepInversion.
    """

    terms = ("classification", "tv", "tv_l1", "l2", "l2_per_image", "feature", "competition")
