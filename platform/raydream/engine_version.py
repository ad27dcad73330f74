"""The version of the mathematics, by which images of different versions are kept apart."""

ENGINE_VERSION = 3
"""raised by every change after which the same settings and seed give other images or other students

It is part of a batch's recipe, of the keys of tables and of each run's marker: images of another version are never
reused as equal to the bit, and an unfinished run of another version is not resumed.

1: raydream 0.1.0, whose markers do not name it.
2: pixels are optimized, and brightness drawn, on the canvas (`teachers/normalization.py`); the generator network of
   `fast` keeps moving averages of the batch statistics.
3: other rounding in the frozen networks' BN layers, in R_feature and R_TV, and in the student's SGD; each image of
   `fast` is cropped for itself, and its competition is a masked KL divergence.
"""
