"""The probe: what it runs, what it measures, and what a batch costs."""

from dataclasses import replace

import pytest
from torch import nn

from raydream.config import SynthesisConfig, TeacherConfig
from raydream.diagnosis.probe import (
    Probe,
    cost_of,
    kept_bytes,
    probe_settings,
    run_probe,
)
from raydream.teachers.teacher import make_teacher
from tests.tiny import tiny_synthesis, tiny_teacher


def settings(**changes: object) -> SynthesisConfig:
    return probe_settings(tiny_synthesis(**changes), tiny_teacher().network, 3)


def test_a_probe_is_without_a_student_in_one_small_batch():
    config = settings(method="adaptive", batch_size=512)
    assert (config.method, config.batch_size, config.iterations, config.compile) == ("deep_inversion", 32, 3, "off")
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert probe_settings(tiny_synthesis(), bare, 3).method == "deepdream"
    assert probe_settings(tiny_synthesis(method="noise"), bare, 3).method == "noise"
    assert settings(method="fast").method == "deep_inversion"


def test_a_probe_measures_what_it_made():
    probe = run_probe(tiny_teacher(), settings(), 0)
    assert 0 <= probe.target_share <= 1 and not probe.diverged and probe.seconds_per_update > 0
    assert probe.images == 8 and "feature" in probe.losses


def test_divergence_is_reported(monkeypatch):
    probe = run_probe(tiny_teacher(), replace(settings(clip=False), learning_rate=1e30), 0)
    assert probe.diverged and probe.target_share == 0 and probe.losses == {}


def test_kept_bytes_grow_with_the_images_and_hold_the_weights():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh())
    teacher = make_teacher(network, TeacherConfig())
    one, three = kept_bytes(teacher, 1), kept_bytes(teacher, 3)
    assert three - one == 2 * 10 * 4 and one == 4 * (64 * 10 + 10 + 10)  # tanh keeps its answer


@pytest.mark.parametrize(("free", "size"), [(2**40, 256), (0, 1)])
def test_the_batch_is_as_large_as_memory_allows(free, size):
    probe = Probe("deep_inversion", 8, 3, 0.1, {}, 0.5, {}, False, 0.01)
    cost = cost_of(tiny_teacher(), tiny_synthesis(iterations=100), probe, free)
    assert cost.batch_size == size
    assert cost.seconds_per_batch == pytest.approx(0.01 * size / 8 * 100)
