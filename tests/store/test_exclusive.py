"""Of those that write one file at the same moment, the first one wins: on a disk, and in a store that can do it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from raydream.store import exclusive
from raydream.store.atomic import TRANSIENT
from raydream.store.folders import Folder, LocalFolder, folder_at
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore
from tests.stores import new_bucket
from tests.tiny import some_batch


def commits_at_once(folder: Folder, count: int) -> None:
    """Have two writers commit each of so many batches at the same moment, and look at what they got of it."""
    together = threading.Barrier(2, timeout=60)

    def commit(batch: ImageBatch) -> tuple[bool, ImageBatch]:
        store = ShardStore(folder)
        together.wait()
        return store.write(batch), store.read(batch.id)

    with ThreadPoolExecutor(2) as writers:
        for index in range(count):
            batches = [some_batch(f"r0000-b{index:04d}", size) for size in (1, 2)]
            (one, read_by_one), (other, read_by_other) = writers.map(commit, batches)
            assert one != other, f"batch {index}: {one + other} of two writers have committed it"
            winner = batches[0 if one else 1]
            for read in (read_by_one, read_by_other, ShardStore(folder).read(winner.id)):
                assert np.array_equal(read.images, winner.images)


def test_of_two_that_commit_a_batch_at_the_same_moment_one_wins_on_a_disk(tmp_path: Path) -> None:
    commits_at_once(LocalFolder(tmp_path), 20)


def test_of_two_that_commit_a_batch_at_the_same_moment_one_wins_in_a_store(bucket: str) -> None:
    commits_at_once(folder_at(f"{bucket}/images"), 10)


@pytest.mark.long
def test_of_two_that_commit_a_batch_at_the_same_moment_one_wins_in_a_store_a_thousand_times(bucket: str) -> None:
    commits_at_once(folder_at(f"{bucket}/images"), 1000)


@pytest.mark.parametrize(("kind", "is_exclusive"), {"bucket": True, "ignoring": False, "refusing": False}.items())
def test_a_file_stays_in_any_store_and_each_says_whether_it_stays_at_the_same_moment(
    bucket: str, kind: str, is_exclusive: bool
) -> None:
    folder = folder_at(new_bucket(kind))
    assert folder.write_first("a", b"first") and not folder.write_first("a", b"late")
    assert folder.is_exclusive("a") is is_exclusive
    assert folder.read("a") == b"first"


def test_a_disk_is_exclusive(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert LocalFolder(tmp_path).is_exclusive("a")


def test_without_boto3_a_store_is_not_exclusive(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "find_spec", lambda name: None)
    folder = folder_at(bucket + "/x")
    assert folder.write_first("a", b"first") and not folder.write_first("a", b"late")
    assert not folder.is_exclusive("a")
    assert folder.read("a") == b"first"


def test_a_write_that_the_store_asks_to_repeat_is_repeated(bucket: str) -> None:
    folder = folder_at(new_bucket("busy"))
    assert folder.write_first("a", b"first") and folder.read("a") == b"first"
    assert not folder.write_first("a", b"late")


def test_a_write_that_is_refused_for_good_is_not_repeated(bucket: str) -> None:
    system, path = folder_at(bucket + "-gone/x").for_arrow()
    begun = time.monotonic()
    with pytest.raises(OSError, match="NoSuchBucket") as raised:
        exclusive.put_first(system, f"{path}/a", b"")
    assert raised.value.errno not in TRANSIENT and time.monotonic() - begun < 2


def test_a_url_says_for_exclusive_writes_as_for_others_where_its_store_is(
    s3: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    host = s3.removeprefix("http://")
    where = bucket.replace("s3://", "s3://key:secret@") + f"/x?endpoint_override={host}&scheme=http&region=us-east-1"
    folder = folder_at(where)
    assert folder.write_first("a", b"first") and folder.is_exclusive("a") and folder.read("a") == b"first"
