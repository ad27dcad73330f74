"""Real data, for training teachers and for measuring; nothing of it reaches the training side of a run."""

from collections.abc import Callable

from raydream.data.digits import Dataset, Split, load_digits

DATASETS: dict[str, Callable[[], Dataset]] = {"digits": load_digits}


def load_data(name: str) -> Dataset | None:
    """A data set by name; None for "none"."""
    return DATASETS[name]() if name != "none" else None


__all__ = ["DATASETS", "Dataset", "Split", "load_data"]
