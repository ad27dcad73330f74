import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydream.config import StageConfig, SynthesisConfig
from raydream.synthesis import SYNTHESIZERS, Request, Synthesis
from raydream.synthesis.stages import Stage, learning_rate, learning_rate_at, stages_of, updates_of
from raydream.teachers.teacher import Teacher
from tests.tiny import tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

TWO = ({"size": (4, 4)}, {})


def rates(config: SynthesisConfig) -> list[float]:
    return [learning_rate_at(config, update) for update in range(updates_of(config))]


def slow_rate(peak: float, warm_up: int, decay: str, iterations: int, iteration: int) -> float:
    """A straight line up to the peak over the warm-up, then the squared cosine of a quarter turn over the rest."""
    if iteration < warm_up:
        return peak * (iteration + 1) / warm_up
    turned = (iteration - warm_up) / (iterations - warm_up)
    return peak if decay == "constant" else peak * math.cos(0.25 * 2 * math.pi * turned) ** 2


def synthesize(method: str = "deep_inversion", seed: int = 0, teacher: Teacher | None = None, **changes) -> Synthesis:
    request = {name: changes.pop(name) for name in ("student", "start") if name in changes}
    config = tiny_synthesis(method=method, **changes)
    return SYNTHESIZERS[method](teacher or tiny_teacher(), config).synthesize(Request(tiny_targets(), seed, **request))


def some_images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8))


def test_without_stages_there_is_one_at_the_teachers_size():
    config = SynthesisConfig(iterations=7, learning_rate=0.3, betas=(0.5, 0.9), jitter=4)
    assert stages_of(config, (6, 8)) == [Stage((6, 8), 7, 0.3, (0.5, 0.9), 4, "nearest")]


@pytest.mark.parametrize(("method", "betas"), [("fast", (0.5, 0.999)), ("dafl", (0.9, 0.999))])
def test_a_generator_network_learns_at_a_constant_rate_with_the_betas_of_its_methods_paper(method, betas):
    pixels = {"learning_rate": 0.3, "betas": (0.1, 0.2), "decay": "cosine", "warm_up": 2}
    config = SynthesisConfig(method=method, iterations=4, generator={"learning_rate": 0.01}, **pixels)
    assert stages_of(config, (6, 8)) == [Stage((6, 8), 4, 0.01, betas, 2, "nearest")]
    assert rates(config) == [0.01] * 4
    others = SynthesisConfig(method=method, generator={"betas": (0.3, 0.4)}, **pixels)
    assert stages_of(others, (6, 8))[0].betas == (0.3, 0.4)


def test_what_a_stage_leaves_open_is_as_the_synthesis_says():
    config = SynthesisConfig(iterations=7, learning_rate=0.3, betas=(0.5, 0.9), jitter=4, stages=({},))
    assert stages_of(config, (6, 8)) == stages_of(SynthesisConfig(**(vars(config) | {"stages": ()})), (6, 8))


def test_what_a_stage_says_counts_for_that_stage_alone():
    first = {
        "size": (3, 5),
        "iterations": 2,
        "learning_rate": 0.1,
        "betas": (0.0, 0.0),
        "jitter": 0,  # not the same as leaving it open
        "upsampling": "bicubic",
    }
    config = SynthesisConfig(iterations=7, learning_rate=0.3, betas=(0.5, 0.9), jitter=4, stages=(first, {}))
    assert stages_of(config, (6, 8)) == [
        Stage((3, 5), 2, 0.1, (0.0, 0.0), 0, "bicubic"),
        Stage((6, 8), 7, 0.3, (0.5, 0.9), 4, "nearest"),
    ]


def test_stages_can_be_given_as_they_are_built():
    config = SynthesisConfig(stages=(StageConfig(size=(4, 4)), StageConfig(jitter=9)))
    assert [(stage.size, stage.jitter) for stage in stages_of(config, (8, 8))] == [((4, 4), 2), ((8, 8), 9)]


@pytest.mark.parametrize(
    ("stages", "updates"), [((), 7), (({},), 7), (({"iterations": 3}, {}), 10), (({"iterations": 1},) * 4, 4)]
)
def test_updates_add_up_over_the_stages(stages, updates):
    config = SynthesisConfig(iterations=7, stages=stages)
    assert updates_of(config) == updates == sum(stage.iterations for stage in stages_of(config, (8, 8)))


@pytest.mark.parametrize("decay", ["constant", "cosine"])
@pytest.mark.parametrize("warm_up", [0, 1, 3, 9])
def test_the_learning_rate_follows_the_formula(warm_up, decay):
    config = SynthesisConfig(iterations=10, learning_rate=0.2, warm_up=warm_up, decay=decay)
    (stage,) = stages_of(config, (8, 8))
    found = [learning_rate(config, stage, iteration) for iteration in range(10)]
    assert found == pytest.approx([slow_rate(0.2, warm_up, decay, 10, i) for i in range(10)], rel=1e-12)
    assert found == rates(config)


def test_a_constant_learning_rate_stays():
    assert set(rates(SynthesisConfig(iterations=6, learning_rate=0.3))) == {0.3}


def test_the_cosine_falls_from_the_peak_through_half_of_it_towards_zero():
    found = rates(SynthesisConfig(iterations=100, learning_rate=1.0, decay="cosine"))
    assert found[0] == 1.0 and found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 1e-3


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_the_warm_up_rises_to_the_peak_in_even_steps_and_never_starts_at_zero(decay):
    found = rates(SynthesisConfig(iterations=20, learning_rate=1.0, decay=decay, warm_up=5))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and found[5] == 1.0
    assert found[5:] == sorted(found[5:], reverse=True)


@pytest.mark.parametrize("decay", ["constant", "cosine"])
@pytest.mark.parametrize("warm_up", [4, 5, 100])
def test_a_warm_up_as_long_as_the_stage_never_ends(warm_up, decay):
    found = rates(SynthesisConfig(iterations=4, learning_rate=1.0, decay=decay, warm_up=warm_up))
    assert found == pytest.approx([(i + 1) / warm_up for i in range(4)])


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_each_stage_has_a_warm_up_a_peak_and_a_decay_of_its_own(decay):
    stages = ({"iterations": 4, "learning_rate": 0.5}, {"iterations": 6}, {"iterations": 3, "learning_rate": 0.1})
    config = SynthesisConfig(learning_rate=0.2, warm_up=2, decay=decay, stages=stages)
    lengths, peaks = (4, 6, 3), (0.5, 0.2, 0.1)
    expected = [slow_rate(p, 2, decay, n, i) for n, p in zip(lengths, peaks, strict=True) for i in range(n)]
    assert rates(config) == pytest.approx(expected, rel=1e-12)


def test_there_is_no_learning_rate_after_the_last_update():
    config = SynthesisConfig(stages=({"iterations": 4}, {"iterations": 2}))
    learning_rate_at(config, 5)
    with pytest.raises(ValueError, match="after the last stage"):
        learning_rate_at(config, 6)


@pytest.mark.parametrize(
    "setting", [{"iterations": 3}, {"learning_rate": 0.3}, {"betas": (0.0, 0.5)}, {"jitter": 3}], ids=str
)
def test_a_setting_of_the_only_stage_does_what_it_does_for_the_synthesis(setting):
    plain, general, staged = synthesize(), synthesize(**setting), synthesize(stages=(setting,))
    assert torch.equal(general.images, staged.images) and general.curve == staged.curve
    assert not torch.equal(plain.images, staged.images)


@pytest.mark.parametrize("method", ["noise", "deepdream", "deep_inversion", "adaptive"])
def test_images_of_several_stages_have_the_teachers_size(method):
    student = {"student": tiny_student()} if method == "adaptive" else {}
    made = synthesize(method, stages=TWO, **student)
    assert made.images.shape == (8, 1, 8, 8) and made.images.dtype == torch.uint8
    again = synthesize(method, stages=TWO, **student)
    assert torch.equal(made.images, again.images) and made.losses == again.losses


def test_the_numbers_of_updates_run_on_over_the_stages():
    made = synthesize(stages=({"size": (4, 4), "iterations": 5}, {"iterations": 4}))
    for points in made.curve.values():
        assert [update for update, _ in points] == list(range(9))
    long = synthesize(stages=({"size": (4, 4), "iterations": 30}, {"iterations": 15}))
    updates = [update for update, _ in long.curve["tv"]]
    assert updates == sorted(set(updates)) and updates[0] == 0 and updates[-1] == 44
    assert len(updates) <= 24 and any(update < 30 for update in updates) and any(update >= 30 for update in updates)


def blocks(images: Tensor) -> Tensor:
    """[N,C,H/2,W/2,4]: the pixels of each block of two by two."""
    count, channels, height, width = images.shape
    split = images.reshape(count, channels, height // 2, 2, width // 2, 2)
    return split.permute(0, 1, 2, 4, 3, 5).flatten(4)


def test_pixels_become_blocks_where_the_next_stage_hardly_moves_them():
    still = {"iterations": 1, "learning_rate": 1e-9}
    first = {"size": (4, 4), "iterations": 10}
    even = blocks(synthesize(stages=(first, still)).images)
    assert bool((even == even[..., :1]).all()) and len(even.unique()) > 50
    smooth = blocks(synthesize(stages=(first, {"upsampling": "bilinear", **still})).images)
    assert not bool((smooth == smooth[..., :1]).all())


def test_the_first_stage_decides_the_images_of_the_second():
    first = {"size": (4, 4), "iterations": 10}
    still = {"iterations": 1, "learning_rate": 1e-9}
    coarse = synthesize(stages=(first, still)).images[..., ::2, ::2].double()
    fine = synthesize(stages=(first, {"iterations": 10})).images.double()
    unrelated = synthesize(stages=(first, still), seed=1).images[..., ::2, ::2].double()

    def likeness(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    shrunk = nn.functional.avg_pool2d(fine, 2)
    assert likeness(shrunk, coarse) > 0.6 and likeness(shrunk, coarse) > likeness(shrunk, unrelated) + 0.3


def test_the_first_pixels_are_noise_of_the_first_stages_size():
    noise = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    quiet = {"iterations": 1, "learning_rate": 1e-9}
    made = synthesize(seed=3, stages=({"size": (4, 4), **quiet}, quiet))
    expected = tiny_teacher().normalization.canvas().quantize(noise).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(made.images, expected)


def test_the_teacher_sees_the_images_of_each_stage_in_its_size():
    seen: list[tuple[int, ...]] = []
    teacher = tiny_teacher()
    teacher.network.register_forward_pre_hook(lambda network, inputs: seen.append(tuple(inputs[0].shape)))
    synthesize("noise", teacher=teacher, stages=({"size": (4, 6), "iterations": 2}, {"iterations": 3}))
    assert seen[-5:] == [(8, 1, 4, 6)] * 2 + [(8, 1, 8, 8)] * 3


def test_adam_starts_afresh_in_each_stage():
    # Its first step moves each pixel by the whole learning rate, whatever was before.
    teacher = tiny_teacher()
    first = {"iterations": 5, "learning_rate": 0.3}
    still = synthesize(teacher=teacher, stages=(first, {"iterations": 1, "learning_rate": 1e-9}), jitter=0, clip=False)
    moved = synthesize(teacher=teacher, stages=(first, {"iterations": 1, "learning_rate": 0.2}), jitter=0, clip=False)
    inside = (still.images > 30) & (still.images < 225)
    steps = (moved.images.int() - still.images.int())[inside].abs()
    whole = 0.2 * 0.225 * 255
    assert inside.sum() > 100 and float(((steps - whole).abs() <= 1.0).float().mean()) > 0.9


def test_a_warm_start_begins_in_the_smaller_size_of_the_first_stage():
    start, quiet = some_images(), {"iterations": 1, "learning_rate": 1e-9}
    made = synthesize(start=start, stages=({"size": (4, 4), **quiet}, quiet))
    even = blocks(made.images)
    assert bool((even == even[..., :1]).all())
    # Shrunk by averages that overlap the neighbouring blocks a little: bilinear, antialiased.
    means = blocks(start).double().mean(-1)
    assert (even[..., 0].double() - means).abs().mean() < 0.5 * (means - means.mean()).abs().mean()
    triangle = torch.tensor([0.25, 0.75, 0.75, 0.25])
    for i, j in itertools.product((1, 2), (1, 2)):  # away from the border, where the triangle is whole
        patch = start[:, :, 2 * i - 1 : 2 * i + 3, 2 * j - 1 : 2 * j + 3].double()
        expected = (patch * torch.outer(triangle, triangle) / 4).sum((2, 3))
        assert (even[:, :, i, j, 0].double() - expected).abs().max() <= 1.0


def test_a_warm_start_in_the_teachers_size_begins_with_its_own_pixels():
    start, quiet = some_images(), {"iterations": 1, "learning_rate": 1e-9}
    assert torch.equal(synthesize(start=start, stages=(quiet, quiet)).images, start)
