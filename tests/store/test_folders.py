"""The same folder on the disk and in a store: what is written is there, whole, under its name."""

import io
import pickle
import time
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from raydream.data import ImageSet
from raydream.errors import InputError
from raydream.runs import run_folder
from raydream.store.folders import Folder, LocalFolder, RemoteFolder, folder_at
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import load_weights
from tests.store.test_shards import some_batch
from tests.tiny import tiny_network


@pytest.fixture(params=["disk", "s3", "other"])
def folder(request, tmp_path: Path) -> Folder:
    """An empty folder of each kind; the last is of a file system whose files do not appear at once."""
    if request.param == "s3":
        return folder_at(f"{request.getfixturevalue('bucket')}/runs")
    return LocalFolder(tmp_path) if request.param == "disk" else RemoteFolder("x", fs.LocalFileSystem(), str(tmp_path))


def test_what_is_written_is_there(folder):
    assert folder.names() == [] and folder.folders() == [] and not folder.has("a")
    with pytest.raises(FileNotFoundError):
        folder.read("a")
    folder.write("a", b"one")
    folder.write("a", b"another")
    (folder / "images").write("b", b"")
    assert folder.names() == ["a"] and folder.folders() == ["images"]
    assert {name: size for name, (size, _) in folder.stamps().items()} == {"a": 7}
    assert abs(folder.stamps()["a"][1] / 1e9 - time.time()) < 60 and (folder / "nothing").stamps() == {}
    assert folder.read("a") == b"another" and (folder / "images").read("b") == b""
    assert not folder.write_first("a", b"late") and folder.read("a") == b"another"
    folder.rename("a", "c")
    assert folder.write_first("a", b"first") and folder.read("a") == b"first"
    folder.delete("a")
    assert folder.names() == ["c"] and folder.has("c") and not folder.has("a")
    folder.delete("c")
    folder.delete("c")
    assert folder.names() == []
    assert str(folder / "images") == f"{folder}/images"


def test_a_file_that_is_deleted_between_its_opening_and_its_reading_is_missing(bucket):
    folder = folder_at(f"{bucket}/runs")
    assert isinstance(folder, RemoteFolder)

    class Deleting(RemoteFolder):
        def open(self, name):
            file = super().open(name)
            folder.delete(name)
            return file

    folder.write("a", b"1")
    with pytest.raises(FileNotFoundError):
        Deleting(folder.scheme, folder.system, folder.path).read("a")


def test_a_folder_moves_with_all_that_is_in_it(folder):
    (folder / "checkpoints").write("b", b"2")
    (folder / "checkpoints" / "first").write("a", b"1")
    (folder / "checkpoints").move("_damaged")
    assert folder.folders() == ["_damaged"]
    moved = folder / "_damaged"
    assert moved.read("b") == b"2" and (moved / "first").read("a") == b"1"


def test_a_folder_can_be_sent_to_other_processes(folder):
    folder.write("a", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("a") == b"1"


def test_images_and_checkpoints_are_read_from_where_they_are(bucket):
    batch = some_batch()
    ShardStore(f"{bucket}/run/images").write(batch)
    for where in (f"{bucket}/run", f"{bucket}/run/images"):
        images = ImageSet(where)
        assert len(images) == len(batch) and (images[1][0].numpy() == batch.images[1]).all()
    content = io.BytesIO()
    torch.save(tiny_network(3).state_dict(), content)
    folder_at(bucket + "/weights").write("net.pt", content.getvalue())
    network = tiny_network(0)
    load_weights(network, f"{bucket}/weights/net.pt", "teacher.checkpoint", "digits")
    expected = tiny_network(3).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("where", "reason"),
    [("nope://x/y", "Unrecognized filesystem"), ("s3://", "name a bucket"), ("s3:///", "Missing bucket")],
)
def test_a_url_that_names_no_folder_is_refused(where, reason):
    with pytest.raises(InputError, match=f"--run-dir = .*must be a path, or a URL.*{reason}"):
        folder_at(where, "--run-dir")


def test_credentials_in_a_url_are_not_shown():
    assert str(folder_at("s3://key:secret@bucket/run?region=us-east-1")) == "s3://bucket/run"


def test_a_run_is_begun_and_found_again_in_a_store(bucket):
    where = f"{bucket}/runs/first"
    run_folder.check_new(where)
    assert not run_folder.is_begun(where)
    begun = run_folder.begin(where, {"experiment": "x"}, "distill")
    assert run_folder.is_begun(where)
    with run_folder.held(begun):
        begun.summary.write_text("{}")
        (begun.path / "png").mkdir()
        (begun.path / "png" / "a.png").write_bytes(b"1")
    found, config = run_folder.resume(where)
    assert config == {"experiment": "x"} and found.run == begun.run and found.summary.read_text() == "{}"
    assert found.path != begun.path and (found.place / "png").read("a.png") == b"1"
    assert sorted(found.place.names()) == ["config.yaml", "run.json", "summary.json"]
    for other in (where, f"{bucket}/runs"):
        with pytest.raises(InputError, match="new or empty"):
            run_folder.check_new(other)


def test_a_store_that_cannot_be_written_is_refused(bucket):
    with pytest.raises(InputError, match=r"a folder that may be written; name another one .*NO_SUCH_BUCKET"):
        run_folder.check_new("s3://no-such-bucket/run")
