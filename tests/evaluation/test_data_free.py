import numpy as np
import pytest
import torch
from torch import nn

from raydream.evaluation.data_free import agreement, diversity, feature_distance, features
from raydream.teachers.teacher import Teacher, freeze
from tests.tiny import tiny_network, tiny_student, tiny_teacher


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return tiny_teacher()


def some_images(count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


def test_agreement_counts_the_images_on_which_both_name_the_same_class(teacher):
    images, student = some_images(700), freeze(tiny_network(0))  # more than one chunk
    with torch.no_grad():
        student[-1].weight += torch.randn(student[-1].weight.shape, generator=torch.Generator().manual_seed(0)) * 10
    seen = (torch.from_numpy(images).float() / 255 - 0.3) / 0.35
    same = (student(seen).argmax(1) == teacher.network(seen).argmax(1)).float().mean().item()
    assert agreement(teacher, student, images) == pytest.approx(same) and 0 < same < 1
    assert agreement(teacher, teacher.network, images) == 1.0


def test_a_student_in_training_is_measured_in_eval_mode_and_goes_on_in_training(teacher):
    student = tiny_network(1).train()
    before = student[1].running_mean.clone()
    assert agreement(teacher, student, some_images()) == agreement(teacher, tiny_student(), some_images())
    assert student.training and torch.equal(student[1].running_mean, before)


def test_feature_distance_is_the_sum_over_layers_and_the_mean_over_batches(teacher):
    def reference(images: np.ndarray) -> float:
        entered, hooks = {}, []
        layers = [layer for layer in teacher.network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in layers:
            hooks.append(layer.register_forward_hook(lambda at, x, out: entered.__setitem__(at, x[0].double())))
        teacher.logits(torch.from_numpy(images))
        for hook in hooks:
            hook.remove()
        total = 0.0
        for layer, x in entered.items():
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            total += float((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())
        return total

    batches = [some_images(30, 1), some_images(20, 2)]
    expected = sum(reference(images) for images in batches) / 2
    assert feature_distance(teacher, batches) == pytest.approx(expected, rel=1e-3)
    assert feature_distance(teacher, batches, first_bn=3.0) > expected


def test_features_are_what_enters_the_last_linear_layer(teacher):
    images = some_images(600)
    found = features(teacher, images)
    linear = teacher.network[-1]
    torch.testing.assert_close(found @ linear.weight.T + linear.bias, teacher.logits(torch.from_numpy(images)))
    assert not linear._forward_pre_hooks


def test_diversity_compares_images_of_a_target_with_images_of_any(teacher):
    images, targets = some_images(30), np.arange(30) % 3
    found = features(teacher, images).double().numpy()
    same, every = [], []
    for one in range(30):
        for other in range(30):
            if one != other:
                distance = float(np.linalg.norm(found[one] - found[other]))
                every.append(distance)
                same += [distance] if targets[one] == targets[other] else []
    assert diversity(teacher, images, targets) == pytest.approx(np.mean(same) / np.mean(every), rel=1e-4)


def test_images_that_are_all_alike_within_a_target_have_no_diversity(teacher):
    alike = np.repeat(some_images(3), 5, axis=0)
    assert diversity(teacher, alike, np.repeat(np.arange(3), 5)) == pytest.approx(0.0, abs=1e-3)
    assert np.isnan(diversity(teacher, some_images(3), np.arange(3)))
