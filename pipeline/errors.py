"""The base class of every error that a user can cause."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A setting, file or collection that cannot be used.

    The message is one line: what is wrong, its value, what was expected, and what to do. The commands print it and
    exit; any other exception is a bug and keeps its traceback. (Failures of storage and of the machine are OSError.)
    """


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:limit]


@contextlib.contextmanager
def parsing(source: str, kind: str) -> Iterator[None]:
    """Turn the ValueError of a parser inside the block into a UserError.

    Args:
        source: the file or setting, for the message.
        kind: what it should be, for example `a Parquet file`.

    >>> with parsing("list.txt", "UTF-8 text"):
    ...     b"\\xff".decode()
    Traceback (most recent call last):
    pipeline.errors.UserError: list.txt is not UTF-8 text, or is damaged ('utf-8' codec can't decode byte 0xff ...)
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{source} is not {kind}, or is damaged ({first_line(error)})") from None
