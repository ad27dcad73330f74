"""The evaluator actor: the only process of a run's cluster that holds real data, and it only measures."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from torch import nn

from raydream.compute import use_device
from raydream.config import DataConfig, DistillConfig, FromImages, TeacherConfig, TeacherJobConfig
from raydream.data import Dataset, load_data
from raydream.evaluation.accuracy import accuracy, accuracy_on, best_step, logits_of
from raydream.evaluation.comparison import beside
from raydream.runtime.logs import name_logs
from raydream.runtime.session import beside_the_driver
from raydream.store.folders import Folder
from raydream.store.records import BatchId, Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.normalization import Normalization
from raydream.teachers.teacher import Teacher, load_arrays, teacher_from_arrays

if TYPE_CHECKING:  # it brings TensorBoard and pandas along, which the actor does not need
    from raydream.runs.recorder import Recorder


def final_accuracies(
    teacher: Teacher, real: Dataset | None, recorder: "Recorder", steps: int, device: torch.device
) -> dict[str, Any]:
    """Return the figures of a summary that are measured on real data; empty without data. Accuracies are in [0, 1].

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
            device, teacher.network, teacher.normalization, real.test.images, real.test.labels
        ),
        "student_accuracy": test[steps],
        "student_accuracy_best": test[best],
        "student_accuracy_best_step": best,
        "student_accuracy_validation": validation[steps],
        "test_images": len(real.test.labels),
    }


class Evaluator:
    """Measures snapshots of a network while it learns.

    Args:
        data, teacher: the real data, and how pixels are normalized.
        build: returns a network to load a snapshot into; called with the further arguments of `measure`.
        gpus: reserved by this process; 0: it measures on the CPU.
        shards: folder of the committed shards; None: nothing is measured on synthetic images.
    """

    def __init__(
        self,
        data: DataConfig,
        teacher: TeacherConfig,
        build: Callable[..., nn.Module],
        gpus: float,
        shards: Folder | None = None,
    ) -> None:
        name_logs("evaluator")
        self._device = use_device("auto" if gpus else "cpu", 1, gpus)
        self._teacher, self._build, self._shards = teacher, build, shards
        self._data = load_data(data, teacher)
        self._normalization = Normalization(teacher.mean, teacher.std).to(self._device)

    def measure(self, snapshot: Snapshot, *shape: str) -> tuple[int, dict[str, float]]:
        """Return a snapshot's step and its accuracy in [0, 1] on each held-out split of the real data, if there is any.

        Args:
            shape: of its network, where that changes; passed to `build`.
        """
        if self._data is None:
            return snapshot.step, {}
        network = self._network(snapshot, *shape)
        splits = {"validation": self._data.validation, "test": self._data.test}
        measured = {name: self._accuracy(network, split.images, split.labels) for name, split in splits.items()}
        return snapshot.step, measured

    def measure_synthetic(self, snapshot: Snapshot, newest: BatchId) -> tuple[int, dict[str, float]]:
        """Return the same on images that it has not learned from yet; the teacher's classes count as the labels.

        Args:
            newest: the batch that was committed last.
        """
        assert self._shards is not None
        batch = ShardStore(self._shards).read(newest)
        share = self._accuracy(self._network(snapshot), batch.images, batch.teacher_logits.argmax(1))
        return snapshot.step, {"synthetic": share}

    def examine(self, snapshot: Snapshot, teacher: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Compare a snapshot with the teacher on the test split; returns nothing without real data.

        Args:
            teacher: its weights.
        """
        if self._data is None:
            return {}
        network = teacher_from_arrays(self._teacher, teacher).to(self._device).network
        images, labels = self._data.test.images, self._data.test.labels
        return beside(
            logits_of(self._network(snapshot), self._normalization, images),
            logits_of(network, self._normalization, images),
            labels,
        )

    def _network(self, snapshot: Snapshot, *shape: str) -> nn.Module:
        network = self._build(*shape)
        load_arrays(network, snapshot.state)
        return network.to(self._device)

    def _accuracy(self, network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
        return accuracy(network, self._normalization, images, labels)


# A restarted actor loses nothing: every measurement can be repeated.
_Actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Evaluator)


def start_evaluator(
    config: DistillConfig | FromImages | TeacherJobConfig,
    build: Callable[..., nn.Module],
    gpus: float,
    shards: Folder | None = None,
) -> Any:
    """Start an evaluator on the driver's node.

    Args:
        build, shards: see `Evaluator`.
        gpus: the share that it may reserve; see `share_of_gpu_left`.
    """
    placed = _Actor.options(name="evaluator", num_gpus=gpus, scheduling_strategy=beside_the_driver())
    return placed.remote(config.data, config.teacher, build, gpus, shards)
