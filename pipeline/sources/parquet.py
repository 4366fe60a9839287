"""Parquet files with embedded images: a binary column, or the struct of bytes and path that Hugging Face writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, parsing
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.files import plan_files
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard, container_shard, too_large

PARQUET_SUFFIXES = (".parquet",)

_ROWS_AT_A_TIME = 32


def image_column(schema: pa.Schema, wanted: str | None = None) -> str | None:
    """The name of the column with encoded images, None if the file has no such column.

    Args:
        schema: the schema of the Parquet file.
        wanted: the column to use; None takes the first column of a suitable type. A column of another type gives None,
            because it holds the image names of a list.

    Raises:
        UserError: the wanted column does not exist.
    """
    suitable = [field.name for field in schema if _holds_images(field.type)]
    if wanted is None or wanted in suitable:
        return wanted or next(iter(suitable), None)
    if wanted in schema.names:
        return None
    raise UserError(
        f"--input.image_column {wanted} does not exist; the columns of the file are {', '.join(schema.names)}"
    )


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_images(f.type) for f in (kind.field(i) for i in range(kind.num_fields)))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def read_schema(uri: str) -> pa.Schema:
    """The Arrow schema of a Parquet file.

    Raises:
        UserError: it is not a Parquet file, or a damaged one.
    """
    with parsing(uri, "a Parquet file"), storage.open_read(uri, sequential=False) as stream:
        try:
            return pq.read_schema(stream)
        except OSError as error:
            if error.errno is not None:
                raise
            raise ValueError(error) from None  # pyarrow's error for a footer that it cannot parse has no errno


def plan_parquet(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """One shard per row group.

    A file that is damaged or has no image column is planned as one loose file, which cannot be decoded.
    """
    for key, entry in entries:
        schema = _schema_or_none(entry.uri)
        column = None if schema is None else image_column(schema, settings.image_column)
        if column is None:
            yield from plan_files([(key, entry)], settings)
            continue
        with storage.open_read(entry.uri, sequential=False) as stream:
            metadata = pq.read_metadata(stream)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            yield container_shard(key, entry, "parquet", rows, row_group=group, column=column)


def _schema_or_none(uri: str) -> pa.Schema | None:
    try:
        return read_schema(uri)
    except UserError:
        return None


def read_parquet(shard: Shard, limits: DecodeLimits) -> Iterator[EncodedImage]:
    """The images of a row group in order; their keys are `file/row number` or `file/row number/path of the image`."""
    (container,), (listed,) = shard.keys, shard.entries
    uri = listed.uri
    assert shard.row_group is not None
    assert shard.column is not None
    with storage.open_read(uri, listed=listed) as stream, pq.ParquetFile(stream) as file:
        row = sum(file.metadata.row_group(i).num_rows for i in range(shard.row_group))
        for batch in file.iter_batches(_ROWS_AT_A_TIME, row_groups=[shard.row_group], columns=[shard.column]):
            for value in batch.column(0):
                cell = value.as_py()
                name = str(row)
                if isinstance(cell, dict):
                    name = "/".join([name, *([cell["path"]] if cell.get("path") else [])])
                    cell = cell["bytes"]
                key, row_uri = f"{container}/{name}", f"{uri}#{name}"
                if cell is None:
                    yield EncodedImage(key, row_uri, None, "missing", "the row holds no bytes")
                elif len(cell) > limits.max_bytes:
                    yield too_large(key, row_uri, limits)
                else:
                    yield EncodedImage(key, row_uri, cell)
                row += 1
