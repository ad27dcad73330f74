"""The records that processes exchange: batch ids, image batches and their provenance."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raydream.errors import ShardError

FORMAT_VERSION = 1
"""format version of image shards; a reader rejects any other"""
BATCH_TYPES = (pa.string(), pa.dictionary(pa.int32(), pa.string()))
"""types of the column `batch`: as written, and as read so that equal text is kept once"""


@dataclass(frozen=True, order=True)
class BatchId:
    """Names an image batch by its place in the run, never by its generator or time; ids sort in that order."""

    round: int
    index: int

    def __str__(self) -> str:
        return f"r{self.round:04d}-b{self.index:04d}"

    @classmethod
    def parse(cls, text: str) -> "BatchId":
        """Parse what `str` returns; raises ValueError for anything else."""
        round_text, _, index_text = text.partition("-b")
        batch_id = cls(int(round_text.removeprefix("r")), int(index_text))
        if str(batch_id) != text:
            raise ValueError(f"not a batch id: {text!r}")
        return batch_id


@dataclass(frozen=True)
class Order:
    """Everything that determines a batch, beside the run's settings and its student.

    Attributes:
        batch: its id.
        targets: int64 [N], the class that each image is to show.
        seed: of its random numbers.
        after: the batch from whose learned state it starts; None: nothing has been learned, or never is.
    """

    batch: BatchId
    targets: np.ndarray
    seed: int
    after: BatchId | None = None


@dataclass(frozen=True)
class Provenance:
    """The origin of an image batch.

    Attributes:
        run: id of the run.
        batch: the batch's id, as text.
        generator: index of the generator that made it.
        seed: of its random numbers.
        method: the synthesizer's name.
        teacher: fingerprint of the teacher's weights.
        student_step: the snapshot that it competed with, in distillation steps; None if no student competed.
        source: id of the batch whose images it started from; None if it started from noise.
        restarts: number of times that it diverged and was started again from another seed.
        coefficients: weight of each term.
        losses: each term at the last update, before its coefficient.
        distances: feature distance of each BN layer at the last update.
        target_share: share in [0, 1] of quantized images that the teacher classifies as their target; 1 if the
            method cannot target classes, and targets are the teacher's own classes.
        after: id of the batch from whose learned state it started; None if nothing had been learned.
        recipe: a digest shared by batches that are equal to the bit, see `synthesis/recipe.py`; empty if a student or a
            learned state decides as well, or the batch deviated from its settings.
    """

    run: str
    batch: str
    generator: int
    seed: int
    method: str
    teacher: str
    student_step: int | None
    source: str | None
    restarts: int
    coefficients: dict[str, float]
    losses: dict[str, float]
    distances: dict[str, float]
    target_share: float
    after: str | None = None
    recipe: str = ""


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images with targets and logits, the unit that processes exchange.

    Attributes:
        images: uint8 [N,C,H,W], pixel values 0 to 255.
        targets: int64 [N], in [0, K).
        teacher_logits: float32 [N,K], of the quantized images; a record and a check. A student's view may be
            shifted or mixed, so the teacher is run again on that view.
        provenance: its origin.
    """

    images: np.ndarray
    targets: np.ndarray
    teacher_logits: np.ndarray
    provenance: Provenance

    @property
    def id(self) -> BatchId:
        """Return the batch's id."""
        return BatchId.parse(self.provenance.batch)

    def __len__(self) -> int:
        return len(self.images)

    def to_table(self) -> pa.Table:
        """Convert to a table of `batch`, `row`, `image` (C*H*W bytes), `target`, `teacher_logits`; see `from_table`."""
        shape, classes = self.images.shape[1:], self.teacher_logits.shape[1]
        pixels = pa.array(np.ascontiguousarray(self.images).reshape(-1), pa.uint8())
        logits = pa.array(np.ascontiguousarray(self.teacher_logits).reshape(-1), pa.float32())
        columns = {
            "batch": pa.array([self.provenance.batch] * len(self)),
            "row": pa.array(np.arange(len(self), dtype=np.int32)),
            "image": pa.FixedSizeListArray.from_arrays(pixels, int(np.prod(shape))),
            "target": pa.array(self.targets, pa.int64()),
            "teacher_logits": pa.FixedSizeListArray.from_arrays(logits, classes),
        }
        metadata = {
            "raydream_format": str(FORMAT_VERSION),
            "image_shape": json.dumps([int(side) for side in shape]),
            "provenance": json.dumps(asdict(self.provenance)),
        }
        # Parquet's own checksums cover the pages with the columns, not this.
        metadata["digest"] = _digest(metadata)
        return pa.table(columns).replace_schema_metadata(metadata)

    @classmethod
    def from_table(cls, table: pa.Table) -> "ImageBatch":
        """Convert from what `to_table` returns, to the bit; the arrays own their memory.

        Raises:
            ShardError: the table is not an image batch, or has another format version.
        """
        shape, provenance = parse_description(table.schema.metadata)
        try:
            classes = check_types(table.schema, shape)
            table = table.combine_chunks()
            count = len(table)
            images = _flat(table, "image", np.uint8).reshape(count, *shape)
            logits = _flat(table, "teacher_logits", np.float32).reshape(count, classes)
            targets = table.column("target").to_numpy().astype(np.int64)
            if ((targets < 0) | (targets >= classes)).any():
                raise ValueError(
                    f"its targets go from {targets.min()} to {targets.max()}, and there are {classes} logits"
                )
            if np.isnan(logits).any():
                raise ValueError("there are NaN among its logits")
        except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise ShardError(f"not an image shard: {error}") from error
        return cls(images, targets, logits, provenance)


@dataclass(frozen=True)
class Snapshot:
    """A student's weights at a step, for competition and measurement.

    Attributes:
        step: number of distillation steps done.
        state: the weights by name; their moving average if the student has one.
    """

    step: int
    state: Mapping[str, np.ndarray]


def parse_shape(text: str | bytes) -> tuple[int, int, int]:
    """Parse [C,H,W] as `to_table` writes it; raises ValueError for anything else."""
    found = _parsed(text, "image_shape")
    if not (isinstance(found, list) and len(found) == 3 and all(type(side) is int and side > 0 for side in found)):
        raise ValueError("its image_shape is not [C,H,W] in whole numbers above 0")
    if math.prod(found) >= 2**31:
        raise ValueError(f"its images {found} are larger than a Parquet file can hold")
    return found[0], found[1], found[2]


def parse_description(metadata: Mapping[bytes, bytes] | None) -> tuple[tuple[int, int, int], Provenance]:
    """Parse the images' [C,H,W] and their provenance from the metadata of a table; see `ImageBatch.to_table`.

    Raises:
        ShardError: the metadata are not an image batch's, damaged, or of another format version.
    """
    try:
        described = {key.decode(): value.decode() for key, value in (metadata or {}).items()}
        version = described.get("raydream_format")
        if version != str(FORMAT_VERSION):
            raise ShardError(f"not an image shard of format {FORMAT_VERSION} (it says {version!r})")
        if described["digest"] != _digest(described):
            raise ShardError("its description does not match its digest")
        provenance = Provenance(**_parsed(described["provenance"], "provenance"))
        BatchId.parse(provenance.batch)
        return parse_shape(described["image_shape"]), provenance
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"not an image shard: {error}") from error


def check_types(schema: pa.Schema, shape: tuple[int, int, int]) -> int:
    """Check that a table has the columns of an image batch.

    Args:
        shape: [C,H,W] of its images.

    Returns:
        the number of classes.

    Raises:
        ValueError: a column is missing, superfluous, or of another type.
    """
    found = dict(zip(schema.names, schema.types, strict=True))
    classes = max(1, getattr(found.get("teacher_logits"), "list_size", 1))
    wanted = {
        "batch": BATCH_TYPES,
        "row": (pa.int32(),),
        "image": (pa.list_(pa.uint8(), math.prod(shape)),),
        "target": (pa.int64(),),
        "teacher_logits": (pa.list_(pa.float32(), classes),),
    }
    if sorted(schema.names) != sorted(wanted):
        raise ValueError(f"its columns are {', '.join(schema.names)}, and not {', '.join(wanted)}")
    for name, kinds in wanted.items():
        if found[name] not in kinds:
            raise ValueError(f"its column {name} is {found[name]}, and not {kinds[0]}")
    return classes


def _parsed(text: str | bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"its {name} is nested too deep") from error


def _digest(metadata: Mapping[str, str]) -> str:
    text = metadata["image_shape"] + metadata["provenance"]
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _flat(table: pa.Table, name: str, kind: type) -> np.ndarray:
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table.column(name).chunks]
    return np.concatenate(chunks).astype(kind, copy=True) if chunks else np.empty(0, kind)
