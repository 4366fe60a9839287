"""Lists of image names: one per line (.txt), per row (.csv, .tsv, .parquet), or per object (.jsonl)."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError, parsing
from pipeline.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")

_DEFAULT_COLUMNS = ("uri", "url", "path", "file_path", "image", "image_path", "file_name", "filename", "image_url")
_LINE_END = re.compile("\r\n|\n|\r")  # str.splitlines() also splits at characters that file names may contain
# UTF-32 first: its little-endian mark starts with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

csv.field_size_limit(sys.maxsize)  # rows may hold captions and masks beside the name


def read_list(uri: str, column: str | None) -> Iterator[str]:
    """The image names in a list file, in its order, without duplicates.

    Args:
        uri: a file with one of `LIST_SUFFIXES`, or a .parquet file.
        column: the column that holds the names; None chooses the only column, or the first of `uri`, `url`, `path`, ...
            that exists. The columns of a .jsonl file are the keys of its first object.

    Raises:
        UserError: the column does not exist, or cannot be chosen; or the file is damaged.
    """
    lower = uri.lower()
    if lower.endswith(".parquet"):
        names = _parquet_names(uri, column)
    elif lower.endswith((".csv", ".tsv")):
        names = _csv_names(uri, column, "\t" if lower.endswith(".tsv") else ",")
    elif lower.endswith((".jsonl", ".ndjson")):
        names = _json_names(uri, column)
    else:
        names = iter(_lines(uri))
    return unique(name for name in names if name.strip())


def unique(names: Iterable[str]) -> Iterator[str]:
    """The names in order, without repetitions."""
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            seen.add(name)
            yield name


def _text(uri: str) -> str:
    data = storage.read_bytes(uri)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8-sig")
    with parsing(uri, "UTF-8 text"):
        return data.decode(encoding)


def _lines(uri: str) -> list[str]:
    return _LINE_END.split(_text(uri))


def _csv_names(uri: str, column: str | None, delimiter: str) -> Iterator[str]:
    rows = [row for row in _csv_rows(uri, delimiter) if row]
    if not rows:
        return
    images = [position for position, cell in enumerate(rows[0]) if _is_image_name(cell)]
    if column is None and images:  # a name instead of a title: the file has no header
        if len(images) > 1:
            raise UserError(f"{uri}: has no header, and several cells of its first row name images; add a header")
        chosen = images[0]
    elif column is None and _is_plain_list(rows):
        chosen = 0
    else:
        header = [cell.strip() for cell in rows.pop(0)]
        chosen = header.index(_choose(uri, header, column))
    yield from (row[chosen] for row in rows if chosen < len(row))


def _is_plain_list(rows: list[list[str]]) -> bool:
    """Whether a table of one column has no header: its first row is no usual title, and no other row is recognised."""
    first = rows[0][0].strip().lower()
    named = any(_is_image_name(cell) for row in rows[1:] for cell in row)
    return max(map(len, rows)) == 1 and first not in _DEFAULT_COLUMNS and not named


def _csv_rows(uri: str, delimiter: str) -> list[list[str]]:
    text = _text(uri)
    try:
        # `strict`: an unbalanced quote must not swallow the rest of the file.
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        if delimiter == "\t":  # many programs write quotes as they are
            return [line.split("\t") for line in _LINE_END.split(text)]
        raise UserError(f"{uri} is not a table in text form, or is damaged ({error})") from None


def _is_image_name(cell: str) -> bool:
    return "://" in cell or cell.strip().lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES))


def _json_names(uri: str, column: str | None) -> Iterator[str]:
    chosen = column
    for number, line in enumerate(_lines(uri), 1):
        if not line.strip():
            continue
        with parsing(f"{uri}: line {number}", "JSON"):
            row: Any = json.loads(line)
        if isinstance(row, str):
            yield row
            continue
        if not isinstance(row, dict):
            raise UserError(f"{uri}: line {number} is {type(row).__name__}; expected an object or a string")
        if chosen is None or chosen not in row:
            chosen = _choose(uri, [key for key, value in row.items() if isinstance(value, str)], column)
        if not isinstance(row[chosen], str):
            raise UserError(f"{uri}: line {number} has {row[chosen]!r} in {chosen!r}; expected the name of an image")
        yield row[chosen]


def _parquet_names(uri: str, column: str | None) -> Iterator[str]:
    with parsing(uri, "a Parquet file"), storage.open_read(uri) as stream, pq.ParquetFile(stream) as file:
        text = [field.name for field in file.schema_arrow if _is_text(field.type)]
        chosen = _choose(uri, text, column)
        for batch in file.iter_batches(columns=[chosen], use_threads=False):
            yield from (name for name in batch.column(0).to_pylist() if name)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # pandas stores categories so
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


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
