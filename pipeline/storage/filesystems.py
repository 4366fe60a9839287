"""The fsspec file system of a URI, and the retry policy for remote operations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import fsspec

from pipeline.errors import UserError
from pipeline.storage.retry import RetryPolicy
from pipeline.storage.uris import is_local, is_web, native_path, refuse_password

RETRY_POLICY = RetryPolicy()
_WEB_NO_ANSWER_SECONDS = 3.0  # lists of web images contain many servers that no longer exist

_T = TypeVar("_T")


@functools.lru_cache(maxsize=32)
def filesystem(protocol: str) -> fsspec.AbstractFileSystem:
    """The fsspec file system of a protocol, created once per process."""
    # Listings decide which shards are left to process, so a cached listing would give wrong results.
    return fsspec.filesystem(protocol, use_listings_cache=False)


def open_uri(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path inside it.

    Raises:
        UserError: the URI contains a password, or its protocol is unknown.
    """
    refuse_password(uri)
    protocol = "file" if is_local(uri) else uri.split("://", 1)[0]
    try:
        fs = filesystem(protocol)
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: cannot open {protocol}:// ({error})") from None
    return fs, fs._strip_protocol(native_path(uri) if protocol == "file" else uri)


def with_retries(uri: str, operation: Callable[[], _T]) -> _T:
    """The result of an operation on a URI: one attempt on local files, `RETRY_POLICY` on remote storage."""
    if is_local(uri):
        return operation()  # errors of a local disk are not transient
    return RETRY_POLICY.call(operation, _WEB_NO_ANSWER_SECONDS if is_web(uri) else None)
