"""The figures that an evaluator's measurements give a summary."""

import time
from pathlib import Path

import torch

from raydream.config import DataConfig, TeacherConfig
from raydream.data import load_data
from raydream.runs.recorder import Recorder
from raydream.runtime.evaluator import final_accuracies
from tests.tiny import tiny_teacher


def test_the_first_of_equally_good_snapshots_is_the_best(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "metrics.parquet", tmp_path / "events", time.time())
    for step, (validation, test) in {5: (0.5, 0.4), 10: (0.9, 0.8), 15: (0.9, 0.7), 20: (0.4, 0.3)}.items():
        recorder.point(time.time(), "evaluator", "accuracy/validation", validation, step=step)
        recorder.point(time.time(), "evaluator", "accuracy/test", test, step=step)
    figures = final_accuracies(
        tiny_teacher(), load_data(DataConfig(), TeacherConfig()), recorder, 20, torch.device("cpu")
    )
    recorder.close()
    assert (figures["student_accuracy_best_step"], figures["student_accuracy_best"]) == (10, 0.8)
    assert (figures["student_accuracy"], figures["student_accuracy_validation"]) == (0.3, 0.4)
