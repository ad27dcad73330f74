"""BatchMaker: a batch of a run, whoever makes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydream.config import DistillConfig
from raydream.networks import build_student
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.store.records import BatchId, ImageBatch, Order, Snapshot
from raydream.synthesis.batch import BatchMaker, Made
from raydream.teachers.teacher import to_arrays
from tests.synthesis.test_engine import NarrowWithoutGradients
from tests.synthesis.test_memory import Narrow
from tests.tiny import tiny_network, tiny_synthesis, tiny_teacher

CONFIG = DistillConfig(
    synthesis=tiny_synthesis(coefficients={"competition": 500.0}),
    student={"arguments": {"width": 8}, "batch_size": 8},
    rounds={"initial_batches": 2, "batches": 2},
    seed=11,
)


def maker(generator: int = 0, config: DistillConfig = CONFIG) -> BatchMaker:
    def student():
        return build_student(config.student, config.teacher)

    return BatchMaker("a run", tiny_teacher(), config.synthesis, student, generator)


def order(batch: BatchId, config: DistillConfig = CONFIG) -> Order:
    return Schedule.of(config).order(batch, config)


def make(batch: BatchId, snapshot=None, source=None, generator=0, config=CONFIG) -> ImageBatch:
    return maker(generator, config).make(order(batch, config), snapshot, source).batch


def snapshot(step: int = 40, seed: int = 1) -> Snapshot:
    return Snapshot(step, to_arrays(tiny_network(seed)))


def same(one: ImageBatch, other: ImageBatch) -> bool:
    arrays = [(batch.images, batch.targets, batch.teacher_logits) for batch in (one, other)]
    return all(map(np.array_equal, *arrays)) and one.provenance == other.provenance


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


def test_logits_are_those_of_the_quantized_images():
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


def test_one_maker_makes_what_fresh_ones_would():
    kept, warm = maker(), make(BatchId(0, 1))
    orders = [
        (BatchId(0, 0), None, None),
        (BatchId(1, 0), snapshot(40, seed=1), None),
        (BatchId(2, 0), snapshot(80, seed=2), warm),
        (BatchId(0, 1), None, None),
        (BatchId(1, 0), snapshot(40, seed=1), None),
    ]
    for batch, weights, source in orders:
        made = kept.make(order(batch), weights, source).batch
        assert same(made, make(batch, weights, source))


def test_the_order_decides_targets_and_seed():
    asked = Order(BatchId(3, 1), np.array([5, 5, 0, 9, 1, 1, 1, 2]), 123)
    made = maker().make(asked, None, None).batch
    assert made.targets.tolist() == asked.targets.tolist() and made.id == BatchId(3, 1)
    assert made.provenance.seed == 123
    other = maker().make(replace(asked, batch=BatchId(0, 0)), None, None).batch
    assert np.array_equal(other.images, made.images)  # the id is a name and no seed
    assert not np.array_equal(maker().make(replace(asked, seed=124), None, None).batch.images, made.images)


def test_targets_that_are_listed_reach_the_batch():
    config = replace(CONFIG, synthesis=tiny_synthesis(targets={"rule": "listed", "classes": (3, 8, 8)}))
    assert make(BatchId(0, 1), config=config).targets.tolist() == [8, 3, 8, 8, 3, 8, 8, 3]


def test_a_maker_without_a_student_makes_what_nobody_competes_with():
    alone = BatchMaker("a run", tiny_teacher(), tiny_synthesis(method="deep_inversion"))
    made = alone.make(order(BatchId(0, 0)), None, None)
    assert made.batch.provenance.generator == 0 and "competition" not in made.curve


def test_the_curve_ends_in_the_recorded_losses_and_notes_are_empty_where_all_went_well():
    made = maker().make(order(BatchId(1, 0)), snapshot(), None)
    assert isinstance(made, Made) and made.notes == ()
    assert {name: points[-1][1] for name, points in made.curve.items()} == made.batch.provenance.losses


def test_images_of_several_stages_are_a_batch_like_any_other():
    config = replace(CONFIG, synthesis=tiny_synthesis(stages=({"size": (4, 4)}, {})))
    made = make(BatchId(1, 0), snapshot(), make(BatchId(0, 0)), config=config)
    assert made.images.shape == (8, 1, 8, 8) and made.provenance.source == "r0000-b0000"


def test_progress_is_told_up_to_the_end():
    shares: list[float] = []
    maker().make(order(BatchId(0, 0)), None, None, shares.append)
    assert shares == sorted(set(shares)) and shares[0] > 0.0 and shares[-1] == 1.0


@pytest.mark.parametrize("network", [Narrow, NarrowWithoutGradients], ids=["updates", "finished images"])
def test_a_batch_made_in_chunks_has_a_recipe_that_says_so(network):
    whole = maker().make(order(BatchId(0, 0)), None, None).batch.provenance.recipe
    teacher = replace(tiny_teacher(), network=network(tiny_network().eval(), 4))
    kept = BatchMaker("a run", teacher, CONFIG.synthesis)
    first, second, third = (kept.make(order(BatchId(0, 0)), None, None) for _ in range(3))
    assert first.notes and second.notes == third.notes == ()
    assert first.batch.provenance.recipe == ""  # a part of it was made in one way, and the rest in another
    assert second.batch.provenance.recipe == third.batch.provenance.recipe not in ("", whole)
