import errno
import os
from pathlib import Path

import pytest
import torch

from raydream.runtime.checkpoints import quarantine_damaged_checkpoints, read_checkpoint, steps_saved, write_checkpoint
from raydream.store.folders import LocalFolder, folder_at


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self._touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self._touched}",)


def test_the_newest_checkpoint_is_found_and_older_ones_go_but_for_one(tmp_path: Path) -> None:
    storage = folder_at(tmp_path / "checkpoints")
    assert steps_saved(storage) == 0 and quarantine_damaged_checkpoints(storage) is None
    for step in (20, 100, 123456789):
        write_checkpoint(storage, step, {"weights": torch.full((2,), step)})
    assert steps_saved(storage) == 123456789 and len(storage.names()) == 2
    for step in (100, 123456789):
        assert read_checkpoint(storage, step)["weights"].tolist() == [step] * 2
    assert quarantine_damaged_checkpoints(storage) is None


@pytest.mark.parametrize("name", ["student-100.pt", "student-00000100.pt.aside", ".student-00000100.pt.1a.aside", "x"])
def test_other_files_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert steps_saved(folder_at(tmp_path)) == 0 and quarantine_damaged_checkpoints(folder_at(tmp_path)) is None


def test_all_checkpoints_are_set_aside_where_one_is_damaged(tmp_path: Path) -> None:
    storage = folder_at(tmp_path / "checkpoints")
    for step in (100, 200):
        write_checkpoint(storage, step, {"weights": torch.zeros(1000)})
    (old,) = (tmp_path / "checkpoints").glob("*100.pt")
    old.write_bytes(old.read_bytes()[:500])
    assert "a checkpoint of the student is damaged" in str(quarantine_damaged_checkpoints(storage))
    assert steps_saved(storage) == 0
    (kept,) = tmp_path.iterdir()
    assert len(list(kept.iterdir())) == 2


def test_a_pickle_in_a_students_checkpoint_is_set_aside_and_not_executed(tmp_path: Path) -> None:
    storage, touched = tmp_path / "checkpoints", tmp_path / "touched"
    write_checkpoint(folder_at(storage), 1, {"student": Hostile(touched)})
    assert "damaged" in str(quarantine_damaged_checkpoints(folder_at(storage)))
    assert not storage.exists() and not touched.exists()
    (aside,) = (path for path in tmp_path.iterdir() if path != touched)
    (file,) = aside.iterdir()
    torch.load(file, weights_only=False)
    assert touched.exists(), "it would have been"


def test_checkpoints_that_cannot_be_read_now_are_not_damaged(tmp_path: Path) -> None:
    class Unreachable(LocalFolder):
        def _content(self, name: str) -> bytes:
            raise OSError(errno.EFBIG, f"{name} is too large")

    write_checkpoint(folder_at(tmp_path), 100, {"weights": torch.zeros(2)})
    with pytest.raises(OSError, match="too large"):
        quarantine_damaged_checkpoints(Unreachable(tmp_path))
    assert steps_saved(folder_at(tmp_path)) == 100
