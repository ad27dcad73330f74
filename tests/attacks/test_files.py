"""Hostile and broken files of images, shards and checkpoints: one sentence, at once, and nothing is unpacked.

Files are generated. Those that would unpack to more than the machine has are small, and are refused by what they
declare: a test that read one would be killed.
"""

import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raydream import memory
from raydream.data import files
from raydream.errors import ShardError
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from tests.attacks.asked import distill, refusal, transfer
from tests.tiny import shard_path, tiny_network

# Files of images


def parquet(image: pa.Array, label: pa.Array | None = None, **metadata: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        table = pa.table({"image": image} | ({} if label is None else {"label": label}))
        table = table.replace_schema_metadata(metadata or None)
        pq.write_table(table, folder / "a.parquet", compression="zstd", store_schema=bool(metadata))
        return folder / "a.parquet"

    return write


def shared(value: bytes, rows: int, width: int | None = None) -> pa.Array:
    """Rows that all are one value, which Parquet keeps once."""
    kind = pa.binary() if width is None else pa.binary(width)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], kind))


DIGIT = bytes(64)
PNG_OF_ALL = [DIGIT] * 20
FOREIGN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "whole numbers": (parquet(pa.array([5_000_000_000] * 20)), "image is int64"),
    "numbers": (parquet(pa.array([0.5] * 20)), "image is double"),
    "text": (parquet(pa.array(["a"] * 20)), "image is string"),
    "nothing": (parquet(pa.nulls(20)), "row 0 of a.parquet is no picture, and 0 bytes"),
    "dates": (parquet(pa.array([0] * 20, pa.date32())), "image is date32"),
    "a struct without bytes": (parquet(pa.array([{"path": "a"}] * 20)), "image is struct<path: string>"),
    "a struct of other bytes": (parquet(pa.array([{"bytes": 5}] * 20)), "image.bytes is int64"),
    "lists of lists": (parquet(pa.array([[[1]]] * 20)), "image is list"),
    "lists of numbers": (parquet(pa.array([[0.5] * 64] * 20)), "image is list"),
    "lists of too large numbers": (parquet(pa.array([[256] * 64] * 20)), "row 0 of a.parquet"),
    "image_shape 5": (parquet(pa.array(PNG_OF_ALL), image_shape="5"), "image_shape"),
    "image_shape null": (parquet(pa.array(PNG_OF_ALL), image_shape="null"), "image_shape"),
    "image_shape of text": (parquet(pa.array(PNG_OF_ALL), image_shape='["1", 8, 8]'), "image_shape"),
    "image_shape of fractions": (parquet(pa.array(PNG_OF_ALL), image_shape="[1, 8.0, 8]"), "image_shape"),
    "image_shape below 1": (parquet(pa.array(PNG_OF_ALL), image_shape="[1, -8, -8]"), "image_shape"),
    "image_shape of two": (parquet(pa.array(PNG_OF_ALL), image_shape="[8, 8]"), "image_shape"),
    "a deep image_shape": (parquet(pa.array(PNG_OF_ALL), image_shape="[" * 100_000), "image_shape"),
    "an image_shape in a dictionary": (parquet(pa.array(PNG_OF_ALL), image_shape='{"a": 1}'), "image_shape"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_parquet_files_of_odd_types_are_refused(what: str, tmp_path: Path) -> None:
    write, says = FOREIGN[what]
    error = refusal(lambda: transfer(tmp_path, write(tmp_path)))
    assert error.field == "images" and says in str(error), str(error)


@pytest.mark.parametrize(
    "label", [[[1]] * 20, [{"a": 1}] * 20, [True] * 20, [2**63] * 20, [-(2**40)] * 20, [b"1"] * 20]
)
def test_labels_of_odd_types_are_refused(label: list, tmp_path: Path) -> None:
    kind = pa.uint64() if label[0] == 2**63 else None
    path = parquet(pa.array(PNG_OF_ALL), pa.array(label, kind))(tmp_path)
    data = {"name": "files", "test": str(path), "validation_of": "test"}
    assert refusal(lambda: distill(data=data)).field == "data.test"


TAKEN = {
    "bytes": pa.array(PNG_OF_ALL),
    "large bytes": pa.array(PNG_OF_ALL, pa.large_binary()),
    "bytes of one width": pa.array(PNG_OF_ALL, pa.binary(64)),
    "a struct": pa.array([{"bytes": DIGIT, "path": None}] * 20),
    "shared values": shared(DIGIT, 20),
    "lists": pa.array([list(DIGIT)] * 20, pa.list_(pa.uint8())),
    "lists of wide numbers": pa.array([list(DIGIT)] * 20),
    "lists of one length": pa.array([list(DIGIT)] * 20, pa.list_(pa.uint8(), 64)),
}


@pytest.mark.parametrize("what", TAKEN)
def test_foreign_parquet_files_of_usual_types_are_taken(what: str, tmp_path: Path) -> None:
    transfer(tmp_path, parquet(TAKEN[what])(tmp_path))


# Shards


def shard(change: Callable[[pa.Table], pa.Table], **fields: object) -> Callable[[Path], object]:
    """Damages the second shard of a run, with checksums that are right."""

    def damage(run_dir: Path) -> None:
        store, batch = ShardStore(run_dir / "images"), BatchId(0, 1)
        whole = store.read(batch)
        table = change(replace(whole, **{name: make(getattr(whole, name)) for name, make in fields.items()}).to_table())
        pq.write_table(table, shard_path(store, batch), compression="zstd", write_page_checksum=True)

    return damage


def retyped(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            column = pa.FixedSizeListArray.from_arrays(column.flatten().cast(kind), column.type.list_size)
        else:
            column = column.cast(kind)
        return table.set_column(table.column_names.index(name), name, column)

    return change


def described_as(**changes: object) -> Callable[[pa.Table], pa.Table]:
    """The table with another description, and the digest of that."""

    def change(table: pa.Table) -> pa.Table:
        from raydream.store.records import _digest

        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        metadata |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
        return table.replace_schema_metadata(metadata | {"digest": _digest(metadata)})

    return change


def same(value: object) -> object:
    return value


SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pixels of int64": (shard(retyped("image", pa.int64())), "image"),
    "pixels of floats": (shard(retyped("image", pa.float32())), "image"),
    "pixels of uint16": (shard(retyped("image", pa.uint16())), "image"),
    "targets of floats": (shard(retyped("target", pa.float64())), "target"),
    "targets of int32": (shard(retyped("target", pa.int32())), "target"),
    "targets of text": (shard(retyped("target", pa.string())), "target"),
    "logits of doubles": (shard(retyped("teacher_logits", pa.float64())), "teacher_logits"),
    "a target below 0": (shard(same, targets=lambda v: np.where(v == 3, -5, v)), "targets"),
    "a target beyond the logits": (shard(same, targets=lambda v: np.where(v == 3, 99, v)), "targets"),
    "logits of NaN": (shard(same, teacher_logits=lambda v: v * np.float32("nan")), "NaN"),
    "three logits": (shard(same, teacher_logits=lambda v: v[:, :3], targets=lambda v: v % 3), "logits"),
    "no column of targets": (shard(lambda table: table.drop_columns(["target"])), "target"),
    "a column too many": (shard(lambda table: table.append_column("more", table.column("row"))), "more"),
    "pixels that are missing": (
        shard(lambda table: table.set_column(2, "image", pa.array([None] * 20, table.column("image").type))),
        "",
    ),
    "an image_shape of 5": (shard(described_as(image_shape=5)), "image_shape"),
    "an image_shape of 4": (shard(described_as(image_shape=[1, 1, 8, 8])), "image_shape"),
    "a deep image_shape": (shard(described_as(image_shape="[" * 100_000)), "image_shape"),
    "a negative image_shape": (shard(described_as(image_shape=[1, -8, -8])), "image_shape"),
    "a deep provenance": (shard(described_as(provenance="[" * 100_000)), ""),
    "a provenance of text": (shard(described_as(provenance="r0000-b0001")), ""),
}


@pytest.mark.parametrize("what", SHARDS)
def test_shards_of_other_types_or_values_are_refused(what: str, run_dir: Path, tmp_path: Path) -> None:
    damage, says = SHARDS[what]
    damage(run_dir)
    error = refusal(lambda: transfer(tmp_path, run_dir))
    assert error.field == "images" and says in str(error), str(error)
    if what != "three logits":  # which are those of another teacher
        with pytest.raises(ShardError, match="r0000-b0001"):
            ShardStore(run_dir / "images").read(BatchId(0, 1))


# Files that unpack to more than there is


def bomb_of_shared_values(folder: Path) -> Path:
    """1 TB in some hundred bytes: a million rows of one value of a megabyte."""
    return parquet(shared(bytes(10**6), 10**6))(folder)


def bomb_of_shared_structs(folder: Path) -> Path:
    values = pa.StructArray.from_arrays([shared(bytes(10**6), 10**6)], ["bytes"])
    return parquet(values)(folder)


def bomb_of_large_values(folder: Path) -> Path:
    """The same by fewer rows of a larger value, whose bytes would suffice for the pixels of all rows."""
    return parquet(shared(bytes(2**24), 2**16))(folder)


def bomb_of_shared_labels(folder: Path) -> Path:
    return parquet(pa.array(PNG_OF_ALL * 10**4), shared(bytes(10**6), 20 * 10**4))(folder)


def npz_bomb(folder: Path, *shape: int, kind: str = "|u1") -> Path:
    """An array of zeros, as large as its header says, in a thousandth of that."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as member:
        member.write(header.getvalue() + bytes(2**24))
    return folder / "a.npz"


def pt_bomb(folder: Path, megabytes: int = 256) -> Path:
    """A checkpoint that is compressed, as torch.save never does: zeros in a thousandth of their size."""
    torch.save(OrderedDict(weight=torch.zeros(4)), folder / "whole.pt")
    with (
        zipfile.ZipFile(folder / "whole.pt") as whole,
        zipfile.ZipFile(folder / "a.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
    ):
        for info in whole.infolist():
            content = whole.read(info)
            with file.open(info.filename, "w") as member:
                if info.filename.endswith("data/0"):
                    for _ in range(megabytes):
                        member.write(bytes(2**20))
                else:
                    member.write(content)
    return folder / "a.pt"


def hole(path: Path) -> Path:
    """A file of 1 TiB that takes no space on the disk."""
    with path.open("wb") as file:
        file.truncate(2**40)
    return path


def test_a_parquet_file_of_some_bytes_for_a_terabyte_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "UNPACKED", 2**25)  # which takes less time
    for index, write in enumerate((bomb_of_shared_values, bomb_of_shared_structs, bomb_of_large_values)):
        (tmp_path / str(index)).mkdir()
        path = write(tmp_path / str(index))
        assert path.stat().st_size < 10_000
        assert "row 0 of a.parquet" in str(refusal(lambda path=path: transfer(tmp_path, path)))


def test_labels_of_a_terabyte_are_refused(tmp_path: Path) -> None:
    path = bomb_of_shared_labels(tmp_path)
    data = {"name": "files", "test": str(path), "validation_of": "test"}
    assert "its labels are" in str(refusal(lambda: distill(data=data)))


HUGE = 2**34
"""images: 1 TiB of digits"""


@pytest.mark.parametrize("shape", [(HUGE, 8, 8), (HUGE, 8, 8, 1), (2**62, 8, 8)])
def test_an_array_larger_than_memory_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = npz_bomb(tmp_path, *shape)
    assert "of memory, of which" in str(refusal(lambda: transfer(tmp_path, path)))


OTHER_ARRAYS = [
    ((HUGE, 9, 8), "|u1", "those in a.npz are (1, 9, 8)"),
    ((HUGE, 8, 8), "<f8", f"x is float64 [{HUGE}, 8, 8]"),
    ((HUGE,), "|u1", f"x is uint8 [{HUGE}]"),
    ((), "|u1", "x is uint8 []"),
]


@pytest.mark.parametrize(("shape", "kind", "says"), OTHER_ARRAYS)
def test_an_array_of_another_shape_or_type_is_refused_before_it_is_unpacked(shape, kind, says, tmp_path: Path) -> None:
    path = npz_bomb(tmp_path, *shape, kind=kind)
    assert says in str(refusal(lambda: transfer(tmp_path, path)))


def test_a_checkpoint_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = pt_bomb(tmp_path)
    assert path.stat().st_size < 2**22
    error = refusal(lambda: distill(teacher={"checkpoint": str(path)}))
    assert "it unpacks to 256 MiB" in str(error), str(error)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["a.pt", "a.pth"])
def test_an_archive_of_torchscript_is_refused_as_what_it_is(name: str, tmp_path: Path, recwarn) -> None:
    torch.jit.save(torch.jit.script(tiny_network()), tmp_path / name)
    recwarn.clear()
    error = refusal(lambda: distill(teacher={"checkpoint": str(tmp_path / name)}))
    assert error.field == "teacher.checkpoint" and "a TorchScript archive" in str(error), str(error)
    assert not recwarn.list, "torch's own words are no part of the sentence"


class Opening:
    """What unpickling executes: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["x", "y"])
def test_arrays_of_objects_are_refused_and_not_unpickled(name: str, tmp_path: Path) -> None:
    arrays = {"x": np.zeros((20, 8, 8), np.uint8), "y": np.zeros(20, np.int64)}
    arrays[name] = np.array([Opening(tmp_path / "opened")] * 20, dtype=object)
    np.savez(tmp_path / "a.npz", **arrays)
    data = {"name": "files", "test": str(tmp_path / "a.npz"), "validation_of": "test"}
    assert f"{name} holds Python objects" in str(refusal(lambda: distill(data=data)))
    if name == "x":
        assert "x holds Python objects" in str(refusal(lambda: transfer(tmp_path, tmp_path / "a.npz")))
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npz", "a.parquet", "pictures/a.png"])
def test_a_file_larger_than_memory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path = hole(tmp_path / name)
    where = path if "/" not in name else path.parent
    is_checkpoint = name.endswith(("pt", "safetensors"))
    error = refusal(lambda: distill(teacher={"checkpoint": str(path)}) if is_checkpoint else transfer(tmp_path, where))
    assert "of memory, of which" in str(error) or name == "a.parquet", str(error)


def zeros(kind: str) -> pa.Array:
    """Images that take some hundred bytes in a file, and megabytes in memory."""
    if kind == "lists":
        return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**22, np.uint8)), 64)
    return shared(DIGIT, 2**15, 64 if kind == "bytes of one width" else None)


@pytest.mark.parametrize("kind", ["lists", "bytes of one width", "rows"])
def test_what_a_parquet_file_says_it_holds_has_to_fit_into_memory(kind: str, tmp_path: Path, monkeypatch) -> None:
    path = parquet(zeros(kind))(tmp_path)
    assert path.stat().st_size < 2500
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    assert "of memory, of which 1 MiB are free" in str(refusal(lambda: transfer(tmp_path, path)))


def test_what_a_shard_says_it_holds_has_to_fit_into_memory(run_dir: Path, tmp_path: Path, monkeypatch) -> None:
    store, batch, rows = ShardStore(run_dir / "images"), BatchId(0, 1), 2**15
    large = {"images": np.zeros((rows, 1, 8, 8), np.uint8), "targets": np.zeros(rows, np.int64)}
    large["teacher_logits"] = np.zeros((rows, 10), np.float32)
    pq.write_table(replace(store.read(batch), **large).to_table(), shard_path(store, batch), compression="zstd")
    assert shard_path(store, batch).stat().st_size < 2**18
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    for read in (store.read, store.extent):
        with pytest.raises(ShardError, match="of memory, of which 1 MiB are free"):
            read(batch)
    assert "of memory" in str(refusal(lambda: transfer(tmp_path, run_dir)))
