"""scikit-learn's bundled handwritten digits: 1,797 real images of 8x8 pixels (UCI, Alpaydin and Kaynak 1998)."""

import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from raydream.data.splits import Dataset, Split

_SPLIT = Path(__file__).with_name("digits_split.json")
"""rows of scikit-learn's file in each split, in their order: the result of its stratified `train_test_split`"""


def load_digits() -> Dataset:
    """Load the digits in a fixed stratified split: 997 to train, 300 to validate, 500 to test; pixels 0..255."""
    rows = np.loadtxt(_file(), delimiter=",", dtype=np.int64)
    images = np.round(rows[:, :-1].reshape(-1, 1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    parts = json.loads(_SPLIT.read_text(encoding="utf-8"))
    return Dataset(*(partial(Split, images[part], rows[part, -1]) for part in parts.values()))


def _file() -> Path:
    """Find the file without importing scikit-learn, which takes a second in each process that measures."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the digits are a part of scikit-learn, which is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
