"""Data sets: real ones, for training teachers and for measuring, and the images of a run, for whoever wants them.

Nothing real reaches the training side of a run.
"""

from collections.abc import Callable

from raydream.data.digits import Dataset, Split, load_digits
from raydream.data.image_set import ImageSet, export_folder

DATASETS: dict[str, Callable[[], Dataset]] = {"digits": load_digits}


def load_data(name: str) -> Dataset | None:
    """A data set by name; None for "none"."""
    return DATASETS[name]() if name != "none" else None


__all__ = ["DATASETS", "Dataset", "ImageSet", "Split", "export_folder", "load_data"]
