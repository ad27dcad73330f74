"""scikit-learn's bundled handwritten digits: 1,797 real images of 8x8 pixels (UCI, Alpaydin and Kaynak 1998)."""

from functools import partial

import numpy as np

from raydream.data.splits import Dataset, Split


def load_digits() -> Dataset:
    """The digits in a fixed stratified split: 997 to train, 300 to validate, 500 to test; pixels 0..16 as 0..255."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=500, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=300, stratify=labels[rest], random_state=0)
    return Dataset(*(partial(Split, images[index], labels[index]) for index in (train, validation, test)))
