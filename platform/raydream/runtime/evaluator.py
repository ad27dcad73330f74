"""The evaluator actor: the only process of a run's cluster that holds real data, and it only measures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raydream.compute import use_device
from raydream.config import DistillConfig, TransferConfig
from raydream.data import Dataset, load_data
from raydream.evaluation.accuracy import accuracy, accuracy_on, best_step, logits_of
from raydream.evaluation.comparison import beside
from raydream.networks import build_student
from raydream.runtime.logs import name_logs
from raydream.store.folders import Folder
from raydream.store.records import BatchId, Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.normalisation import Normalisation
from raydream.teachers.teacher import Teacher, load_arrays, teacher_from_arrays

if TYPE_CHECKING:  # it brings TensorBoard and pandas along, which the actor does not need
    from raydream.runs.recorder import Recorder


def final_accuracies(
    teacher: Teacher, real: Dataset | None, recorder: "Recorder", steps: int, device: torch.device
) -> dict[str, Any]:
    """The figures of a summary that real data give; none where there are none. Accuracies are shares in [0, 1].

    Args:
        real: data to measure on.
        recorder: holds what the evaluator measured.
        steps: distillation steps of the whole run.
        device: to measure the teacher on.
    """
    if real is None:
        return {}
    test, validation = recorder.latest("accuracy/test"), recorder.latest("accuracy/validation")
    best = best_step(validation)
    return {
        "teacher_accuracy": accuracy_on(
            device, teacher.network, teacher.normalisation, real.test.images, real.test.labels
        ),
        "student_accuracy": test[steps],
        "student_accuracy_best": test[best],
        "student_accuracy_best_step": best,
        "student_accuracy_validation": validation[steps],
        "test_images": len(real.test.labels),
    }


class Evaluator:
    """Measures snapshots of the student.

    Args:
        shards: folder of the committed shards.
        gpus: that this process has reserved; 0: it measures on the CPU.
    """

    def __init__(self, config: DistillConfig | TransferConfig, shards: Folder, gpus: float) -> None:
        name_logs("evaluator")
        self._device = use_device("auto" if gpus else "cpu", 1, gpus)
        self._config = config
        self._data = load_data(config.data, config.teacher)
        self._store = ShardStore(shards)
        self._normalisation = Normalisation(config.teacher.mean, config.teacher.std).to(self._device)
        self._student = build_student(config.student, config.teacher).to(self._device)

    def measure(self, snapshot: Snapshot) -> tuple[int, dict[str, float]]:
        """The snapshot's step, and its accuracy in [0, 1] on each held-out split of the real data."""
        load_arrays(self._student, snapshot.state)
        if self._data is None:
            return snapshot.step, {}
        splits = {"validation": self._data.validation, "test": self._data.test}
        measured = {name: self._accuracy(split.images, split.labels) for name, split in splits.items()}
        return snapshot.step, measured

    def measure_synthetic(self, snapshot: Snapshot, newest: BatchId) -> tuple[int, dict[str, float]]:
        """The same on images that it has not learned from yet; what the teacher says they show counts as right.

        Args:
            newest: a batch that has just been committed.
        """
        load_arrays(self._student, snapshot.state)
        batch = self._store.read(newest)
        return snapshot.step, {"synthetic": self._accuracy(batch.images, batch.teacher_logits.argmax(1))}

    def examine(self, snapshot: Snapshot, teacher: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The snapshot beside the teacher on the test split; nothing where there are no real data.

        Args:
            teacher: its weights.
        """
        if self._data is None:
            return {}
        load_arrays(self._student, snapshot.state)
        network = teacher_from_arrays(self._config.teacher, teacher).to(self._device).network
        images, labels = self._data.test.images, self._data.test.labels
        return beside(
            logits_of(self._student, self._normalisation, images),
            logits_of(network, self._normalisation, images),
            labels,
        )

    def _accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        return accuracy(self._student, self._normalisation, images, labels)
