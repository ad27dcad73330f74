import json
import os
from pathlib import Path

import torch

from raydream.runtime.learner import CHECKPOINT
from raydream.runtime.training import LISTED, set_damaged_checkpoints_aside
from raydream.store.folders import folder_at


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self._touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self._touched}",)


def test_a_pickle_in_a_students_checkpoint_is_set_aside_and_not_executed(tmp_path: Path) -> None:
    storage, touched = tmp_path / "checkpoints", tmp_path / "touched"
    (storage / "one").mkdir(parents=True)
    torch.save({"step": 1, "student": Hostile(touched)}, storage / "one" / CHECKPOINT)
    (storage / LISTED).write_text(json.dumps({"checkpoint_results": [{"checkpoint_dir_name": "one"}]}))
    assert "damaged" in str(set_damaged_checkpoints_aside(folder_at(storage)))
    assert not storage.exists() and not touched.exists()
    (aside,) = (path for path in tmp_path.iterdir() if path != touched)
    torch.load(aside / "one" / CHECKPOINT, weights_only=False)
    assert touched.exists(), "it would have been"
