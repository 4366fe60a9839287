"""The base class of every error that a user can cause."""

from __future__ import annotations


class UserError(ValueError):
    """A setting, file or collection that cannot be used.

    The message is one line: what is wrong, its value, what was expected, and what to do. The commands print it and
    exit; any other exception is a bug and keeps its traceback. (Failures of storage and of the machine are OSError.)
    """


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:limit]
