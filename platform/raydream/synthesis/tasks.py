"""The batches that a configuration orders for a set of images, whichever generator makes them."""

from dataclasses import dataclass
from functools import partial

from raydream.config import SynthesizeConfig
from raydream.data.image_set import open_shards
from raydream.errors import InputError, ShardError
from raydream.schedule import even_sizes, predecessor
from raydream.seeds import derive_seed
from raydream.store.records import BatchId, Order
from raydream.targets import choose_targets

DEFAULT_IMAGES = 256


@dataclass(frozen=True)
class Task:
    """A batch for a generator to make.

    Attributes:
        source: the batch of the run named in `start_from` that it starts from; None: noise.
    """

    order: Order
    source: BatchId | None


def tasks_of(config: SynthesizeConfig) -> dict[BatchId, Task]:
    """Return all batches in order; they depend only on the configuration and on the images to start from.

    Raises:
        InputError: there are no images to start from, or of another shape than the teacher's.
    """
    sources: list[BatchId | None]
    if config.start_from is not None:
        store = open_shards(config.start_from, "start_from")
        sources = [*store.committed()]
        try:
            starts = [store.read(source).images for source in store.committed()]
        except ShardError as error:
            allowed = "a run whose images can all be read"
            raise InputError("start_from", config.start_from, allowed, f"{error}: resume that run") from error
        sizes, shape = [len(images) for images in starts], starts[0].shape[1:]
        if shape != config.teacher.input_shape:
            allowed = f"a run with images {config.teacher.input_shape}, as teacher.input_shape says"
            raise InputError("start_from", config.start_from, allowed, f"its images are {shape}")
    else:
        images = config.images or DEFAULT_IMAGES
        sizes = even_sizes(images, -(-images // config.synthesis.batch_size))  # as coefficients belong to a size
        sources = [None] * len(sizes)
    batch_at, first = partial(BatchId, 0), 0
    tasks = {}
    for index, (count, source) in enumerate(zip(sizes, sources, strict=True)):
        batch = batch_at(index)
        targets = choose_targets(config.synthesis.targets, config.teacher.classes, first, count, config.seed)
        after = predecessor(batch_at, index, config.synthesis)
        tasks[batch] = Task(Order(batch, targets, derive_seed(config.seed, "synthesis", index, 0), after), source)
        first += count
    return tasks
