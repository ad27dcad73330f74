import errno
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from raydream.errors import ShardError
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore
from tests.tiny import shard_path, some_batch


def assert_same(one: ImageBatch, other: ImageBatch) -> None:
    for name in ("images", "targets", "teacher_logits"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), name
    assert one.provenance == other.provenance


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path) -> ShardStore:
    (tmp_path / "run").mkdir()
    return ShardStore(tmp_path / "run" / "images")


@pytest.fixture
def shard(store) -> Path:
    """A committed shard of `some_batch()`."""
    store.write(some_batch())
    return shard_path(store, BatchId(1, 2))


@pytest.mark.parametrize("count", [1, 5, 256])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 6)])
def test_a_batch_comes_back_to_the_bit(store, count, shape):
    batch = some_batch(count=count, shape=shape)
    store.write(batch)
    back = store.read(batch.id)
    assert_same(batch, back)
    assert np.signbit(back.teacher_logits[0, 1]) and np.isinf(back.teacher_logits[0, 2])


def test_a_shard_lies_under_its_batchs_name_and_nothing_else_lies_there(store, shard):
    assert shard.name == "r0001-b0002.parquet" and names(shard.parent) == ["r0001-b0002.parquet"]


def test_other_tools_can_read_a_shard(store, shard):
    frame = pd.read_parquet(shard)
    assert frame["target"].tolist() == some_batch().targets.tolist()
    assert np.array_equal(np.stack(frame["image"]).reshape(5, 3, 4, 6), some_batch().images)


def test_writing_again_changes_nothing(store, shard):
    before = shard.read_bytes()
    store.write(some_batch())
    assert names(shard.parent) == [shard.name] and shard.read_bytes() == before


def test_what_is_committed_stays_when_somebody_comes_late_with_another_batch(store, shard):
    before, late = shard.read_bytes(), replace(some_batch(), images=255 - some_batch().images)
    assert not store.write(late)
    assert names(shard.parent) == [shard.name] and shard.read_bytes() == before


@pytest.mark.parametrize(
    "refusal",
    [None, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP],
    ids=["links", "not permitted", "not implemented", "not supported"],
)
def test_of_several_who_commit_one_batch_the_first_does(store, monkeypatch, refusal):
    if refusal is not None:
        monkeypatch.setattr(os, "link", refuse_links(refusal))
    assert store.write(some_batch())
    assert not store.write(replace(some_batch(), images=255 - some_batch().images))
    assert_same(store.read(BatchId(1, 2)), some_batch())
    assert store.folder.names() == ["r0001-b0002.parquet"]


def refuse_links(number: int) -> Callable[[Path, Path], None]:
    """As file systems do that know none."""

    def refuse(path: Path, to: Path) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_another_failure_of_a_link_is_none_of_a_disk_without_links(store, monkeypatch):
    monkeypatch.setattr(os, "link", refuse_links(errno.EMLINK))
    with pytest.raises(OSError, match=os.strerror(errno.EMLINK)):
        store.write(some_batch())
    assert store.folder.names() == []


def test_of_many_who_commit_one_batch_at_once_one_does(store):
    for turn in range(20):
        batches = [some_batch(f"r0001-b{turn:04}", count=1 + each) for each in range(8)]
        with ThreadPoolExecutor(len(batches)) as writers:
            wrote = list(writers.map(store.write, batches))
        assert wrote.count(True) == 1
        assert_same(store.read(batches[0].id), batches[wrote.index(True)])


def test_a_second_store_on_the_folder_finds_what_is_there(store, shard):
    again = ShardStore(shard.parent)
    assert list(again.committed()) == [BatchId(1, 2)]
    assert_same(again.read(BatchId(1, 2)), some_batch())


def test_a_shard_that_is_not_there_is_an_error(store):
    with pytest.raises(ShardError, match="r0003-b0004"):
        store.read(BatchId(3, 4))


@pytest.mark.parametrize("kept", [0, 1, 4, 100, -200, -1])
def test_a_truncated_shard_is_refused(store, shard, kept):
    whole = shard.read_bytes()
    shard.write_bytes(whole[:kept])
    with pytest.raises(ShardError, match=shard.name):
        store.read(BatchId(1, 2))


def test_a_flipped_byte_in_the_data_is_noticed(store):
    store.write(some_batch("r0001-b0002", 64))
    path = shard_path(store, BatchId(1, 2))
    whole = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    for index in range(group.num_columns):
        column = group.column(index)
        middle = column.data_page_offset + column.total_compressed_size // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(ShardError, match=path.name):
            store.read(BatchId(1, 2))


@pytest.fixture(scope="module")
def flipped(tmp_path_factory) -> list[tuple[int, ImageBatch | Exception]]:
    """For many bytes of a shard: the batch that is read after one of its bits has turned, or the error."""
    store = ShardStore(tmp_path_factory.mktemp("flipped"))
    store.write(some_batch())
    path, found = shard_path(store, BatchId(1, 2)), []
    whole = path.read_bytes()
    for position, bit in itertools.product(range(0, len(whole), 7), (1, 128)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
        try:
            found.append((position, store.read(BatchId(1, 2))))
        except Exception as error:
            found.append((position, error))
    return found


def test_no_flipped_bit_gives_other_pixels_targets_or_logits(flipped):
    provenance = some_batch().provenance
    batches = [found for _, found in flipped if isinstance(found, ImageBatch)]
    assert 0 < len(batches) < len(flipped)
    for batch in batches:
        assert_same(ImageBatch(batch.images, batch.targets, batch.teacher_logits, provenance), some_batch())


def test_no_flipped_bit_gives_another_kind_of_error(flipped):
    errors = [(position, found) for position, found in flipped if isinstance(found, Exception)]
    other = [f"byte {position}: {type(error).__name__}" for position, error in errors if type(error) is not ShardError]
    assert errors and not other, other


def test_no_flipped_bit_gives_another_provenance(flipped):
    batches = [(position, found) for position, found in flipped if isinstance(found, ImageBatch)]
    wrong = [position for position, found in batches if found.provenance != some_batch().provenance]
    assert batches and not wrong, f"unnoticed at bytes {wrong}"


def test_a_foreign_parquet_file_is_refused(store, shard):
    pd.DataFrame({"a": [1, 2]}).to_parquet(shard)
    with pytest.raises(ShardError, match=r"r0001-b0002.*format 1"):
        store.read(BatchId(1, 2))


def test_another_format_version_is_refused(store, shard):
    table = some_batch().to_table()
    metadata = {**table.schema.metadata, b"raydream_format": b"2"}
    pq.write_table(table.replace_schema_metadata(metadata), shard)
    with pytest.raises(ShardError, match="'2'"):
        store.read(BatchId(1, 2))


def test_a_shard_without_a_proper_batch_id_is_refused(store, shard):
    table = some_batch().to_table()
    provenance = json.loads(table.schema.metadata[b"provenance"]) | {"batch": "one"}
    metadata = {**table.schema.metadata, b"provenance": json.dumps(provenance).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), shard)
    with pytest.raises(ShardError):
        store.read(BatchId(1, 2))


def test_no_parquet_file_at_all_is_refused(store, shard):
    shard.write_text("something else")
    with pytest.raises(ShardError):
        store.read(BatchId(1, 2))


def test_a_renamed_shard_is_refused(store, shard):
    shard.rename(shard_path(store, BatchId(1, 3)))
    with pytest.raises(ShardError, match=r"holds batch r0001-b0002.*renamed"):
        store.read(BatchId(1, 3))


def test_a_damaged_shard_can_be_written_anew_once_it_is_set_aside(store, shard):
    shard.write_bytes(shard.read_bytes()[:100])
    assert not store.write(some_batch())
    store.quarantine_damaged()
    assert store.write(some_batch())
    assert_same(store.read(BatchId(1, 2)), some_batch())


DISK_FULL = """
import pickle, resource, sys
from pathlib import Path
from raydream.store.shards import ShardStore

store, batch = ShardStore(Path(sys.argv[1])), pickle.loads(Path(sys.argv[2]).read_bytes())
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # a file that grows further fails as on a full disk
try:
    store.write(batch)
except OSError:
    sys.exit(0)
sys.exit("no error")
"""


@pytest.mark.parametrize("old", [True, False])
def test_a_write_that_fails_midway_leaves_nothing_behind_and_keeps_the_old_shard(store, shard, tmp_path, old):
    large = tmp_path / "large"
    large.write_bytes(pickle.dumps(some_batch("r0001-b0002" if old else "r0007-b0000", 500)))
    command = [sys.executable, "-c", DISK_FULL, str(shard.parent), str(large)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert names(shard.parent) == [shard.name]
    assert_same(store.read(BatchId(1, 2)), some_batch())


def test_writing_to_a_folder_that_is_gone_is_an_error(store, shard):
    shard.unlink()
    shard.parent.rmdir()
    shard.parent.parent.rmdir()
    with pytest.raises(OSError):
        store.write(some_batch())


def test_committed_shards_are_listed_in_order(store):
    batches = [BatchId(1, 10), BatchId(0, 1), BatchId(12, 0), BatchId(1, 9), BatchId(0, 0)]
    for batch in batches:
        store.write(some_batch(str(batch), 2))
    assert list(store.committed()) == sorted(batches)


def test_the_order_holds_beyond_four_digits(store):
    batches = [BatchId(0, 10000), BatchId(0, 9999), BatchId(10000, 0), BatchId(9999, 0)]
    for batch in batches:
        store.write(some_batch(str(batch), 2))
    assert list(store.committed()) == sorted(batches)


def test_foreign_names_are_passed_over(store, shard):
    foreign = ["notes.txt", "rx-by.parquet", "r1-b2.parquet", "r0001-b0003.parquet.bak", ".r0001-b0004.parquet.x.aside"]
    for name in [*foreign, "r0001-b0005 (copy).parquet", "xr0001-b0006.parquet"]:
        (shard.parent / name).write_bytes(shard.read_bytes())
    assert list(store.committed()) == [BatchId(1, 2)]


def test_an_empty_folder_holds_nothing(store):
    assert list(store.committed()) == []


def test_damaged_shards_are_set_aside_where_no_reader_looks(store, shard):
    store.write(replace_batch(BatchId(1, 3)))
    store.write(replace_batch(BatchId(1, 4)))
    shard.write_bytes(shard.read_bytes()[:-20])
    shard_path(store, BatchId(1, 4)).write_bytes(b"")
    damaged = store.quarantine_damaged()
    assert [error.args[0].split("/")[-1][:13] for error in damaged] == ["r0001-b0002.p", "r0001-b0004.p"]
    assert store.committed() == [BatchId(1, 3)]
    assert len(pd.read_parquet(shard.parent)) == 5
    assert len(list(shard.parent.glob("_damaged-*-r0001-b000[24].parquet"))) == 2
    assert store.quarantine_damaged() == []


class Reads(ShardStore):
    """A store that tells which shards it reads."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.seen: list[str] = []

    def read(self, batch: BatchId) -> ImageBatch:
        self.seen.append(str(batch))
        return super().read(batch)


def verifying(store: ShardStore, **how: bool) -> list[str]:
    """The shards that are read by verifying, in a process of its own."""
    reads = Reads(store.folder)
    reads.verify(**how)
    return reads.seen


@pytest.fixture
def three(store, shard) -> ShardStore:
    """A store of three shards that were verified."""
    store.write(replace_batch(BatchId(1, 3)))
    store.write(replace_batch(BatchId(1, 4)))
    assert verifying(store) == ["r0001-b0002", "r0001-b0003", "r0001-b0004"]
    return store


def test_each_shard_is_verified_once(three):
    assert verifying(three) == []
    three.write(replace_batch(BatchId(1, 5)))
    assert verifying(three) == ["r0001-b0005"] and verifying(three) == []
    assert verifying(three, again=True) == [f"r0001-b000{index}" for index in range(2, 6)]


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_shard_that_has_changed_since_is_verified_again(three, change):
    path = shard_path(three, BatchId(1, 3))
    if change == "size":
        before = path.stat()
        path.write_bytes(path.read_bytes()[:-20])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert [*three.verify()] == [BatchId(1, 3)] == [*three.verify()], "a damage that stays is found again"
    assert len(three.quarantine_damaged()) == 1 and three.committed() == [BatchId(1, 2), BatchId(1, 4)]
    three.write(replace_batch(BatchId(1, 3)))
    assert verifying(three) == ["r0001-b0003"], "the one that was made again"


def test_a_damage_that_changes_neither_size_nor_time_is_found_when_all_are_verified(three):
    path = shard_path(three, BatchId(1, 3))
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert three.verify() == {}
    assert [*three.verify(again=True)] == [BatchId(1, 3)]
    assert [*three.verify()] == [BatchId(1, 3)], "and from then on by each resume"


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": 3}', b'{"r0001-b0002.parquet": ["x", 1]}', b"\xff"])
def test_without_a_readable_record_all_shards_are_verified(three, content):
    path = shard_path(three, BatchId(1, 2)).with_name("_verified.json")
    assert path.exists()
    path.write_bytes(content)
    assert len(verifying(three)) == 3 and verifying(three) == []


def test_what_was_verified_before_an_interruption_is_recorded(store, shard, monkeypatch):
    store.write(replace_batch(BatchId(1, 3)))
    reads = Reads(store.folder)

    def interrupted(batch: BatchId) -> ImageBatch:
        if batch == BatchId(1, 3):
            raise KeyboardInterrupt
        return ShardStore.read(reads, batch)

    monkeypatch.setattr(reads, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reads.verify()
    assert verifying(store) == ["r0001-b0003"]


def test_an_empty_store_gets_no_record(store):
    assert store.verify() == {} and not Path(str(store.folder)).exists()


def replace_batch(batch: BatchId) -> ImageBatch:
    made = some_batch()
    return replace(made, provenance=replace(made.provenance, batch=str(batch)))
