"""Reads images from users' files: Parquet, .npz, folders of pictures. Nothing in them is executed."""

import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from raydream.data.sources import Source, by_part
from raydream.errors import InputError, first_line
from raydream.memory import check_fits
from raydream.store.folders import Folder, file_at, folder_at
from raydream.store.records import parse_shape

IMAGE_COLUMNS = ("image", "img", "jpeg", "png")
LABEL_COLUMNS = ("label", "target")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
KINDS = "a .parquet file or a folder of these, an .npz file, or a folder of pictures"
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
"""signatures of pictures in tables, rare in pixels; those of other formats are too short to be reliable"""
WHOLE_NUMBERS = "labeled by whole numbers, without a gap"
UNPACKED = 2**29
"""bytes that are unpacked at once, unless one image is larger"""
TOGETHER = 256
"""number of pictures that are read at once"""

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""of arrays in files, by the version of NumPy's format"""

Shape = tuple[int, int, int]
Own = TypeVar("Own")
DAMAGE = (
    *(OSError, KeyError, ValueError, TypeError, SyntaxError, EOFError),
    *(pa.ArrowException, PIL.Image.DecompressionBombError),
)
"""errors of readers for damaged files, or for files of another kind (Pillow: SyntaxError)"""


class LabeledSource(Source, Protocol):
    """A source that may have labels."""

    def labels(self) -> np.ndarray:
        """Return the labels, int64 [N]; raises InputError where there are none."""


@dataclass(frozen=True)
class NamedPlace:
    """The setting that names files, for errors.

    Attributes:
        field: the option's name.
        where: path or URL, as given.
        resize: whether pictures of another shape are resized.
    """

    field: str
    where: str
    resize: bool = False

    def refused(self, allowed: str, reason: str) -> InputError:
        """Return an error of one sentence."""
        return InputError(self.field, self.where, allowed, reason)

    def unreadable(self, name: str, error: Exception) -> InputError:
        """Return an error for a file that cannot be read."""
        return self.refused("files that can be read", f"reading {name} failed: {first_line(error)}")


@dataclass(frozen=True)
class ParquetImages:
    """Rows of Parquet files; an image is the bytes of a picture, or its pixels, channel by channel.

    Attributes:
        shape: [C,H,W] that all images must have.
        groups: folder, file and index of each row group.
        parts: number of rows of each.
        column: the images' column, by its path in the file.
        label_column: the labels' column; None where there is none.
        stored: [C,H,W] of images stored as pixels.
    """

    place: NamedPlace
    shape: Shape
    groups: list[tuple[Folder, str, int]]
    parts: list[int]
    column: str
    label_column: str | None
    stored: Shape

    @classmethod
    def open(cls, place: NamedPlace, shape: Shape, folder: Folder, names: list[str]) -> "ParquetImages":
        """Read the files' descriptions; raises InputError."""
        groups, columns, stored = [], set(), shape
        parts: list[int] = []
        for name in names:
            try:
                with folder.open(name) as file:
                    metadata = pq.read_metadata(file)
                    schema = metadata.schema.to_arrow_schema()
                if noted := (schema.metadata or {}).get(b"image_shape"):
                    stored = parse_shape(noted)
                column, label = _first_of(IMAGE_COLUMNS, schema.names), _first_of(LABEL_COLUMNS, schema.names)
                path = None if column is None else _path(column, schema.field(column).type)
                # Not `column`, which ends the process where a description is damaged.
                row_groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
                rows = [each.num_rows for each in row_groups]
                for each in row_groups:
                    check_fits(max(each.total_byte_size, each.num_rows * math.prod(shape)))
                check_fits(np.dtype(np.int64).itemsize * (sum(parts) + sum(rows)))  # by which they are chosen
            except DAMAGE as error:
                raise place.unreadable(name, error) from error
            columns.add((path, label))
            groups += [(folder, name, index) for index in range(len(rows))]
            parts += rows
            if stored != shape and not place.resize:
                raise place.refused(f"images {shape}", f"those in {name} are {stored}")
        if len(columns) != 1 or (path := next(iter(columns))[0]) is None:
            allowed = f"Parquet files with one of the columns {', '.join(IMAGE_COLUMNS)}, the same in all"
            raise place.refused(allowed, f"the last one has {', '.join(schema.names)}")
        return cls(place, shape, groups, parts, path, next(iter(columns))[1], stored)

    def read(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape), np.uint8)
        filled = 0
        for part, inner in by_part(self.parts, rows):
            for first, column in self._pieces(part, self.column):
                chosen = inner[np.searchsorted(inner, first) : np.searchsorted(inner, first + len(column))]
                if not len(chosen):
                    continue
                column = column.take(pa.array(chosen - first))
                if pa.types.is_struct(column.type):
                    column = column.field("bytes")
                for row, value in zip(chosen, column, strict=True):
                    content = value.as_py() if value.is_valid else None
                    try:
                        images[filled] = self._decoded(bytes(content or b""))
                    except DAMAGE as error:
                        raise self._wrong(part, int(row), error) from error
                    filled += 1
        return images

    def _decoded(self, content: bytes) -> np.ndarray:
        if self.stored == self.shape:
            return decoded(content, self.shape, self.place.resize)
        (image,) = resized(decoded(content, self.stored)[None], self.shape)
        return np.asarray(image)

    def labels(self) -> np.ndarray:
        if self.label_column is None:
            allowed = f"labeled, by one of the columns {', '.join(LABEL_COLUMNS)}"
            raise self.place.refused(allowed, "there is none in it")
        labels = []
        for part in range(len(self.groups)):
            for _, column in self._pieces(part, self.label_column):
                if not pa.types.is_integer(getattr(column.type, "value_type", column.type)):  # before text is unpacked
                    raise self.place.refused(WHOLE_NUMBERS, f"its labels are {column.type}")
                labels.append(column.to_numpy(zero_copy_only=False))
        return _whole_numbers(self.place, np.concatenate(labels))

    def _pieces(self, part: int, name: str) -> Iterator[tuple[int, pa.Array]]:
        """Yield a column in pieces of rows, each with the number of its first row in the part; raises InputError.

        A piece stays small even if each row has all the bytes of the part, as rows can share a value.
        """
        folder, file_name, index = self.groups[part]
        try:
            with folder.open(file_name) as file:
                metadata = pq.read_metadata(file)
                group = metadata.row_group(index)
                # Fewer bytes than pixels are pictures, or shared values: as a dictionary, each value is unpacked once.
                are_pixels = name == self.column and group.total_byte_size >= group.num_rows * math.prod(self.stored)
                is_list = name not in [metadata.schema.column(at).path for at in range(metadata.num_columns)]
                once = [] if is_list or are_pixels else [name]
                small = is_list or not are_pixels
                together = TOGETHER if small else min(TOGETHER, max(1, UNPACKED // max(1, group.total_byte_size)))
                opened = pq.ParquetFile(file, metadata=metadata, page_checksum_verification=True, read_dictionary=once)
                first = 0
                for piece in opened.iter_batches(together, row_groups=[index], columns=[name]):
                    yield first, piece.column(0)
                    first += len(piece)
                if first != self.parts[part]:
                    raise ValueError(f"{first} of {self.parts[part]} rows are there")
        except DAMAGE as error:
            raise self.place.unreadable(file_name, error) from error

    def _wrong(self, part: int, row: int, error: Exception) -> InputError:
        _, name, index = self.groups[part]
        row += sum(rows for (_, other, group), rows in zip(self.groups, self.parts, strict=True)
                   if other == name and group < index)  # fmt: skip
        return self.place.refused(f"images {self.shape}", f"row {row} of {name} {first_line(error)}")


@dataclass(frozen=True)
class ArrayImages:
    """An .npz file with `x`, uint8 [N,H,W,C] or [N,H,W], and perhaps `y`, [N].

    Attributes:
        folder, name: of the file.
        parts: one part, as such a file is always read whole.
    """

    place: NamedPlace
    shape: Shape
    folder: Folder
    name: str
    parts: list[int]

    @classmethod
    def open(cls, place: NamedPlace, shape: Shape, folder: Folder, name: str) -> "ArrayImages":
        """Read the arrays' descriptions; raises InputError."""
        opened = cls(place, shape, folder, name, [0])
        kind, sides = opened._described("x")
        if kind != np.uint8 or len(sides) not in (3, 4):
            found = "there is none" if kind is None else f"x is {kind} {list(sides)}"
            raise place.refused("a file with x, uint8 [N,H,W,C] or [N,H,W]", found)
        stored = (1, *sides[1:]) if len(sides) == 3 else (sides[3], *sides[1:3])
        if stored != shape and not place.resize:
            raise place.refused(f"images {shape}", f"those in {name} are {stored}")
        try:
            check_fits(max(math.prod(sides), sides[0] * max(math.prod(shape), np.dtype(np.int64).itemsize)))
        except ValueError as error:
            raise place.unreadable(name, error) from error
        return cls(place, shape, folder, name, [sides[0]])

    def read(self, rows: np.ndarray) -> np.ndarray:
        pixels = self._array("x")
        assert pixels is not None  # as `open` has seen
        images = np.ascontiguousarray(_channels_first(pixels)[rows])
        return resized(images, self.shape) if self.place.resize else images

    def labels(self) -> np.ndarray:
        kind, sides = self._described("y")
        if kind is None or sides != (self.parts[0],):
            raise self.place.refused("labeled, by y [N]", "there is none, or not one for each image")
        if not np.issubdtype(kind, np.integer):
            raise self.place.refused(WHOLE_NUMBERS, f"its labels are {kind}")
        labels = self._array("y")
        assert labels is not None  # as its description has said
        return _whole_numbers(self.place, labels)

    def _described(self, name: str) -> tuple[np.dtype[Any] | None, tuple[int, ...]]:
        """Read an array's type and shape from its header, before unpacking; None where it is missing."""
        try:
            content = io.BytesIO(self.folder.read(self.name))
            with zipfile.ZipFile(content) as file:
                if f"{name}.npy" not in file.namelist():
                    return None, ()
                with file.open(f"{name}.npy") as member:
                    read = HEADERS.get(np.lib.format.read_magic(member))
                    if read is None:
                        raise ValueError(f"{name} is in a format of NumPy's that no plain numbers need")
                    shape, _, kind = read(member)
                    if kind.hasobject:
                        raise ValueError(f"{name} holds Python objects")
                    return kind, shape
        except Exception as error:  # zipfile and numpy raise many kinds
            raise self.place.unreadable(self.name, error) from error

    def _array(self, name: str) -> np.ndarray | None:
        try:
            with np.load(io.BytesIO(self.folder.read(self.name)), allow_pickle=False) as arrays:
                found: np.ndarray | None = arrays.get(name)
                return found
        except Exception as error:  # zipfile and numpy raise many kinds
            raise self.place.unreadable(self.name, error) from error


@dataclass(frozen=True)
class PictureImages:
    """Picture files in a folder, or in a folder for each class.

    Attributes:
        pictures: folder and name of each.
        classes: class of each; -1 where they do not lie in folders of classes.
    """

    place: NamedPlace
    shape: Shape
    pictures: list[tuple[Folder, str]]
    classes: list[int]

    @classmethod
    def open(cls, place: NamedPlace, shape: Shape, folder: Folder) -> "PictureImages":
        """List the files. A folder whose name is a number is that class; other names count in their order.

        Raises:
            InputError: there are no pictures.
        """
        found = [(folder, name, -1) for name in _pictures(folder)]
        names = sorted(folder.folders())
        numbered = bool(names) and all(name.isdecimal() for name in names)
        for index, name in enumerate(names):
            label, inside = (int(name) if numbered else index), folder / name
            found += [(inside, picture, label) for picture in _pictures(inside)]
        if not found:
            raise place.refused(KINDS, "there is none of these in it")
        return cls(place, shape, [(where, name) for where, name, _ in found], [label for *_, label in found])

    @property
    def parts(self) -> list[int]:
        whole, rest = divmod(len(self.pictures), TOGETHER)
        return [TOGETHER] * whole + [rest] * bool(rest)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._picture(int(row)) for row in rows])

    def labels(self) -> np.ndarray:
        if min(self.classes) < 0:
            raise self.place.refused("labeled, by a folder for each class", "pictures lie in no such folder")
        return np.array(self.classes, np.int64)

    def _picture(self, row: int) -> np.ndarray:
        folder, name = self.pictures[row]
        try:
            return decoded(folder.read(name), self.shape, self.place.resize)
        except DAMAGE as error:
            raise self.place.refused(f"images {self.shape}", f"{folder}/{name} {first_line(error)}") from error


def open_files(where: str, field: str, shape: Shape, resize: bool = False) -> LabeledSource:
    """Open the images that a path or a URL names.

    Args:
        field: the option's name, for the error.
        shape: [C,H,W] that they must have.
        resize: whether pictures of another shape are resized.

    Raises:
        InputError: images are missing, of another shape, or unreadable; pictures are checked when they are read.
    """
    place = NamedPlace(field, where, resize)
    folder, name = file_at(where)
    opened: LabeledSource
    try:
        if folder.has(name):
            opened = _open_file(place, shape, folder, name)
        else:
            inside = folder_at(where, field)
            if not (inside.names() or inside.folders()):
                raise place.refused(KINDS, "nothing is there")
            shards = sorted(name for name in inside.names() if name.endswith(".parquet"))
            if shards:
                opened = ParquetImages.open(place, shape, inside, shards)
            else:
                opened = PictureImages.open(place, shape, inside)
    except OSError as error:
        raise place.unreadable(where, error) from error
    if not sum(opened.parts):
        raise place.refused("a set with images", "there are none in it")
    return opened


def _open_file(place: NamedPlace, shape: Shape, folder: Folder, name: str) -> LabeledSource:
    if name.endswith(".npz"):
        return ArrayImages.open(place, shape, folder, name)
    if name.endswith(".parquet"):
        return ParquetImages.open(place, shape, folder, [name])
    raise place.refused(KINDS, "the file is none of these")


def decoded(content: bytes, shape: Shape, resize: bool = False) -> np.ndarray:
    """Decode a picture file, or the image's raw bytes, to uint8 [C,H,W].

    Other color modes become red, green and blue. Gray pictures become colored ones where three channels are required;
    the reverse happens only where pictures are resized.

    Raises:
        ValueError: it is of another shape; the message continues a sentence that starts with a name.
        OSError: it is not a picture.
    """
    are_pixels = len(content) == int(np.prod(shape))
    if are_pixels and not content.startswith(SIGNATURES):
        return np.frombuffer(content, np.uint8).reshape(shape)
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            if resize:
                return _resized(picture, shape)
            if shape[0] == 1 and picture.mode not in ("1", "L"):
                raise ValueError(f"is colored ({picture.mode})")
            if (picture.height, picture.width) != shape[1:]:  # known before it is decoded
                raise ValueError(f"is {(shape[0], picture.height, picture.width)}")
            pixels = np.asarray(picture.convert("L" if shape[0] == 1 else "RGB"))
    except PIL.UnidentifiedImageError as error:
        if not are_pixels:
            raise ValueError(f"is no picture, and {len(content)} bytes are no pixels of that shape") from error
        return np.frombuffer(content, np.uint8).reshape(shape)
    return pixels.reshape(*shape[1:], shape[0]).transpose(2, 0, 1)


def resized(images: np.ndarray, shape: Shape) -> np.ndarray:
    """Resize uint8 images of one or three channels bilinearly to [N,C,H,W], and convert their channels."""
    if images.shape[1:] == shape:
        return images
    rows = (each[0] if len(each) == 1 else each.transpose(1, 2, 0) for each in images)
    return np.stack([_resized(PIL.Image.fromarray(np.ascontiguousarray(row)), shape) for row in rows])


def _resized(picture: PIL.Image.Image, shape: Shape) -> np.ndarray:
    scaled = picture.convert("L" if shape[0] == 1 else "RGB")
    if scaled.size != (shape[2], shape[1]):
        scaled = scaled.resize((shape[2], shape[1]), PIL.Image.Resampling.BILINEAR)
    return np.asarray(scaled).reshape(*shape[1:], shape[0]).transpose(2, 0, 1)


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)


def _pictures(folder: Folder) -> list[str]:
    return sorted(name for name in folder.names() if name.lower().endswith(PICTURES) and not name.startswith("."))


def _first_of(wanted: tuple[str, ...], there: list[str]) -> str | None:
    return next((name for name in wanted if name in there), None)


def _path(name: str, kind: pa.DataType) -> str:
    """Return the path of a Parquet file's image column; raises ValueError for a type that is not an image's."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        name, kind = f"{name}.bytes", kind.field("bytes").type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_bytes = any(
        check(values)
        for check in (
            pa.types.is_null,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )
    is_list = any(check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    if not is_bytes and not (is_list and pa.types.is_integer(kind.value_type)):
        raise ValueError(f"its column {name} is {kind}, and neither bytes nor lists of whole numbers")
    return name


def _whole_numbers(place: NamedPlace, labels: np.ndarray) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer):
        raise place.refused(WHOLE_NUMBERS, f"its labels are {labels.dtype}")
    return labels.astype(np.int64)
