"""A whole run without Ray: what it removes, that it recovers, and that it goes on exactly where it was stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydream.applications.pruning import (
    CHECKPOINT,
    Pruning,
    RecoveryStage,
    StageReport,
    described,
    stages_of,
    total_steps,
)
from raydream.config import AdditionsConfig, PruneConfig, PruningConfig, StudentConfig
from raydream.evaluation.latency import Latency, filters_of, flops_of
from raydream.networks import build_teacher
from raydream.store.folders import LocalFolder
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import make_teacher
from tests.tiny import WIDTH, tiny_synthesis, tiny_teacher

SHAPE = (1, 8, 8)


def config_of(additions: AdditionsConfig | None = None, **changes: object) -> PruneConfig:
    pruning = {"ratio": 0.4, "steps": 2, "batches": 2, "between_epochs": 1, "epochs": 2, **changes}
    teacher = replace(tiny_teacher().config, checkpoint="somewhere")
    return PruneConfig(
        images="somewhere",
        seed=7,
        teacher=teacher,
        pruning=PruningConfig(**pruning),
        additions=additions or AdditionsConfig(),
        synthesis=tiny_synthesis(),
        student=StudentConfig(network="teacher", batch_size=16, learning_rate=0.02, precision="fp32"),
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)


def pruned(config: PruneConfig, images: np.ndarray, **given: object) -> torch.nn.Module:
    return Pruning(config, tiny_teacher(), images, **given).run()


def assert_equal(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_stages_follow_from_the_configuration():
    stages = stages_of(config_of(additions=AdditionsConfig(rounds=1, epochs=3)))
    assert stages == [
        RecoveryStage("remove", 0),
        RecoveryStage("distill", 0, 1, "constant"),
        RecoveryStage("remove", 1),
        RecoveryStage("distill", 1, 2, "cosine"),
        RecoveryStage("add", 0),
        RecoveryStage("distill", 2, 3, "cosine"),
    ]
    assert [stage.kind for stage in stages_of(config_of(between_epochs=0, epochs=0))] == ["remove", "remove"]


@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "random"])
@pytest.mark.parametrize(("of", "count"), [("filters", filters_of), ("flops", lambda net: flops_of(net, SHAPE))])
def test_the_share_asked_for_is_removed(criterion, of, count, images):
    told: list[tuple[str, int]] = []

    def tell(each: StageReport) -> None:
        told.append((each.stage.kind, count(each.network)))

    network = pruned(config_of(criterion=criterion, of=of), images, report=tell)
    before = count(tiny_teacher().network)
    most = 2 * WIDTH * 5 if of == "filters" else 0.1 * before  # the most that a single channel counts
    removals = [left for kind, left in told if kind == "remove"]
    for left, goal in zip(removals, (0.8, 0.6), strict=True):
        assert goal * before - most <= left <= goal * before
    assert count(network) == removals[-1] and not network.training
    assert [kind for kind, _ in told] == ["remove", "distill", "remove", "distill", "distill"]


def test_distillation_brings_the_network_closer_to_the_teacher(images):
    losses: list[float] = []
    pruned(config_of(epochs=20), images, report=lambda told: losses.extend(told.losses[:1]))
    assert losses[-1] < 0.5 * losses[1]


def test_the_teacher_is_left_alone(images):
    teacher = tiny_teacher()
    Pruning(config_of(), teacher, images).run()
    assert_equal(teacher.network, tiny_teacher().network)
    assert not teacher.network.training and not any(weight.requires_grad for weight in teacher.network.parameters())


def test_the_seed_decides(images):
    assert_equal(pruned(config_of(), images), pruned(config_of(), images))
    other = pruned(replace(config_of(), seed=8), images)
    one = pruned(config_of(), images)
    assert any(
        value.shape != other.state_dict()[name].shape or not torch.equal(value, other.state_dict()[name])
        for name, value in one.state_dict().items()
    )


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.long)])
def test_a_run_goes_on_where_it_was_stopped(optimizer, images, tmp_path):
    """Stopped after each thing that it tells, one after the other, a checkpoint of which may be missing."""
    config = config_of(additions=AdditionsConfig(rounds=2, batches=2, epochs=2))
    config = replace(config, student=replace(config.student, optimizer=optimizer))
    whole, told = [], []
    expected = pruned(config, images, store=ShardStore(tmp_path / "whole"), report=whole.append)

    for count in range(1, 100):
        left = count

        def tell(each: StageReport) -> None:
            nonlocal left
            told.append(each)
            left -= 1
            if not left:
                raise Stopped

        folder, store = LocalFolder(tmp_path / "stopped"), ShardStore(tmp_path / "images")
        try:
            network = pruned(config, images, folder=folder, store=store, report=tell)
            break
        except Stopped:
            pass
    assert count > 3
    assert_equal(network, expected)
    assert len(store.committed()) == 4 and not any(each.note for each in told)
    last = [each for each in told if each.step == whole[-1].step][-1]
    assert (last.losses == whole[-1].losses).all()


def test_a_finished_run_has_nothing_left_to_do(images, tmp_path):
    folder, told = LocalFolder(tmp_path / "kept"), []
    one = pruned(config_of(), images, folder=folder)
    assert_equal(one, pruned(config_of(), images, folder=folder, report=told.append))
    assert not told and [path.name for path in (tmp_path / "kept").iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("damage", [lambda whole: whole[:1000], lambda whole: whole[:-9] + b"x" + whole[-8:]])
def test_a_damaged_checkpoint_is_set_aside(damage, images, tmp_path):
    folder, told = LocalFolder(tmp_path / "kept"), []
    one = pruned(config_of(), images, folder=folder)
    path = tmp_path / "kept" / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    assert_equal(one, pruned(config_of(), images, folder=folder, report=told.append))
    assert "damaged" in told[0].note and len(list((tmp_path / "kept").iterdir())) == 2


def test_added_images_compete_with_the_pruned_network(images, tmp_path):
    store, told = ShardStore(tmp_path / "images"), []
    config = config_of(additions=AdditionsConfig(rounds=1, batches=2, epochs=1))
    pruned(config, images, store=store, report=told.append)
    steps = [each.step for each in told if each.stage.kind == "add"]
    for batch in store.committed():
        made = store.read(batch)
        assert made.provenance.student_step == steps[0] and made.provenance.method == "adaptive"
        assert "competition" in made.provenance.losses
    # 40 images in 3 steps of at most 16, and 56 in 4.
    assert [len(each.losses) for each in told if each.stage.kind == "distill"] == [3, 3, 3, 4]
    assert total_steps(config, len(images)) == told[-1].step == 13


def test_what_makes_nothing_faster_stays_and_is_told(images, tmp_path, monkeypatch):
    monkeypatch.setattr("raydream.pruning.latency_table.LatencyTable._measure", lambda *_: Latency(1.0, 1.0, 1.0, 1, 1))
    told: list[StageReport] = []
    config = config_of(eta=1.0, latency_tables=str(tmp_path / "tables"))
    network = pruned(config, images, report=told.append)
    assert filters_of(network) == filters_of(tiny_teacher().network)
    assert "100.0% of the filters stay and not 80.0%: no other removal" in told[0].note


def test_a_description_builds_the_network_and_can_be_pruned_again(images):
    config = config_of()
    network = pruned(config, images)
    once = described(config.teacher, network)
    assert once.arguments["of"] == "digits" and once.arguments["width"] == WIDTH
    rebuilt = build_teacher(once)
    rebuilt.load_state_dict(network.state_dict())
    teacher = make_teacher(rebuilt, replace(once, checkpoint="somewhere"))
    smaller = Pruning(replace(config, teacher=teacher.config), teacher, images).run()
    again = described(once, smaller)
    build_teacher(again).load_state_dict(smaller.state_dict())
    assert filters_of(smaller) <= 0.6 * filters_of(network)
    assert again.arguments["of"] == "digits" and again.network == "pruned"
