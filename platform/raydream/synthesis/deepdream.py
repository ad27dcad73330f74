"""DeepDream: the class loss and the image prior (section 3.1, eq. 2-3; Mordvintsev et al. 2015)."""

from raydream.synthesis.inversion import Inversion


class DeepDream(Inversion):
    """min over x of CE(x, y) + alpha_tv R_TV(x) + alpha_l2 R_l2(x)."""

    terms = ("classification", "tv", "tv_l1", "l2", "l2_per_image")
