import pytest

from raydream.errors import RaydreamError
from raydream.store.folders import LocalFolder
from raydream.store.records import Snapshot
from raydream.students.snapshots import read_snapshot, write_snapshot
from raydream.teachers.teacher import fingerprint, to_arrays
from tests.tiny import tiny_network


def test_a_snapshot_comes_back_to_the_bit(tmp_path):
    snapshot = Snapshot(120, to_arrays(tiny_network(1)))
    write_snapshot(LocalFolder(tmp_path / "new"), snapshot)
    back = read_snapshot(LocalFolder(tmp_path / "new"), 120)
    assert back.step == 120 and fingerprint(back.state) == fingerprint(snapshot.state)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["0000120.safetensors"]


def test_the_first_snapshot_of_a_step_stays(tmp_path):
    first, second = (Snapshot(7, to_arrays(tiny_network(seed))) for seed in (1, 2))
    write_snapshot(LocalFolder(tmp_path), first)
    write_snapshot(LocalFolder(tmp_path), second)
    assert fingerprint(read_snapshot(LocalFolder(tmp_path), 7).state) == fingerprint(first.state)


@pytest.mark.parametrize("content", [None, b"", b"x" * 50])
def test_a_missing_or_damaged_snapshot_is_one_sentence_with_a_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "0000003.safetensors").write_bytes(content)
    with pytest.raises(RaydreamError, match=r"0000003\.safetensors cannot be read .* start from scratch"):
        read_snapshot(LocalFolder(tmp_path), 3)


def test_one_flipped_bit_is_found(tmp_path):
    write_snapshot(LocalFolder(tmp_path), Snapshot(3, to_arrays(tiny_network(1))))
    path = tmp_path / "0000003.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(RaydreamError, match="not those that were written"):
        read_snapshot(LocalFolder(tmp_path), 3)
