"""A damaged or hostile checkpoint is refused in one sentence, or gives a state dict of plain tensors."""

import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydream.errors import InputError
from raydream.teachers.checkpoints import load_weights, read_state
from tests.fuzz.mutations import MUTATIONS, mutated
from tests.tiny import tiny_network

pytestmark = pytest.mark.fuzz


class Hostile:
    """Makes a file named `touched` when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self._touched = str(touched)

    def __reduce__(self):
        return os.system, (f"touch {self._touched}",)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, state = tmp_path_factory.mktemp("checkpoints"), tiny_network().state_dict()
    torch.save({"state_dict": state}, folder / "zip.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "tensors.safetensors").write_bytes(safetensors.torch.save(state))
    hostile = {"state_dict": Hostile(folder / "touched")}
    torch.save(hostile, folder / "hostile.pt")
    (folder / "hostile.pkl").write_bytes(pickle.dumps(hostile))
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"touched": str(folder / "touched").encode()}


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(["zip.pt", "old.pt", "tensors.safetensors", "hostile.pt", "hostile.pkl"]),
    mutations=st.lists(MUTATIONS, max_size=4),
)
def test_nothing_is_executed_and_nothing_crashes(
    files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, name: str, mutations: list[tuple]
) -> None:
    path = Path(files["touched"].decode()).with_name(f"mutated-{name}")
    path.write_bytes(mutated(files[name], mutations))
    try:
        state = read_state(path, "teacher.checkpoint")
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        load_weights(tiny_network(), path, "teacher.checkpoint", "digits")
    except InputError as error:
        assert str(error).startswith("teacher.checkpoint = ") and "\n" not in str(error)
    assert not Path(files["touched"].decode()).exists()


def test_the_hostile_checkpoint_would_do_harm(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    pickle.loads(pickle.dumps(Hostile(touched)))
    assert touched.exists()
