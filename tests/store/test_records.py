import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydream.errors import ShardError
from raydream.store.records import BatchId, ImageBatch
from tests.tiny import some_batch

ids = st.builds(BatchId, st.integers(0, 10**6), st.integers(0, 10**6))


@given(ids)
def test_a_batch_id_comes_back_from_its_text(batch):
    assert BatchId.parse(str(batch)) == batch


@given(ids, ids)
def test_batch_ids_sort_by_round_and_then_by_index(one, other):
    assert (one < other) == ((one.round, one.index) < (other.round, other.index))


def test_the_text_of_a_batch_id():
    assert str(BatchId(0, 12)) == "r0000-b0012" and str(BatchId(12345, 0)) == "r12345-b0000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r0001",
        "r1-b2",
        "0001-b0002",
        "r0001-b",
        "r0001-b00x2",
        "r0001-b0002 ",
        "r00001-b0002",
        "r0001_b0002",
        "rr-bb",
    ],
)
def test_what_is_no_batch_id_is_refused(text):
    with pytest.raises(ValueError):
        BatchId.parse(text)


def assert_same(one: ImageBatch, other: ImageBatch) -> None:
    for name in ("images", "targets", "teacher_logits"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), name
    assert one.provenance == other.provenance


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 6)])
def test_a_batch_comes_back_from_its_table_to_the_bit(count, shape):
    batch = some_batch(count=count, shape=shape)
    back = ImageBatch.from_table(batch.to_table())
    assert_same(batch, back)
    assert back.id == BatchId(1, 2) and len(back) == count


def test_a_table_has_a_row_per_image():
    batch = some_batch()
    table = batch.to_table()
    assert table.column_names == ["batch", "row", "image", "target", "teacher_logits"]
    rows = table.to_pylist()
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4] and {row["batch"] for row in rows} == {"r0001-b0002"}
    assert [row["target"] for row in rows] == batch.targets.tolist()
    assert rows[3]["image"] == batch.images[3].flatten().tolist()


def test_what_comes_back_may_be_written_to():
    table = some_batch().to_table()
    first = ImageBatch.from_table(table)
    for array in (first.images, first.targets, first.teacher_logits):
        array[...] = 0
    assert_same(ImageBatch.from_table(table), some_batch())


def test_arrays_that_are_not_contiguous_come_back_too():
    batch = some_batch()
    turned = ImageBatch(batch.images.transpose(0, 1, 3, 2), batch.targets, batch.teacher_logits, batch.provenance)
    assert np.array_equal(ImageBatch.from_table(turned.to_table()).images, turned.images)


def test_a_table_in_chunks_or_cut_comes_back_too():
    batch = some_batch()
    table = batch.to_table()
    chunked = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert_same(ImageBatch.from_table(chunked), batch)
    assert np.array_equal(ImageBatch.from_table(table.slice(1, 3)).images, batch.images[1:4])


def with_metadata(**changes: str | None) -> pa.Table:
    table = some_batch().to_table()
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()} | changes
    return table.replace_schema_metadata({key: value for key, value in metadata.items() if value is not None})


@pytest.mark.parametrize("version", [None, "0", "2", "1.0", ""])
def test_another_format_version_is_refused(version):
    with pytest.raises(ShardError, match="format 1"):
        ImageBatch.from_table(with_metadata(raydream_format=version))


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, 2]}),
        with_metadata(image_shape=None),
        with_metadata(image_shape="[3, 4, 7]"),
        with_metadata(image_shape="nonsense"),
        with_metadata(provenance=None),
        with_metadata(provenance="{"),
        with_metadata(provenance='{"run": "x"}'),
        with_metadata(provenance=json.dumps([1, 2])),
        some_batch().to_table().drop_columns(["image"]),
        some_batch().to_table().drop_columns(["target"]),
        some_batch().to_table().drop_columns(["teacher_logits"]),
    ],
    ids=lambda table: None,
)
def test_what_is_no_image_batch_is_refused(table):
    with pytest.raises(ShardError):
        ImageBatch.from_table(table)


def test_a_column_of_another_type_is_refused():
    table = some_batch().to_table()
    index = table.column_names.index("image")
    with pytest.raises(ShardError):
        ImageBatch.from_table(table.set_column(index, "image", pa.array(["x"] * len(table))))
