import numpy as np

from raydream.engine_version import ENGINE_VERSION
from tests.synthesis.golden import FILE, made_here

REMEDY = "raise ENGINE_VERSION where that is intended, and write the file again: tests/synthesis/golden.py"


def test_what_is_made_changes_with_the_engine_version_alone() -> None:
    kept, made = dict(np.load(FILE)), made_here()
    assert int(kept.pop("engine")) == ENGINE_VERSION, "written by another engine: run tests/synthesis/golden.py"
    assert kept.keys() <= made.keys(), "a synthesizer is gone; one that is new joins when the file is written again"
    for name, value in kept.items():
        # Another processor adds up in another order, which moves few pixels, and those by little.
        near = np.abs(made[name].astype(float) - value) <= (1 if value.dtype == np.uint8 else 0.01)
        assert near.mean() > 0.98, f"{name}: other results than before; {REMEDY}"
