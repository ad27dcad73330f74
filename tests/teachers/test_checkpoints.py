"""Checkpoints as people have them, and those that are none."""

import argparse
import collections
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from raydream.errors import InputError
from raydream.networks.digits import digits_network
from raydream.teachers.checkpoints import load_weights, save_network
from tests.tiny import WIDTH

COUNTER = "num_batches_tracked"


def randomised(network: nn.Module, seed: int = 3) -> nn.Module:
    """The network with weights and BN statistics that no fresh network has."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=random) + 0.5 if value.is_floating_point() else 7)
    return network


@pytest.fixture
def network() -> nn.Module:
    return randomised(digits_network(width=WIDTH))


@pytest.fixture
def state(network) -> dict[str, Tensor]:
    return network.state_dict()


@pytest.fixture
def other() -> dict[str, Tensor]:
    return randomised(digits_network(width=WIDTH), seed=4).state_dict()


def loaded(path: Path, network: nn.Module | None = None) -> dict[str, Tensor]:
    """What a fresh network holds after loading a file."""
    network = network or digits_network(width=WIDTH)
    load_weights(network, path, "teacher.checkpoint", "digits")
    return network.state_dict()


def refusal(path: Path, network: nn.Module | None = None) -> str:
    """What is said about a file that cannot be loaded: one line that names the option and the file."""
    network = network or digits_network(width=WIDTH)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(network, path, "teacher.checkpoint", "digits")
    said = str(caught.value)
    assert said.startswith(f"teacher.checkpoint = {str(path)!r}: must be a ") and "\n" not in said, said
    assert same(before, network.state_dict()), "a refused file changed the network"
    return said


def same(one: dict[str, Tensor], other: dict[str, Tensor], but: str = "nothing") -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one if but not in key)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


ORDER = ("state_dict", "model_state_dict", "model", "net", "module", "ema")
FORMS = {
    "bare": lambda network, state: state,
    "with plain names and a plain dict": lambda network, state: dict(state),
    "of parameters that ask for gradients": lambda network, state: network.state_dict(keep_vars=True),
    **{f"nested under {key}": lambda network, state, key=key: {"epoch": 3, key: state} for key in ORDER},
    "nested under ema and module": lambda network, state: {"ema": {"module": state, "decay": 0.999}},
    "nested under state_dict and model": lambda network, state: {"state_dict": {"model": state}},
    "beside an optimizer and a best result": lambda network, state: {
        "state_dict": state,
        "optimizer": torch.optim.SGD(network.parameters(), 0.1, momentum=0.9).state_dict(),
        "best_prec1": 91.7,
        "arch": "digits",
    },
    "of DataParallel": lambda network, state: nn.DataParallel(network).state_dict(),
    "of torch.compile": lambda network, state: torch.compile(network).state_dict(),  # type: ignore[attr-defined]
    "of torch.compile around DataParallel": lambda network, state: torch.compile(nn.DataParallel(network)).state_dict(),  # type: ignore[attr-defined]
    "of DataParallel around torch.compile": lambda network, state: prefixed(state, "module._orig_mod."),
    "of AveragedModel": lambda network, state: AveragedModel(network, use_buffers=True).state_dict(),
    "of AveragedModel around DataParallel": lambda network, state: {
        "model": {"n_averaged": torch.tensor(5), **prefixed(state, "module.module.")}
    },
    "of a framework that says model": lambda network, state: {"state_dict": prefixed(state, "model.")},
    "of a framework that says net": lambda network, state: prefixed(state, "net."),
    "of a compiled framework": lambda network, state: {"state_dict": prefixed(state, "model._orig_mod.")},
    "nested and prefixed by the same word": lambda network, state: {"model": prefixed(state, "model.")},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_loads_in_the_forms_that_people_have(form, network, state, tmp_path):
    torch.save(FORMS[form](network, state), tmp_path / "weights.th")
    assert same(loaded(tmp_path / "weights.th"), state)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_batch_counters_may_be_absent(prefix, state, tmp_path):
    torch.save(prefixed({n: v for n, v in state.items() if COUNTER not in n}, prefix), tmp_path / "weights.pt")
    found = loaded(tmp_path / "weights.pt")
    assert same(found, state, but=COUNTER)
    assert all(value == 0 for name, value in found.items() if COUNTER in name)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_fp32(kind, state, tmp_path):
    torch.save({n: v.to(kind) if v.is_floating_point() else v for n, v in state.items()}, tmp_path / "weights.pt")
    found = loaded(tmp_path / "weights.pt")
    assert all(value.dtype == state[name].dtype for name, value in found.items())
    assert same(found, {n: v.to(kind).to(v.dtype) for n, v in state.items()})


SAVED = {
    "zip": ("weights.pt", torch.save),
    "legacy": ("weights.pth", lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False)),
    "any ending": ("model_best.pth.tar", torch.save),
    "no ending": ("weights", torch.save),
    "safetensors": ("weights.safetensors", safetensors.torch.save_file),
}


@pytest.mark.parametrize("form", SAVED)
def test_a_checkpoint_loads_from_files_of_every_format(form, state, tmp_path):
    name, save = SAVED[form]
    save(prefixed(state, "module."), tmp_path / name)
    assert same(loaded(tmp_path / name), state)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDER, 2)))
def test_of_two_state_dicts_the_first_in_this_order_counts(first, second, state, other, tmp_path):
    torch.save({second: other, first: state}, tmp_path / "weights.pt")
    assert same(loaded(tmp_path / "weights.pt"), state)


class Owner(nn.Module):
    """A network of one's own whose names really begin like a framework's."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.add_module(part, digits_network(width=WIDTH))


@pytest.mark.parametrize("part", ["model", "net", "module"])
@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "_orig_mod.module.", "net.model."])
def test_names_that_really_begin_like_a_prefix_keep_it(part, wrapper, tmp_path):
    state = randomised(Owner(part)).state_dict()
    torch.save(prefixed(state, wrapper), tmp_path / "weights.pt")
    assert same(loaded(tmp_path / "weights.pt", Owner(part)), state)


def test_a_prefix_is_no_prefix_where_other_names_lack_it(state, tmp_path):
    torch.save({**prefixed(state, "model."), "loss.weight": torch.ones(10)}, tmp_path / "weights.pt")
    said = refusal(tmp_path / "weights.pt")
    assert "unexpected: model.0.weight, " in said and "missing: 0.weight, " in said


def test_a_part_named_like_a_nesting_is_a_tensor_like_any_other(tmp_path):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Parameter(torch.zeros(3))

    torch.save({"model": torch.ones(3)}, tmp_path / "weights.pt")
    assert loaded(tmp_path / "weights.pt", Scaled())["model"].tolist() == [1, 1, 1]


class Trap:
    """Executes code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


PICKLES = {
    "zip": torch.save,
    "legacy": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "bare pickle": lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)),
}


@pytest.mark.parametrize("form", PICKLES)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_pickle_is_refused_and_not_executed(form, ending, state, tmp_path):
    path, sprung = tmp_path / f"weights.{ending}", tmp_path / "sprung"
    PICKLES[form]({"state_dict": dict(state), "best": Trap(sprung)}, path)
    assert "reading it safely failed" in refusal(path)
    assert not sprung.exists()
    if (form, ending) == ("zip", "pt"):
        torch.load(path, weights_only=False)
        assert sprung.exists(), "the trap works where pickles are executed"


FOREIGN = {
    "a pickled network": (lambda network: network, "torch.nn.modules.container.Sequential"),
    "a namespace": (lambda network: {"args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    "a numpy number": (lambda network: {"best": np.float64(91.7)}, "numpy._core.multiarray.scalar"),
    "a path": (lambda network: {"from": Path("a")}, "pathlib.PosixPath"),
    "a deque": (lambda network: {"losses": collections.deque([1.0])}, "collections.deque"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_lies_beside_the_tensors_is_named_with_what_to_do(what, network, state, tmp_path):
    content, name = FOREIGN[what]
    found = content(network)
    torch.save({"state_dict": state, **found} if isinstance(found, dict) else found, tmp_path / "weights.pt")
    said = refusal(tmp_path / "weights.pt")
    assert f"it holds {name} beside tensors" in said
    assert "where you trust it, load it with weights_only=False and save its state dict alone" in said


NO_CHECKPOINTS = {
    "empty": b"",
    "text": b"not a checkpoint",
    "text of many lines": b"hello\n" * 50,
    "a page of the web": b"<!DOCTYPE html>\n<html>\n</html>\n",
    "a broken zip": b"PK\x03\x04 broken zip",
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(what, ending, tmp_path):
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(NO_CHECKPOINTS[what])
    assert "reading it safely failed" in refusal(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(form, share, state, tmp_path):
    name, save = SAVED[form]
    save(state, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    assert "reading it safely failed" in refusal(tmp_path / name)


def test_nobody_is_told_to_execute_a_file_that_is_no_pickle(tmp_path):
    (tmp_path / "weights.pt").write_text("not a checkpoint")
    assert "set to `False` will likely succeed" not in refusal(tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "no/such/folder.pt", ".", "weights.pt/inside"])
def test_what_is_no_file_is_refused(name, tmp_path):
    (tmp_path / "weights.pt").touch()
    assert "there is no such file" in refusal(tmp_path / name)


OTHER_CONTENT = {
    "an empty dict": (lambda state: {}, "it holds nothing"),
    "an empty state dict": (lambda state: {"epoch": 3, "model": {}}, "it holds nothing"),
    "a list": (lambda state: [state], "it holds something else (list)"),
    "a tensor": (lambda state: torch.ones(2), "it holds something else (Tensor)"),
    "a number": (lambda state: 3, "it holds something else (int)"),
    "None": (lambda state: None, "it holds something else (NoneType)"),
    "other things": (
        lambda state: {"optimizer": {"lr": 1}, "epoch": 3},
        "it holds something else (optimizer: dict, epoch: int)",
    ),
    "an unknown nesting": (lambda state: {"weights": state}, "it holds something else (weights: OrderedDict)"),
    "a state dict of no tensors": (lambda state: {"model": {"lr": 0.1}}, "it holds something else (lr: float)"),
    "an optimizer's state": (
        lambda state: torch.optim.SGD([torch.ones(1)], 0.1).state_dict(),
        "it holds something else (state: dict, param_groups: list)",
    ),
}


@pytest.mark.parametrize("what", OTHER_CONTENT)
def test_a_file_of_something_else_says_what_it_holds(what, state, tmp_path):
    content, says = OTHER_CONTENT[what]
    torch.save(content(state), tmp_path / "weights.pt")
    assert says in refusal(tmp_path / "weights.pt")


def test_what_is_no_tensor_among_the_tensors_is_named(state, tmp_path):
    torch.save({**state, "epoch": 3}, tmp_path / "weights.pt")
    assert "epoch: int" in refusal(tmp_path / "weights.pt")


UNFIT = {
    "missing": (lambda state: state.pop("0.weight"), "(missing: 0.weight)"),
    "a missing statistic": (lambda state: state.pop("1.running_mean"), "(missing: 1.running_mean)"),
    "unexpected": (lambda state: state.update(extra=torch.ones(1)), "(unexpected: extra)"),
    "of another width": (
        lambda state: state.update({"0.weight": torch.ones(3)}),
        "(wrongly shaped: 0.weight (3,) for (8, 1, 3, 3))",
    ),
    "transposed": (
        lambda state: state.update({"8.weight": state["8.weight"].T}),
        "(wrongly shaped: 8.weight (16, 10) for (10, 16))",
    ),
    "all three": (
        lambda state: state.update({"stem": state.pop("0.weight"), "8.bias": torch.ones(7)}),
        "(missing: 0.weight; unexpected: stem; wrongly shaped: 8.bias (7,) for (10,))",
    ),
    "five missing": (
        lambda state: [state.pop(name) for name in list(state)[:5]],
        "(missing: 0.weight, 1.weight, 1.bias, 1.running_mean, 1.running_var)",
    ),
    "seven unexpected": (
        lambda state: state.update({f"x{index}": torch.ones(1) for index in range(7)}),
        "(unexpected: x0, x1, x2, x3, x4 and 2 more)",
    ),
    "a head that only Inception has": (
        lambda state: state.update({"aux.weight": torch.ones(1)}),
        "(unexpected: aux.weight)",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_another_network_says_what_does_not_fit(what, prefix, state, tmp_path):
    change, says = UNFIT[what]
    state = dict(state)
    change(state)
    torch.save(prefixed(state, prefix), tmp_path / "weights.pt")
    said = refusal(tmp_path / "weights.pt")
    assert "must be a checkpoint of digits" in said and says in said, said
    assert "name its network in teacher.network and teacher.arguments" in said


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (2,), (1, 1)],
)
def test_batch_counters_of_another_shape_do_no_harm(shape, state, tmp_path):
    torch.save({**state, f"1.{COUNTER}": torch.full(shape, 3)}, tmp_path / "weights.pt")
    assert same(loaded(tmp_path / "weights.pt"), state, but=COUNTER)


@pytest.mark.parametrize("change", [Tensor.to_sparse, lambda value: value.to("meta")], ids=["sparse", "without data"])
def test_tensors_that_are_not_plain_are_refused(change, state, tmp_path):
    torch.save({**state, "0.weight": change(state["0.weight"])}, tmp_path / "weights.pt")
    refusal(tmp_path / "weights.pt")


def test_auxiliary_heads_of_a_checkpoint_are_left_out_where_the_network_has_none(state, tmp_path):
    heads = {f"{head}fc.weight": torch.ones(3) for head in ("AuxLogits.", "aux1.", "aux2.")}
    torch.save({**state, **heads}, tmp_path / "weights.pt")
    assert same(loaded(tmp_path / "weights.pt"), state)


def test_auxiliary_heads_that_the_network_has_are_loaded(tmp_path):
    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.aux1 = nn.Linear(2, 2), nn.Linear(2, 2)

    state = randomised(Headed()).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    assert same(loaded(tmp_path / "weights.pt", Headed()), state)


def test_masks_of_infinity_are_no_weights(tmp_path):
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    state = Masked().state_dict()
    torch.save(state, tmp_path / "weights.pt")
    assert same(loaded(tmp_path / "weights.pt", Masked()), state)
    torch.save({**state, "linear.bias": state["mask"][0]}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"linear.bias holds NaN or infinity"):
        loaded(tmp_path / "weights.pt", Masked())


def test_saved_weights_come_back(network, state, tmp_path):
    save_network(network, tmp_path / "weights.safetensors")
    assert same(safetensors.torch.load_file(tmp_path / "weights.safetensors"), state)
    assert same(loaded(tmp_path / "weights.safetensors"), state)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_weights_are_saved_whatever_their_memory_layout(network, state, tmp_path):
    save_network(network.to(memory_format=torch.channels_last), tmp_path / "weights.safetensors")
    assert same(loaded(tmp_path / "weights.safetensors"), state)


def test_saving_into_no_folder_is_an_error(network, tmp_path):
    with pytest.raises(OSError):
        save_network(network, tmp_path / "none" / "weights.safetensors")
