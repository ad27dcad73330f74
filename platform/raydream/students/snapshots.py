"""Snapshots on the disk: what a batch was made against, so that it can be made again to the bit."""

from pathlib import Path

import safetensors
import safetensors.numpy

from raydream.errors import RaydreamError
from raydream.records import Snapshot
from raydream.storage import write_aside
from raydream.teachers.teacher import fingerprint


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot aside and rename; one that is there already stays as it is. Raises OSError."""
    path = _path(folder, snapshot.step)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        content = safetensors.numpy.save(dict(snapshot.state), {"fingerprint": fingerprint(snapshot.state)})
        write_aside(path, lambda aside: aside.write_bytes(content))


def read_snapshot(folder: Path, step: int) -> Snapshot:
    """The snapshot of a step.

    Raises:
        RaydreamError: it is not there, or is damaged.
    """
    path = _path(folder, step)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
            if (file.metadata() or {}).get("fingerprint") != fingerprint(state):
                raise ValueError("its weights are not those that were written")
        return Snapshot(step, state)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise RaydreamError(
            f"{path} cannot be read ({error}), and a batch that competed with it has to be made again: "
            "delete the run and begin it anew, or set rounds.lockstep to false in its config.yaml"
        ) from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:07d}.safetensors"
