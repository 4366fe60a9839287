"""Lists of image names: one per line (.txt), one per row (.csv, .parquet)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, parsing

_DEFAULT_COLUMNS = ("uri", "url", "path", "file_path", "image", "image_path", "file_name", "filename", "image_url")


def read_list(uri: str, column: str | None) -> Iterator[str]:
    """The image names in a list file, in its order, without duplicates.

    Args:
        uri: a .txt, .csv or .parquet file.
        column: the column of a .csv or .parquet that holds the names; None chooses the only column, or the first of
            `uri`, `url`, `path`, ... that exists.

    Raises:
        UserError: the column does not exist, or cannot be chosen.
    """
    if uri.lower().endswith(".parquet"):
        names = _parquet_names(uri, column)
    elif uri.lower().endswith(".csv"):
        names = _csv_names(uri, column)
    else:
        names = (line.strip() for line in _text(uri).splitlines())
    return _unique(name for name in names if name)


def _text(uri: str) -> str:
    with parsing(uri, "UTF-8 text"):
        return storage.read_bytes(uri).decode("utf-8-sig")


def _unique(names: Iterable[str]) -> Iterator[str]:
    # Stores hashes instead of names, to save memory with a list of millions of URIs.
    seen: set[int] = set()
    for name in names:
        digest = hash(name)
        if digest not in seen:
            seen.add(digest)
            yield name


def _csv_names(uri: str, column: str | None) -> Iterator[str]:
    rows = csv.DictReader(io.StringIO(_text(uri)))
    chosen = _choose(uri, list(rows.fieldnames or []), column)
    return (row[chosen] for row in rows if row[chosen])


def _parquet_names(uri: str, column: str | None) -> Iterator[str]:
    with parsing(uri, "a Parquet file"), storage.open_read(uri) as stream, pq.ParquetFile(stream) as file:
        text = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        chosen = _choose(uri, text, column)
        for batch in file.iter_batches(columns=[chosen]):
            yield from (name for name in batch.column(0).to_pylist() if name)


def _choose(uri: str, columns: list[str], wanted: str | None) -> str:
    if wanted in columns:
        return wanted
    if wanted is None:
        if len(columns) == 1:
            return columns[0]
        for name in _DEFAULT_COLUMNS:
            if name in columns:
                return name
    choice = f"set --input.image_column to one of {', '.join(columns)}" if columns else "it has no text columns"
    if wanted is None:
        raise UserError(f"{uri}: cannot tell which column holds the image names; {choice}")
    raise UserError(f"{uri}: --input.image_column {wanted} is not a text column of this file; {choice}")
