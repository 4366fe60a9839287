"""Parquet files with embedded images: a binary column, or the struct of bytes and path that Hugging Face writes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, first_line, parsing
from pipeline.images import DecodeLimits, has_image_signature
from pipeline.settings.tree import InputSettings
from pipeline.sources.files import plan_files
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard, container_shard, too_large

PARQUET_SUFFIXES = (".parquet",)

_ROWS_AT_A_TIME = 32


def image_column(uri: str, wanted: str | None = None) -> str | None:
    """The name of the column with encoded images, None if the file has no such column.

    Args:
        uri: a Parquet file.
        wanted: the column to use; None takes the first struct of bytes and path, else the first binary column whose
            first value starts as an image, else the first binary column. A column of another type gives None, because
            it holds the image names of a list.

    Raises:
        UserError: the wanted column does not exist, or the file is damaged.
    """
    schema = read_schema(uri)
    structs = [field.name for field in schema if pa.types.is_struct(field.type) and _holds_images(field.type)]
    binary = [field.name for field in schema if not pa.types.is_struct(field.type) and _holds_images(field.type)]
    if wanted is None:
        if structs or len(binary) <= 1:
            return next(iter([*structs, *binary]), None)
        return next((name for name in binary if has_image_signature(_first_value(uri, name))), binary[0])
    if wanted in (*structs, *binary):
        return wanted
    if wanted in schema.names:
        return None
    raise UserError(
        f"{uri}: --input.image_column {wanted} does not exist; the columns of the file are {', '.join(schema.names)}"
    )


def _first_value(uri: str, column: str) -> bytes:
    """The first value of a binary column that is not null."""
    with (
        parsing(uri, "a Parquet file"),
        storage.open_read(uri, access="random") as stream,
        _damage_as_value_error(),
        pq.ParquetFile(stream) as file,
    ):
        for batch in file.iter_batches(1, columns=[column], use_threads=False):
            if (value := batch.column(0)[0].as_py()) is not None:
                return value
    return b""


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_images(f.type) for f in (kind.field(i) for i in range(kind.num_fields)))
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def read_schema(uri: str) -> pa.Schema:
    """The Arrow schema of a Parquet file.

    Raises:
        UserError: it is not a Parquet file, or a damaged one.
    """
    with parsing(uri, "a Parquet file"), storage.open_read(uri, access="random") as stream, _damage_as_value_error():
        return pq.read_schema(stream)


@contextlib.contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Raise ValueError for damage, for which pyarrow has several errors; errors of the storage stay as they are."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(error) from None
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        raise ValueError(error) from None  # pyarrow's error for what it cannot parse has no number


def plan_parquet(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """One shard per row group.

    A file that is damaged or has no image column is planned as one loose file, which cannot be decoded.
    """
    for key, entry in entries:
        column = _column_or_none(entry.uri, settings.image_column)
        if column is None:
            yield from plan_files([(key, entry)], settings)
            continue
        for group, rows in enumerate(_rows_of_groups(entry.uri)):
            yield container_shard(key, entry, "parquet", rows, row_group=group, column=column)


def _column_or_none(uri: str, wanted: str | None) -> str | None:
    try:
        _rows_of_groups(uri)
        return image_column(uri, wanted)
    except UserError:
        return None


def _rows_of_groups(uri: str) -> list[int]:
    """The number of rows of each row group.

    Raises:
        UserError: the file is damaged.
    """
    with parsing(uri, "a Parquet file"), storage.open_read(uri, access="random") as stream, _damage_as_value_error():
        metadata = pq.read_metadata(stream)
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
            raise ValueError("its row groups do not add up to its rows")
        return rows


class _Damaged(NamedTuple):
    """A row that cannot be read."""

    reason: str


def parquet_keys(shard: Shard) -> Iterator[str]:
    """The keys of the images of a row group; their bytes are not read."""
    (container,), (listed,) = shard.keys, shard.entries
    with storage.open_read(listed.uri, access="random", listed=listed) as stream, pq.ParquetFile(stream) as file:
        kind = file.schema_arrow.field(shard.column).type
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            for row, cell in _cells(file, shard, f"{shard.column}.path"):
                yield _key(container, row, cell)
        else:
            first = _first_row(file, shard)
            yield from (_key(container, row, None) for row in range(first, first + shard.num_images))


def read_parquet(shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None) -> Iterator[EncodedImage]:
    """The images of a row group in order; their keys are `file/row number` or `file/row number/path of the image`.

    With `wanted` keys, those alone; the whole row group is read.
    """
    (container,), (listed,) = shard.keys, shard.entries
    uri = listed.uri
    assert shard.column is not None
    with storage.open_read(uri, listed=listed) as stream, pq.ParquetFile(stream) as file:
        for row, cell in _cells(file, shard, shard.column):
            key, row_uri = _key(container, row, cell), _key(uri, row, cell, "#")
            if wanted is not None and key not in wanted:
                continue
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if isinstance(data, _Damaged):
                yield EncodedImage(key, row_uri, None, "unreadable", data.reason)
            elif data is None:
                yield EncodedImage(key, row_uri, None, "missing", "the row holds no bytes")
            elif len(data) > limits.max_bytes:
                yield too_large(key, row_uri, limits)
            else:
                yield EncodedImage(key, row_uri, data)


def _cells(file: pq.ParquetFile, shard: Shard, column: str) -> Iterator[tuple[int, Any]]:
    """Number and value of each row of a shard; rows that are lost in a damaged row group are `_Damaged`."""
    row = first = _first_row(file, shard)
    reason = "the row group has fewer rows than its file says"
    try:
        with _damage_as_value_error():
            for batch in file.iter_batches(
                _ROWS_AT_A_TIME, row_groups=[shard.row_group], columns=[column], use_threads=False
            ):
                for value in batch.column(0):
                    yield row, _value(value)
                    row += 1
    except UserError:
        raise
    except ValueError as error:
        reason = f"the row group is damaged: {first_line(error)}"
    yield from ((lost, _Damaged(reason)) for lost in range(row, first + shard.num_images))


def _value(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return _Damaged(f"the row is damaged: {first_line(error)}")


def _first_row(file: pq.ParquetFile, shard: Shard) -> int:
    """The number of the first row of the shard in the file."""
    return sum(file.metadata.row_group(i).num_rows for i in range(shard.row_group or 0))


def _key(container: str, row: int, cell: Any, separator: str = "/") -> str:
    path = cell.get("path") if isinstance(cell, dict) else None
    return f"{container}{separator}{row}" + (f"/{path}" if path else "")
