"""Checkpoints as people have them, and those that are none."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.errors import InputError
from raydream.networks.digits import digits_network
from raydream.teachers.loading import check_network, library_path, load_teacher, save_network, trained_teacher

CONFIG = TeacherConfig(arguments={"width": 8})


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return digits_network(width=8).state_dict()


FORMS = {
    "bare": lambda state: state,
    "nested under state_dict": lambda state: {"state_dict": state, "best_prec1": 91.7, "epoch": 3},
    "nested under model": lambda state: {"model": state},
    "of DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "of torch.compile": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "without batch counters": lambda state: {n: v for n, v in state.items() if "num_batches" not in n},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_loads_in_the_forms_that_people_have(form, state, tmp_path):
    path = tmp_path / "weights.th"
    torch.save(FORMS[form](state), path)
    teacher = load_teacher(replace(CONFIG, checkpoint=str(path)))
    for name, value in teacher.network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, state[name])
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_equal_weights_have_one_fingerprint_wherever_they_come_from(state, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    one, other = (
        load_teacher(replace(CONFIG, checkpoint=str(tmp_path / f"weights.{e}"))) for e in ("pt", "safetensors")
    )
    assert one.fingerprint == other.fingerprint
    state["0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "weights.pt")
    assert load_teacher(replace(CONFIG, checkpoint=str(tmp_path / "weights.pt"))).fingerprint != one.fingerprint


class Trap:
    """Executes code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    path, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        save({"state_dict": Trap(sprung)}, path)
        with pytest.raises(InputError, match="reading it safely failed"):
            load_teacher(replace(CONFIG, checkpoint=str(path)))
        assert not sprung.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("0.weight"), "missing: 0.weight"),
        (lambda state: state.update(extra=torch.ones(1)), "unexpected: extra"),
        (
            lambda state: state.update({"0.weight": torch.ones(3)}),
            r"wrongly shaped: 0.weight \(3,\) for \(8, 1, 3, 3\)",
        ),
        (lambda state: state.clear(), "something else"),
    ],
)
def test_a_checkpoint_of_another_network_says_what_does_not_fit(change, says, state, tmp_path):
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=says):
        load_teacher(replace(CONFIG, checkpoint=str(tmp_path / "weights.pt")))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken zip"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_damaged_file_is_refused(content, ending, tmp_path):
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="reading it safely failed"):
        load_teacher(replace(CONFIG, checkpoint=str(path)))


def test_a_network_must_be_as_described():
    network = digits_network(width=8)
    check_network(network, CONFIG, "adaptive")
    assert network.training, "its mode is restored"
    with pytest.raises(InputError, match=r"teacher.classes = 7"):
        check_network(network, replace(CONFIG, classes=7), "adaptive")
    with pytest.raises(InputError, match=r"teacher.input_shape"):
        check_network(network, replace(CONFIG, input_shape=(3, 8, 8), mean=(0,) * 3, std=(1,) * 3), "adaptive")
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    check_network(plain, CONFIG, "deepdream")
    for method in ("deep_inversion", "adaptive"):
        with pytest.raises(InputError, match="no BN layers"):
            check_network(plain, CONFIG, method)


def test_a_teacher_is_trained_once_and_found_again_by_its_recipe(tmp_path):
    training = TrainingConfig(epochs=1, library=str(tmp_path))
    first, found = trained_teacher(CONFIG, training, DataConfig())
    assert not found
    again, found = trained_teacher(CONFIG, training, DataConfig())
    assert found and again.fingerprint == first.fingerprint
    path = library_path(CONFIG, training, DataConfig())
    for other in (replace(training, seed=1), replace(training, epochs=2), replace(training, learning_rate=0.02)):
        assert library_path(CONFIG, other, DataConfig()) != path
    moved = replace(training, library=str(tmp_path / "elsewhere"))
    assert library_path(CONFIG, moved, DataConfig()).name == path.name


def test_saved_weights_come_back(tmp_path):
    network = digits_network(width=8)
    save_network(network, tmp_path / "weights.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert all(np.array_equal(loaded[name], value) for name, value in network.state_dict().items())
