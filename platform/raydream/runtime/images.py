"""A committed batch: from Ray's object store while it holds them, otherwise from its shard."""

import ray

from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore

FETCH_TIMEOUT_S = 60.0
"""seconds to wait for a batch from the object store, after which its shard is read"""


def whole_batch(batch: BatchId, handle: ray.ObjectRef | None, store: ShardStore) -> ImageBatch:
    """Return a batch; callers must not write to its arrays.

    Args:
        handle: reference to the `ImageBatch`; a cache that may be lost with its node. None: not cached.
        store: of the batch's shard, which is the truth.

    Raises:
        ShardError: the handle is lost and the shard cannot be read.
        OSError: the handle is lost and storage keeps failing.
    """
    if handle is not None:
        try:
            cached: ImageBatch = ray.get(handle, timeout=FETCH_TIMEOUT_S)
            return cached
        except (ray.exceptions.ObjectLostError, ray.exceptions.GetTimeoutError):
            pass  # the reference was a cache: the shard below is the truth
    return store.read(batch)
