"""The session of an S3 file system."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any


def read_times_fast(fs: Any) -> None:
    """Let a file system of s3fs read times by the standard library; call it before the first request.

    botocore guesses the format of each time by dateutil, which takes four fifths of the time to read a listing.

    Args:
        fs: of s3fs.
    """
    # Imported here: runs on other storage do not need them.
    from aiobotocore.parsers import AioResponseParserFactory
    from aiobotocore.session import AioSession

    session = AioSession(**fs.kwargs)  # as s3fs itself makes it
    factory = AioResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=parse_time)
    session.register_component("response_parser_factory", factory)
    fs.session = session


def parse_time(value: Any) -> datetime:
    """A time of an answer: in listings in the format of ISO 8601, elsewhere as botocore reads it.

    >>> parse_time("2026-11-27T08:00:00.000Z").isoformat()
    '2026-11-27T08:00:00+00:00'
    """
    with contextlib.suppress(ValueError, TypeError):
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time
    from botocore.utils import parse_timestamp

    parsed: datetime = parse_timestamp(value)
    return parsed
