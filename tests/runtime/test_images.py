"""Images of a batch, with its object at hand, lost, or never there."""

from pathlib import Path

import numpy as np
import pytest
import ray

from raydream.errors import ShardError
from raydream.runtime.images import whole_batch
from raydream.store.shards import ShardStore
from tests.tiny import some_batch


def test_without_a_handle_the_shard_is_read(tmp_path: Path) -> None:
    store, batch = ShardStore(tmp_path), some_batch()
    with pytest.raises(ShardError, match="cannot be read"):
        whole_batch(batch.id, None, store)
    store.write(batch)
    assert np.array_equal(whole_batch(batch.id, None, store).images, batch.images)


@ray.remote(num_cpus=0)
class Owner:
    def put(self) -> list[ray.ObjectRef]:
        return [ray.put(some_batch())]


def test_with_a_handle_no_shard_is_read_unless_the_object_is_lost(joined: None, tmp_path: Path) -> None:
    batch, store = some_batch(), ShardStore(tmp_path)
    assert np.array_equal(whole_batch(batch.id, ray.put(batch), store).images, batch.images)
    owner = Owner.remote()  # type: ignore[attr-defined]
    (handle,) = ray.get(owner.put.remote())
    assert np.array_equal(whole_batch(batch.id, handle, store).images, batch.images)
    (lost,) = ray.get(owner.put.remote())  # an object dies with its owner
    ray.kill(owner)
    store.write(batch)
    assert np.array_equal(whole_batch(batch.id, lost, store).images, batch.images)
