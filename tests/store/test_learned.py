from pathlib import Path

import numpy as np
import pytest

from raydream.store.folders import LocalFolder
from raydream.store.learned import LearnedStates
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from tests.tiny import some_batch

BATCHES = [BatchId(0, 0), BatchId(0, 1), BatchId(1, 0), BatchId(1, 1), BatchId(2, 0)]


def state_of(value: float) -> dict[str, np.ndarray]:
    return {"network.weight": np.full((2, 3), value, np.float32), "adam.0.step": np.array(value, np.float32)}


def path_of(folder: Path, batch: BatchId) -> Path:
    return folder / f"_learned-{batch}.safetensors"


def filled(folder: Path | None, keep: int | None = None) -> LearnedStates:
    states = LearnedStates(None if folder is None else LocalFolder(folder), keep)
    for index, batch in enumerate(BATCHES):
        states.commit(batch, state_of(index))
    return states


@pytest.mark.parametrize("durable", [True, False])
def test_a_state_comes_back_to_the_bit(tmp_path, durable):
    states = filled(tmp_path if durable else None)
    for index, batch in enumerate(BATCHES):
        found = states.before(batch)
        assert found.after == batch and not found.note
        for name, value in state_of(index).items():
            assert found.state[name].shape == value.shape and found.state[name].tobytes() == value.tobytes()


def test_nothing_is_learned_before_the_first(tmp_path):
    found = filled(tmp_path).before(None)
    assert (dict(found.state), found.after, found.note) == ({}, None, "")


def test_what_was_committed_first_stays(tmp_path):
    states = filled(tmp_path)
    states.commit(BATCHES[2], state_of(99))
    assert states.before(BATCHES[2]).state["adam.0.step"] == 2


@pytest.mark.parametrize("durable", [True, False])
def test_only_so_many_of_the_newest_are_kept(tmp_path, durable):
    states = filled(tmp_path if durable else None, keep=2)
    assert states.batches() == BATCHES[-2:]
    states.commit(BATCHES[0], state_of(0))  # made again
    assert states.batches() == BATCHES[-2:]


@pytest.mark.parametrize("harm", ["gone", "cut", "turned", "empty"])
def test_where_a_state_cannot_be_read_the_newest_is_taken_and_told(tmp_path, harm):
    states, path = filled(tmp_path), path_of(tmp_path, BATCHES[2])
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        turned = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({"cut": content[:-5], "turned": turned, "empty": b""}[harm])
    found = states.before(BATCHES[2])
    assert found.after == BATCHES[-1] and found.state["adam.0.step"] == 4
    assert "learned with batch r0001-b0000" in found.note and "using that of batch r0002-b0000" in found.note


def test_where_none_can_be_read_it_begins_anew_and_says_so(tmp_path):
    found = LearnedStates(LocalFolder(tmp_path), None).before(BATCHES[0])
    assert not found.state and found.after is None and found.note.endswith("starting from scratch")


def test_states_lie_beside_the_shards_and_are_none(tmp_path):
    filled(tmp_path)
    store = ShardStore(tmp_path)
    store.write(some_batch("r0000-b0000"))
    assert store.committed() == [BatchId(0, 0)] and store.quarantine_damaged() == []


@pytest.mark.parametrize(("chains", "all_kept", "kept"), [(1, False, 2), (2, False, 4), (1, True, 6)])
def test_a_run_keeps_the_newest_two_of_each_chain_or_all(tmp_path, chains, all_kept, kept):
    for folder in (None, LocalFolder(tmp_path)):
        states = LearnedStates.of(folder, chains, all_kept=all_kept)
        for index in range(6):
            states.commit(BatchId(0, index), {"x": np.zeros(1)})
        assert states.batches() == [BatchId(0, index) for index in range(6 - kept, 6)]
