"""A damaged shard is told, or reads as what was written; it never reads as something else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydream.errors import ShardError
from raydream.store.records import BatchId, ImageBatch, Provenance
from raydream.store.shards import ShardStore
from tests.fuzz.mutations import MUTATIONS, mutated
from tests.tiny import shard_path

pytestmark = pytest.mark.fuzz


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardStore, ImageBatch]:
    random = np.random.default_rng(0)
    provenance = Provenance("run", "r0001-b0002", 0, 7, "adaptive", "abc", 3, None, 0, {"tv": 1.0}, {}, {}, 0.5)
    images = random.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    logits = random.standard_normal((20, 10)).astype(np.float32)
    batch = ImageBatch(images, np.arange(20) % 10, logits, provenance)
    store = ShardStore(tmp_path_factory.mktemp("shards"))
    store.write(batch)
    return store, batch


@settings(max_examples=3000, deadline=None, derandomize=True, database=None)
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_damage_is_told_or_harmless(stored: tuple[ShardStore, ImageBatch], mutations: list[tuple]) -> None:
    store, batch = stored
    path = shard_path(store, batch.id)
    whole = path.read_bytes()
    try:
        path.write_bytes(mutated(whole, mutations))
        assert store.rows(batch.id) >= 0
        found = store.read(batch.id)
    except ShardError as error:
        assert str(path) in str(error)
    else:
        assert np.array_equal(found.images, batch.images) and np.array_equal(found.targets, batch.targets)
        assert np.array_equal(found.teacher_logits, batch.teacher_logits)
        assert found.provenance == batch.provenance
    finally:
        path.write_bytes(whole)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(names=st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20)))
def test_strange_files_among_the_shards_are_passed_over(tmp_path_factory: pytest.TempPathFactory, names) -> None:
    folder = tmp_path_factory.mktemp("strange")
    store = ShardStore(folder)
    for name in names:
        (folder / f"r{name}-b{name}.parquet").write_bytes(b"")
    for batch in store.committed():
        assert isinstance(batch, BatchId)
        with pytest.raises(ShardError):
            store.read(batch)
