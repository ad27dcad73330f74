"""Other networks on the images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydream.evaluation.cross_model import target_shares
from raydream.store.records import ImageBatch
from tests.tiny import some_batch, tiny_teacher


def batch_of(count: int, seed: int, size: int = 8) -> ImageBatch:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 1, size, size), dtype=np.uint8)
    made = some_batch(f"r0000-b{seed:04d}", count)
    return ImageBatch(images, random.integers(0, 10, count), made.teacher_logits, made.provenance)


@pytest.mark.parametrize("chunk", [3, 250])
def test_hits_are_counted_by_class_over_all_batches(chunk):
    verifier, batches = tiny_teacher(), [batch_of(11, 1), batch_of(7, 2)]
    counts = target_shares(batches, verifier, chunk)
    expected = np.zeros((10, 2), int)
    for batch in batches:
        for image, target in zip(batch.images, batch.targets, strict=True):
            named = int(verifier.logits(torch.from_numpy(image[None])).argmax())
            expected[target] += (named == target, 1)
    assert np.array_equal(counts, expected) and counts[:, 1].sum() == 18


def test_a_network_names_its_own_answers_as_targets():
    verifier, batch = tiny_teacher(), batch_of(20, 3)
    named = verifier.logits(torch.from_numpy(batch.images)).argmax(1).numpy()
    counts = target_shares([replace(batch, targets=named)], verifier)
    assert counts[:, 0].sum() == counts[:, 1].sum() == 20
    counts = target_shares([replace(batch, targets=(named + 1) % 10)], verifier)
    assert counts[:, 0].sum() == 0 and counts[:, 1].sum() == 20


def test_images_of_another_size_are_resized():
    large = batch_of(6, 4)
    large = replace(large, images=large.images.repeat(2, axis=2).repeat(2, axis=3))
    assert target_shares([large], tiny_teacher())[:, 1].sum() == 6
