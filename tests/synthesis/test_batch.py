"""make_batch: a batch of a run, whoever makes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydream.config import DistillConfig
from raydream.records import BatchId, Snapshot
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.synthesis.batch import make_batch
from raydream.teachers.teacher import to_arrays
from tests.tiny import tiny_network, tiny_synthesis, tiny_teacher

CONFIG = DistillConfig(
    synthesis=tiny_synthesis(coefficients={"competition": 500.0}),
    student={"arguments": {"width": 8}, "batch_size": 8},
    rounds={"initial_batches": 2, "batches": 2},
    seed=11,
)


def make(batch: BatchId, snapshot=None, source=None, generator=0, config=CONFIG):
    return make_batch("a run", config, Schedule.of(config), tiny_teacher(), batch, snapshot, source, generator)[0]


def snapshot(step: int = 40) -> Snapshot:
    return Snapshot(step, to_arrays(tiny_network(1)))


def test_the_generator_is_recorded_and_changes_nothing_else():
    first, second = make(BatchId(1, 1), snapshot(), generator=0), make(BatchId(1, 1), snapshot(), generator=5)
    assert np.array_equal(first.images, second.images) and np.array_equal(first.teacher_logits, second.teacher_logits)
    assert replace(first.provenance, generator=5) == second.provenance


def test_batches_and_run_seeds_differ_in_their_pixels():
    made = [make(batch) for batch in (BatchId(0, 0), BatchId(0, 1), BatchId(1, 0))]
    made.append(make(BatchId(0, 0), config=replace(CONFIG, seed=12)))
    seen = {batch.images.tobytes() for batch in made}
    assert len(seen) == 4


def test_the_record_says_where_the_batch_came_from():
    made = make(BatchId(1, 1), snapshot(40))
    record = made.provenance
    assert (record.run, record.batch, record.method) == ("a run", "r0001-b0001", "adaptive")
    assert record.student_step == 40 and record.source is None and record.restarts == 0
    assert record.seed == derive_seed(11, "synthesis", 1, 1)
    assert record.teacher == tiny_teacher().fingerprint
    assert set(record.losses) == {"classification", "tv", "l2", "feature", "competition"}
    assert record.coefficients["competition"] == 500.0 and record.coefficients.keys() == record.losses.keys()
    assert len(record.distances) == 8


def test_logits_are_those_of_the_quantised_images():
    made, teacher = make(BatchId(0, 0)), tiny_teacher()
    with torch.no_grad():
        pixels = (torch.from_numpy(made.images).float() / 255 - 0.3) / 0.35
        expected = teacher.network(pixels).numpy()
    np.testing.assert_allclose(made.teacher_logits, expected, rtol=1e-5, atol=1e-5)
    assert made.provenance.target_share == np.mean(expected.argmax(1) == made.targets)
    assert (made.images.dtype, made.targets.dtype, made.teacher_logits.dtype) == (np.uint8, np.int64, np.float32)


def test_targets_follow_the_schedule_or_the_source():
    first, second = make(BatchId(0, 0)), make(BatchId(0, 1))
    assert first.targets.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert second.targets.tolist() == [8, 9, 0, 1, 2, 3, 4, 5]
    warm = make(BatchId(1, 0), snapshot(), source=second)
    assert np.array_equal(warm.targets, second.targets) and warm.provenance.source == "r0000-b0001"


def test_read_only_arrays_from_the_object_store_are_fine():
    source, weights = make(BatchId(0, 0)), snapshot()
    plain = make(BatchId(1, 0), weights, source)
    for array in (source.images, source.targets, *weights.state.values()):
        array.flags.writeable = False
    assert np.array_equal(make(BatchId(1, 0), weights, source).images, plain.images)


def test_the_snapshot_decides_the_pixels():
    assert not np.array_equal(make(BatchId(1, 0), snapshot()).images, make(BatchId(1, 0)).images)


@pytest.mark.parametrize(
    "changes", [{"method": "deep_inversion"}, {"coefficients": {"competition": 0.0}}], ids=["method", "coefficient"]
)
def test_a_batch_that_nobody_competes_with_names_no_snapshot(changes):
    config = replace(CONFIG, synthesis=tiny_synthesis(**changes))
    assert make(BatchId(1, 0), snapshot(), config=config).provenance.student_step is None
