"""TensorBoard's events of a run, as TensorBoard itself reads them."""

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from raydream.config import DistillConfig
from raydream.config.conversion import as_dict
from raydream.runs.recorder import Recorder
from raydream.tracking.tags import charts_of, compared
from raydream.tracking.tensorboard_sink import TensorBoardSink


def events_in(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def recorder_in(path: Path) -> Recorder:
    return Recorder(path / "metrics.parquet", path / "run-1", time.time())


def test_scalars_have_their_groups_and_steps(tmp_path):
    recorder, now = recorder_in(tmp_path), time.time()
    recorder.point(now, "evaluator", "accuracy/test", 0.75, step=40)
    recorder.point(now, "driver", "accuracy/validation", 0.5, step=1, tag="teacher/accuracy_real_validation")
    recorder.row(now, "generator-0", "loss/tv", 0.25, step=10)
    recorder.show(now, "batches/target_share", 0.5, 3)
    recorder.close()
    events = events_in(tmp_path / "run-1")
    scalars = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars == {
        "student/accuracy_real_test": [(40, 0.75)],
        "teacher/accuracy_real_validation": [(1, 0.5)],
        "batches/target_share": [(3, 0.5)],
    }
    assert recorder.table()["name"].tolist() == ["accuracy/test", "accuracy/validation", "loss/tv"]


def test_final_figures_and_a_dozen_settings_are_one_session_of_hparams(tmp_path):
    recorder, settings = recorder_in(tmp_path), as_dict(DistillConfig(seed=5))
    recorder.finish(settings, {"student_accuracy": 0.9, "images": 20, "data": "digits"})
    recorder.close()
    events = events_in(tmp_path / "run-1")
    assert events.Tags()["scalars"] == ["summary/student_accuracy"]
    held = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(held).session_start_info.hparams
    assert {*started} == {*compared(settings)} and started["seed"].number_value == 5
    shown = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert [each.name.tag for each in shown.experiment.metric_infos] == ["summary/student_accuracy"]


def test_pictures_texts_and_the_layout_are_there_from_the_beginning(tmp_path):
    recorder, settings = recorder_in(tmp_path), as_dict(DistillConfig())
    recorder.pictures(np.zeros((3, 1, 8, 8), np.uint8), np.array([0, 1, 11]), 2)
    recorder.describe(settings, {"run/1 description": "**raydream distill**"})
    recorder.flush()
    events = events_in(tmp_path / "run-1")
    assert events.Tags()["images"] == ["synthetic_images/classes 0-9", "synthetic_images/classes 10-19"]
    assert [each.step for each in events.Images("synthetic_images/classes 0-9")] == [2]
    (text,) = events.Tensors("run/1 description/text_summary")
    assert text.tensor_proto.string_val == [b"**raydream distill**"]
    (layout,) = events.Tensors("custom_scalars__config__")
    shown = Layout.FromString(layout.tensor_proto.string_val[0])
    assert [category.title for category in shown.category] == [*charts_of(settings)]
    assert list(shown.category[0].chart[0].multiline.tag) == ["student/accuracy_real_.*"]
    recorder.close()


def test_a_signal_while_the_writers_queue_is_locked_leaves_it_usable(tmp_path):
    """Python runs the handler of a signal between any two instructions, so also between taking a lock and using it."""

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if event == "return" and frame.f_code is threading.Condition.__enter__.__code__:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sink = TensorBoardSink(tmp_path)
        sys.setprofile(interrupt)
        with pytest.raises(KeyboardInterrupt):
            sink.flush()
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGTERM, before)
    closing = threading.Thread(target=sink.close, daemon=True)
    closing.start()
    closing.join(timeout=20.0)
    assert not closing.is_alive()
