"""DeepInversion: the image prior and the teacher's feature statistics (section 3.2, eq. 4-7)."""

from raydream.synthesis.inversion import Inversion


class DeepInversion(Inversion):
    """min over x of CE(x, y) + R_prior(x) + alpha_f R_feature(x)."""

    terms = ("classification", "tv", "tv_l1", "l2", "l2_per_image", "feature")
