"""The evaluator actor: the only process of a run's cluster that holds real data, and it only measures."""

from pathlib import Path

import ray
import torch

from raydream.buffer.shards import ShardStore
from raydream.config import DistillConfig
from raydream.data import load_data
from raydream.evaluation.accuracy import accuracy
from raydream.networks import build_student
from raydream.records import BatchId, Snapshot
from raydream.teachers.normalisation import Normalisation
from raydream.teachers.teacher import load_arrays


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Evaluator:
    """Measures snapshots of the student.

    Args:
        shards: folder of the committed shards.
    """

    def __init__(self, config: DistillConfig, shards: Path) -> None:
        torch.set_num_threads(1)
        self._data = load_data(config.data.name)
        self._store = ShardStore(shards)
        self._normalisation = Normalisation(config.teacher.mean, config.teacher.std)
        self._student = build_student(config)

    def measure(self, snapshot: Snapshot, newest: BatchId) -> tuple[int, dict[str, float]]:
        """The snapshot's step, and its accuracies in [0, 1]: by split of the real data, and on the newest images.

        Args:
            newest: a committed batch; the images' targets count as their labels ("synthetic").
        """
        load_arrays(self._student, snapshot.state)
        batch = self._store.read(newest)
        measured = {"synthetic": accuracy(self._student, self._normalisation, batch.images, batch.targets)}
        if self._data is not None:
            for name, split in (("validation", self._data.validation), ("test", self._data.test)):
                measured[name] = accuracy(self._student, self._normalisation, split.images, split.labels)
        return snapshot.step, measured
