"""Updates as captured graphs, by a stand-in for CUDA's: it runs the captured code again, into the same tensors."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raydream.errors import SynthesisError
from raydream.synthesis import SYNTHESIZERS, Request, gradient, graphed
from raydream.synthesis.gradient import Evaluation
from raydream.synthesis.graphed import GraphedUpdates, Update, moved, seen
from raydream.synthesis.inversion import Inversion
from raydream.synthesis.updates import Updates
from raydream.synthesis.view import View
from tests.synthesis.test_checkpoint import killed_at
from tests.tiny import tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

SETTINGS: dict[str, dict[str, object]] = {
    "deep_inversion": {"method": "deep_inversion", "flip": True, "jitter": 2},
    "adaptive": {"method": "adaptive", "coefficients": {"competition": 50.0}},
    "stages": {"method": "deep_inversion", "stages": [{"size": (4, 4), "iterations": 5}, {"iterations": 8}]},
    "unclipped": {"method": "deepdream", "clip": False, "decay": "cosine"},
}


def repeated(update: Update) -> tuple[Callable[[], None], Evaluation]:
    """Capture as CUDA does: what a repetition computes is in the tensors of the captured pass."""
    kept = update()

    def replay() -> None:
        new = update()
        kept.total.copy_(new.total)
        for name, value in new.values.items():
            kept.values[name].copy_(value)
        if kept.distances is not None and new.distances is not None:
            kept.distances.copy_(new.distances)

    return replay, kept


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that returns the code as it is: what matters here is what is computed."""
    for module in (gradient, graphed):
        monkeypatch.setattr(module, "compiled_alone", lambda function: function)


def synthesizer(settings: dict[str, object], capture: object = None, **changes: object) -> Inversion:
    config = tiny_synthesis(**{"iterations": 20, "compile": "on", **settings, **changes})
    made = SYNTHESIZERS[config.method](tiny_teacher(), config)
    assert isinstance(made, Inversion)
    made.engine.graphs.capture = capture  # type: ignore[assignment]
    return made


def request(settings: dict[str, object], seed: int = 0) -> Request:
    return Request(tiny_targets(), seed, tiny_student(seed) if settings["method"] == "adaptive" else None)


@pytest.mark.parametrize("case", SETTINGS)
def test_graphs_make_the_images_of_the_plain_loop(case):
    plain, captured = synthesizer(SETTINGS[case]), synthesizer(SETTINGS[case], repeated)
    for seed in (0, 1):  # the second batch of the same graphs, and another student
        expected, found = (made.synthesize(request(SETTINGS[case], seed)) for made in (plain, captured))
        assert found.notes == ()
        assert (expected.images.int() - found.images.int()).abs().max() <= 1
        assert found.losses == pytest.approx(expected.losses, rel=1e-3, abs=1e-5)
        assert found.distances == pytest.approx(expected.distances, rel=1e-3)


def test_all_batches_of_a_process_share_the_graphs():
    captured: list[Evaluation] = []

    def counting(update: Update) -> tuple[Callable[[], None], Evaluation]:
        replay, kept = repeated(update)
        captured.append(kept)
        return replay, kept

    made = synthesizer(SETTINGS["stages"], counting)
    for seed in range(3):
        made.synthesize(request(SETTINGS["stages"], seed))
    assert len(captured) == 2  # one for each stage


def test_a_batch_is_continued_from_a_checkpoint_to_the_same_bits():
    settings = SETTINGS["deep_inversion"]
    whole = synthesizer(settings, repeated).synthesize(request(settings))
    checkpoint = killed_at(7, request(settings), synthesizer(settings, repeated))
    continued = synthesizer(settings, repeated).synthesize(replace(request(settings), checkpoint=checkpoint))
    assert torch.equal(whole.images, continued.images) and whole.curve == continued.curve


def scaled(update: Update) -> tuple[Callable[[], None], Evaluation]:
    replay, kept = repeated(update)

    def wrong() -> None:
        replay()
        kept.total.mul_(1.2)

    return wrong, kept


def idle(update: Update) -> tuple[Callable[[], None], Evaluation]:
    return lambda: None, update()


def failing(update: Update) -> tuple[Callable[[], None], Evaluation]:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("capture", [scaled, idle, failing])
def test_a_graph_that_fails_or_computes_something_else_is_not_used_and_a_note_says_so(capture):
    settings = SETTINGS["deep_inversion"]
    plain, refused = synthesizer(settings), synthesizer(settings, capture)
    expected, found = (made.synthesize(request(settings)) for made in (plain, refused))
    assert torch.equal(expected.images, found.images) and expected.curve == found.curve
    assert len(found.notes) == 1 and found.notes[0].startswith("no CUDA graphs, ")
    assert refused.synthesize(request(settings, 1)).notes == ()  # said once
    assert "graphed" not in refused.engine.way()


@pytest.mark.parametrize("changes", [{"compile": "off"}, {"chunk_size": 4}])
def test_uncompiled_networks_and_chunks_are_not_captured(changes):
    settings = SETTINGS["deep_inversion"]
    made = synthesizer(settings, failing, **changes)
    assert made.synthesize(request(settings)).notes == ()


def test_the_recipe_says_that_updates_are_captured():
    assert synthesizer(SETTINGS["deep_inversion"], repeated).engine.way()["graphed"] is True


@pytest.mark.parametrize("bounds", [None, 0.3])
def test_an_update_is_that_of_torchs_adam(bounds):
    """Adam in double precision, by torch and written out, over views of all kinds."""
    made = synthesizer(SETTINGS["deep_inversion"])
    (stage,) = made._stages
    limits = None if bounds is None else (torch.full((1, 1, 1, 1), -bounds), torch.full((1, 1, 1, 1), bounds))
    pixels = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    given = tiny_targets(), made.engine.gradient(None), stage, limits
    captured = GraphedUpdates(pixels, *given, repeated)
    captured.begin(pixels, tiny_targets())
    plain = Updates(pixels.clone(), *given)
    for down in range(12):
        view, rate = View(down, -2 * down, down % 2), 0.01 * (1 + down)
        one, other = plain(view, rate), captured(view, rate)
        assert_close(one.total, other.total)
        assert_close(plain.pixels, captured.pixels, 1e-4)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert_close(plain.optimizer.state[plain.pixels][name], captured.optimizer.state[captured.pixels][name])


def test_what_is_captured_compiles_in_one_piece():
    pixels = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    given = torch.tensor([2.0, -1.0, 1.0, 0.1, 0.5], dtype=torch.float64)
    moments = torch.zeros_like(pixels), torch.zeros_like(pixels)
    compiled = torch.compile(seen, backend="eager", fullgraph=True)(pixels, given)
    assert torch.equal(compiled, View(2, -1, 1)(pixels))
    one, first, second = (each.clone() for each in (pixels, *moments))
    moved(one, pixels, first, second, given, (0.9, 0.999), None)
    other = pixels.clone()
    torch.compile(moved, backend="eager", fullgraph=True)(other, pixels, *moments, given, (0.9, 0.999), None)
    for expected, found in ((one, other), (first, moments[0]), (second, moments[1])):
        assert torch.allclose(expected, found)


def assert_close(one: Tensor, other: Tensor, absolute: float = 1e-6) -> None:
    assert torch.allclose(one, other, rtol=1e-3, atol=absolute)


def test_running_out_of_memory_in_the_trial_leaves_the_plain_loop_with_its_chunks(monkeypatch):
    settings = SETTINGS["deep_inversion"]
    made = synthesizer(settings, repeated)
    network = made.engine._network.network
    network.register_forward_pre_hook(lambda module, inputs: _refuse(inputs[0]))
    found = made.synthesize(request(settings))
    assert any("going on with 4" in note for note in found.notes)
    assert any("no CUDA graphs" in note for note in found.notes)


def _refuse(images: Tensor) -> None:
    if torch.is_grad_enabled() and len(images) > 4:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_diverging_batch_is_started_again():
    settings = SETTINGS["unclipped"]
    made = synthesizer(settings, repeated, learning_rate=1e38)
    with pytest.raises(SynthesisError, match="learning_rate"):
        made.synthesize(request(settings))
