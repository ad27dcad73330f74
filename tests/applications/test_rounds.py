from dataclasses import replace

import numpy as np
import pytest
import torch

from raydream.applications.rounds import Rounds, rounds_of, run_rounds
from raydream.config import DistillConfig
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import fingerprint, to_arrays
from tests.tiny import shard_path, tiny_synthesis, tiny_teacher

CONFIG = DistillConfig(
    seed=3,
    synthesis=tiny_synthesis(iterations=4, coefficients={"competition": 200.0}),
    student={"arguments": {"width": 8}, "batch_size": 8},
    buffer={"samples_per_insert": 2},
    rounds={"initial_batches": 3, "count": 2, "batches": 2, "final_steps": 3},
)
STEPS_PER_ROUND = 4  # 2 batches x 8 images x 2 samples per insert / 8 images per step


def outcome(rounds: Rounds) -> tuple[str, list[bytes]]:
    arrays = [(b.images, b.targets, b.teacher_logits) for b in rounds.batches]
    return fingerprint(to_arrays(rounds.student)), [array.tobytes() for batch in arrays for array in batch]


@pytest.fixture(scope="module")
def rounds() -> Rounds:
    return run_rounds(CONFIG, tiny_teacher())


def test_a_run_can_be_repeated_to_the_bit(rounds):
    torch.manual_seed(99)
    np.random.seed(99)
    again = run_rounds(CONFIG, tiny_teacher())
    assert outcome(again) == outcome(rounds)
    assert [b.provenance for b in again.batches] == [b.provenance for b in rounds.batches]


def test_committed_batches_are_taken_as_they_are_and_the_rest_is_made(rounds, tmp_path):
    store = ShardStore(tmp_path)
    run_rounds(CONFIG, tiny_teacher(), store=store)
    assert store.committed() == [batch.id for batch in rounds.batches]
    darker = replace(store.read(BatchId(0, 1)), images=store.read(BatchId(0, 1)).images // 2)
    for batch in (BatchId(0, 1), BatchId(0, 2)):
        shard_path(store, batch).unlink()
    store.write(darker)
    again = run_rounds(CONFIG, tiny_teacher(), store=store)
    assert np.array_equal(again.batches[1].images, darker.images)
    assert np.array_equal(again.batches[2].images, rounds.batches[2].images) and store.has(BatchId(0, 2))


def test_another_run_seed_gives_another_run(rounds):
    other = outcome(run_rounds(replace(CONFIG, seed=4), tiny_teacher()))
    mine = outcome(rounds)
    assert other[0] != mine[0] and other[1][0] != mine[1][0]


def test_what_the_configuration_says_of_processes_is_not_looked_at(rounds):
    spread = replace(CONFIG, generators={"count": 7}, buffer={"samples_per_insert": 2, "block_steps": 3})
    assert outcome(run_rounds(spread, tiny_teacher())) == outcome(rounds)


def test_all_batches_are_there_in_the_order_of_their_ids(rounds):
    expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [batch.id for batch in rounds.batches] == [BatchId(*pair) for pair in expected]
    assert len({batch.images.tobytes() for batch in rounds.batches}) == 7


def test_each_round_competes_with_the_snapshot_at_its_beginning(rounds):
    steps = [batch.provenance.student_step for batch in rounds.batches]
    assert steps == [None] * 3 + [STEPS_PER_ROUND] * 2 + [2 * STEPS_PER_ROUND] * 2
    assert ["competition" in batch.provenance.losses for batch in rounds.batches] == [False] * 3 + [True] * 4


def test_images_without_a_competition_name_no_snapshot_and_do_not_depend_on_the_student():
    def images(learning_rate: float) -> list[bytes]:
        config = replace(
            CONFIG,
            synthesis=tiny_synthesis(iterations=2, method="deep_inversion"),
            student={"arguments": {"width": 8}, "batch_size": 8, "learning_rate": learning_rate},
        )
        made = run_rounds(config, tiny_teacher()).batches
        assert {batch.provenance.student_step for batch in made} == {None}
        return [batch.images.tobytes() for batch in made]

    assert images(0.1) == images(0.3)


def test_targets_are_balanced_over_the_run(rounds):
    counts = np.bincount(np.concatenate([batch.targets for batch in rounds.batches]), minlength=10)
    assert counts.sum() == 56 and counts.max() - counts.min() <= 1


def test_a_warm_start_records_its_source_and_keeps_its_targets():
    config = replace(CONFIG, synthesis=tiny_synthesis(iterations=2, start="images", learning_rate=1e-9))
    made = {batch.id: batch for batch in run_rounds(config, tiny_teacher()).batches}
    for batch in made.values():
        if batch.id.round == 0:
            assert batch.provenance.source is None
            continue
        source = made[BatchId.parse(batch.provenance.source)]
        assert source.id.round == 0
        assert np.array_equal(batch.targets, source.targets)
        assert np.array_equal(batch.images, source.images)  # the pixels hardly move at such a rate


def test_it_stops_at_the_end_of_each_round_with_the_student_as_it_is_then(rounds):
    told = [(now.step, to_arrays(now.student), len(now.batches)) for now in rounds_of(CONFIG, tiny_teacher())]
    assert [(step, batches) for step, _, batches in told] == [(4, 3), (8, 5), (11, 7)]
    prints = [fingerprint(arrays) for _, arrays, _ in told]
    assert len(set(prints)) == 3 and prints[-1] == fingerprint(to_arrays(rounds.student))
    assert told[0][1]["1.num_batches_tracked"] == 4


def test_the_student_comes_back_in_eval_mode_and_the_teacher_as_it_was(rounds):
    assert not any(module.training for module in rounds.student.modules())
    teacher = tiny_teacher()
    run_rounds(replace(CONFIG, rounds={"initial_batches": 1, "count": 0, "final_steps": 2}), teacher)
    assert fingerprint(to_arrays(teacher.network)) == teacher.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"precision": "auto"},
        {"chunk_size": 3},
        {"stages": ({"size": (4, 4), "iterations": 2}, {})},
        {"targets": {"rule": "weighted", "weights": (1.0,) * 5 + (0.0,) * 5}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_of_other_settings_can_be_repeated_to_the_bit_too(changes):
    short = {"initial_batches": 2, "count": 1, "batches": 1, "final_steps": 1}
    config = replace(CONFIG, synthesis=replace(CONFIG.synthesis, **changes), rounds=short)
    first, again = (outcome(run_rounds(config, tiny_teacher())) for _ in range(2))
    assert first == again


def test_targets_follow_their_rule_over_the_run():
    synthesis = replace(CONFIG.synthesis, iterations=1, targets={"rule": "listed", "classes": (6, 0, 0)})
    batches = run_rounds(replace(CONFIG, synthesis=synthesis), tiny_teacher()).batches
    found = np.concatenate([batch.targets for batch in batches])
    assert found.tolist() == [(6, 0, 0)[index % 3] for index in range(56)]


def learning(method: str, chains: int = 1, lockstep: bool = True) -> DistillConfig:
    generator = {"latent": 6, "width": 4, "learning_rate": 0.01, "chains": chains}
    return replace(
        CONFIG,
        synthesis=tiny_synthesis(method=method, iterations=3, generator=generator),
        rounds={"initial_batches": 3, "count": 2, "batches": 2, "final_steps": 3, "lockstep": lockstep},
    )


def test_each_batch_of_a_learning_method_sets_out_from_the_one_so_many_chains_before_it():
    for chains in (1, 3):
        batches = run_rounds(learning("fast", chains), tiny_teacher()).batches
        ids = [str(batch.id) for batch in batches]
        assert [batch.provenance.after for batch in batches] == [*[None] * chains, *ids[:-chains]]
    assert {batch.provenance.after for batch in run_rounds(CONFIG, tiny_teacher()).batches} == {None}


@pytest.mark.parametrize(
    ("method", "lost"), [("dafl", [6]), ("fast", [4, 5, 6]), ("dafl", [1, 5]), ("noisy", [3, 4, 6])], ids=str
)
def test_what_was_learned_comes_back_where_a_run_goes_on_from_its_folder(method, lost, tmp_path):
    config, store = learning(method, chains=2), ShardStore(tmp_path)
    whole = run_rounds(config, tiny_teacher(), store)
    for index in lost:
        shard_path(store, whole.batches[index].id).unlink()
    again = run_rounds(config, tiny_teacher(), store)
    assert outcome(again) == outcome(whole) == outcome(run_rounds(config, tiny_teacher()))


def test_without_lockstep_only_the_newest_of_what_was_learned_is_kept(tmp_path):
    run_rounds(learning("fast", chains=2, lockstep=False), tiny_teacher(), ShardStore(tmp_path))
    kept = sorted(path.name for path in tmp_path.glob("_learned-*"))
    assert kept == [
        f"_learned-{batch}.safetensors" for batch in ("r0001-b0000", "r0001-b0001", "r0002-b0000", "r0002-b0001")
    ]


def test_dafl_says_what_the_teacher_sees():
    for batch in run_rounds(learning("dafl"), tiny_teacher()).batches:
        assert np.array_equal(batch.targets, batch.teacher_logits.argmax(1)) and batch.provenance.target_share == 1.0
