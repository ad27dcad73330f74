import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydream.evaluation.accuracy import accuracy, logits_of
from raydream.teachers.normalization import Normalization
from raydream.teachers.teacher import fingerprint, to_arrays
from tests.tiny import tiny_network

NORMALISATION = Normalization((0.3,), (0.35,))
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 1, 8, 8), dtype=np.uint8)


class ReadsThePixel(nn.Module):
    """Names the class that the image's brightness encodes, in tens."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = (x * 0.35 + 0.3).mean((1, 2, 3)) * 255
        return -(brightness[:, None] - 10.0 * torch.arange(5)).abs()


@pytest.mark.parametrize("batch_size", [1, 2, 7, 500])
def test_accuracy_is_the_share_of_images_whose_highest_logit_is_their_label(batch_size):
    shown = np.array([0, 1, 2, 3, 4, 0, 1])
    images = np.broadcast_to((10 * shown).astype(np.uint8)[:, None, None, None], (7, 1, 8, 8))
    labels = np.array([0, 1, 2, 0, 4, 1, 1])
    assert accuracy(ReadsThePixel(), NORMALISATION, images, labels, batch_size) == 5 / 7


def test_accuracy_equals_a_loop_over_single_images_whatever_the_batch_size():
    network = tiny_network().eval()
    labels = np.random.default_rng(1).integers(0, 3, len(IMAGES))
    hits = 0
    for image, label in zip(IMAGES, labels, strict=True):
        with torch.no_grad():
            logits = network(NORMALISATION(torch.from_numpy(image[None])))[0]
        hits += max(range(10), key=lambda k: logits[k].item()) == label
    found = {accuracy(network, NORMALISATION, IMAGES, labels, size) for size in (1, 5, 23, 500)}
    assert found == {hits / 23}


def test_all_right_is_one_and_all_wrong_is_zero():
    black = np.zeros((3, 1, 8, 8), np.uint8)
    assert accuracy(ReadsThePixel(), NORMALISATION, black, np.zeros(3, int)) == 1.0
    assert accuracy(ReadsThePixel(), NORMALISATION, black, np.ones(3, int)) == 0.0


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_measured_in_eval_mode_and_left_in_its_own(training):
    network = tiny_network().train(training)
    before = fingerprint(to_arrays(network))
    modes = []
    network.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    accuracy(network, NORMALISATION, IMAGES, np.zeros(23, int), 10)
    assert modes == [False] * 3
    assert all(module.training == training for module in network.modules())
    assert fingerprint(to_arrays(network)) == before


def test_read_only_images_are_fine():
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    assert 0.0 <= accuracy(tiny_network(), NORMALISATION, frozen, np.zeros(23, int)) <= 1.0


def test_logits_are_those_of_all_images_in_order_and_modes_stay():
    network = tiny_network()
    said = logits_of(network, NORMALISATION, IMAGES, batch_size=5)
    assert network.training
    with torch.no_grad():
        expected = network.eval()(NORMALISATION(torch.from_numpy(IMAGES))).numpy()
    np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-5)
