"""Snapshots on disk: the students that batches competed with, so that a batch can be made again to the bit."""

import safetensors
import safetensors.numpy

from raydream.errors import RaydreamError
from raydream.store.folders import Folder
from raydream.store.records import Snapshot
from raydream.store.safetensors_file import metadata_of
from raydream.teachers.teacher import fingerprint


def write_snapshot(folder: Folder, snapshot: Snapshot) -> None:
    """Write a snapshot, whole or not at all; an existing one stays unchanged. Raises OSError."""
    name = _name(snapshot.step)
    if not folder.has(name):
        folder.write(name, safetensors.numpy.save(dict(snapshot.state), {"fingerprint": fingerprint(snapshot.state)}))


def read_snapshot(folder: Folder, step: int) -> Snapshot:
    """Read the snapshot of a step.

    Raises:
        RaydreamError: it is missing or damaged.
    """
    try:
        content = folder.read(_name(step))
        state = safetensors.numpy.load(content)
        if metadata_of(content).get("fingerprint") != fingerprint(state):
            raise ValueError("its weights are not those that were written")
        return Snapshot(step, state)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise RaydreamError(
            f"{folder}/{_name(step)} cannot be read ({error}), and a batch that competed with it has to be made again: "
            "delete the run and start from scratch, or set rounds.lockstep to false in its config.yaml"
        ) from error


def _name(step: int) -> str:
    return f"{step:07d}.safetensors"
