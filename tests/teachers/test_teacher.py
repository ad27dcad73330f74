import numpy as np
import pytest
import torch

from raydream.config import TeacherConfig
from raydream.teachers.teacher import fingerprint, freeze, load_arrays, make_teacher, teacher_from_arrays, to_arrays
from tests.tiny import WIDTH, tiny_network, tiny_teacher

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8))


def test_a_teacher_is_frozen_and_lets_gradients_through_to_the_images():
    teacher = tiny_teacher()
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    teacher.network(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_freezing_returns_the_network_itself():
    network = tiny_network()
    assert freeze(network) is network


def test_logits_are_the_networks_on_normalized_images_and_leave_no_trace():
    teacher = tiny_teacher()
    before = fingerprint(to_arrays(teacher.network))
    logits = teacher.logits(IMAGES)
    expected = teacher.network((IMAGES.float() / 255 - 0.3) / 0.35)
    assert logits.dtype == torch.float32 and not logits.requires_grad
    torch.testing.assert_close(logits, expected)
    assert fingerprint(to_arrays(teacher.network)) == before


def test_a_teacher_is_rebuilt_from_its_description_and_arrays():
    teacher = tiny_teacher()
    rebuilt = teacher_from_arrays(teacher.config, to_arrays(teacher.network))
    assert rebuilt.fingerprint == teacher.fingerprint and rebuilt.network is not teacher.network
    assert torch.equal(rebuilt.logits(IMAGES), teacher.logits(IMAGES))


def test_arrays_are_copies_both_ways():
    network = tiny_network()
    arrays = to_arrays(network)
    kept = {name: value.copy() for name, value in arrays.items()}
    for value in arrays.values():
        value.flags.writeable = False  # as from the object store
    other = tiny_network(1)
    load_arrays(other, arrays)
    with torch.no_grad():
        for network_ in (network, other):
            for value in network_.state_dict().values():
                value.add_(1)
    assert all(np.array_equal(kept[name], arrays[name]) for name in kept)


def test_arrays_of_another_network_are_refused():
    wide = tiny_teacher()
    with pytest.raises(RuntimeError):
        teacher_from_arrays(TeacherConfig(arguments={"width": WIDTH * 2}), to_arrays(wide.network))


def test_equal_weights_have_equal_fingerprints_whatever_their_order():
    arrays = to_arrays(tiny_network())
    assert fingerprint(arrays) == fingerprint(dict(reversed(arrays.items()))) == tiny_teacher().fingerprint
    assert len(fingerprint(arrays)) == 16 and int(fingerprint(arrays), 16) >= 0


def test_a_fingerprint_tells_names_shapes_types_and_values_apart():
    value = np.arange(4, dtype=np.int32)
    one_bit = value.copy()
    one_bit[3] ^= 1
    variants = [
        {"a": value},
        {"b": value},
        {"a": value.reshape(2, 2)},
        {"a": value.view(np.float32)},
        {"a": one_bit},
        {"a": value, "b": value},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


def test_a_fingerprint_does_not_depend_on_the_memory_layout():
    value = np.arange(6).reshape(2, 3)
    assert fingerprint({"a": np.asfortranarray(value)}) == fingerprint({"a": value})


def test_bn_statistics_count_in_the_fingerprint():
    network = tiny_network()
    before = make_teacher(network, TeacherConfig(arguments={"width": WIDTH})).fingerprint
    network[1].running_mean[0] += 1e-3
    assert fingerprint(to_arrays(network)) != before


def test_moving_a_teacher_keeps_what_it_is():
    teacher = tiny_teacher()
    moved = teacher.to(torch.device("cpu"))
    assert moved.device == torch.device("cpu")
    assert (moved.fingerprint, moved.config) == (teacher.fingerprint, teacher.config)
