"""Lists of image names: one per line (.txt), one per row (.csv, .parquet)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError

_NAMED_LIKE_URIS = ("uri", "url", "path", "file_path", "image", "image_path", "file_name", "filename", "image_url")


def read_list(uri: str, column: str | None) -> Iterator[str]:
    """The names in a list file, in its order, each once.

    Raises:
        UserError: the column isn't there, or cannot be guessed.
    """
    if uri.lower().endswith(".parquet"):
        names = _parquet_names(uri, column)
    elif uri.lower().endswith(".csv"):
        names = _csv_names(uri, column)
    else:
        names = (line.strip() for line in storage.read_bytes(uri).decode("utf-8-sig").splitlines())
    return _once(name for name in names if name)


def _once(names: Iterable[str]) -> Iterator[str]:
    # Digests, not names: a list of a million URIs must stay small here.
    seen: set[int] = set()
    for name in names:
        digest = hash(name)
        if digest not in seen:
            seen.add(digest)
            yield name


def _csv_names(uri: str, column: str | None) -> Iterator[str]:
    rows = csv.DictReader(io.StringIO(storage.read_bytes(uri).decode("utf-8-sig")))
    chosen = _choose(uri, list(rows.fieldnames or []), column)
    return (row[chosen] for row in rows if row[chosen])


def _parquet_names(uri: str, column: str | None) -> Iterator[str]:
    with storage.open_read(uri) as stream, pq.ParquetFile(stream) as file:
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
        for name in _NAMED_LIKE_URIS:
            if name in columns:
                return name
    asked = "none of its columns is named like one" if wanted is None else f"it has no text column {wanted!r}"
    raise UserError(f"{uri}: {asked}; name one of {', '.join(columns) or 'no text columns'} with input.image_column")
