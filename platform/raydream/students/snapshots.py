"""Snapshots on the disk: what a batch was made against, so that it can be made again to the bit."""

from pathlib import Path

import safetensors.numpy

from raydream.errors import RaydreamError
from raydream.records import Snapshot
from raydream.storage import write_aside


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot aside and rename; one that is there already stays as it is. Raises OSError."""
    path = _path(folder, snapshot.step)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(path, lambda aside: aside.write_bytes(safetensors.numpy.save(dict(snapshot.state))))


def read_snapshot(folder: Path, step: int) -> Snapshot:
    """The snapshot of a step.

    Raises:
        RaydreamError: it is not there, or is damaged.
    """
    path = _path(folder, step)
    try:
        return Snapshot(step, safetensors.numpy.load(path.read_bytes()))
    except (OSError, safetensors.SafetensorError) as error:
        raise RaydreamError(
            f"{path} cannot be read ({error}), and a batch that competed with it has to be made again: "
            "delete the run and begin it anew, or set rounds.lockstep to false in its config.yaml"
        ) from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:07d}.safetensors"
