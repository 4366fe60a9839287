"""The file system behind a URI, and patience with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import fsspec

from pipeline.errors import UserError
from pipeline.storage.retry import RetryPolicy
from pipeline.storage.uris import is_local, is_web, native_path, refuse_password

RETRY_POLICY = RetryPolicy()
_WEB_PATIENCE_SECONDS = 3.0  # a list of web images is full of servers that will never answer

_T = TypeVar("_T")


@functools.lru_cache(maxsize=32)
def filesystem(protocol: str) -> fsspec.AbstractFileSystem:
    """The one of a protocol, made once."""
    # Listings decide what is left to do, so a cached listing would be a wrong answer.
    return fsspec.filesystem(protocol, use_listings_cache=False)


def open_uri(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path inside it."""
    refuse_password(uri)
    protocol = "file" if is_local(uri) else uri.split("://", 1)[0]
    try:
        fs = filesystem(protocol)
    except (ValueError, ImportError) as error:
        raise UserError(f"{uri}: cannot open {protocol}:// ({error})") from None
    return fs, fs._strip_protocol(native_path(uri) if protocol == "file" else uri)


def with_retries(uri: str, operation: Callable[[], _T]) -> _T:
    """What the operation on a URI returns, after as many attempts as its storage deserves."""
    if is_local(uri):
        return operation()  # a disk's trouble does not pass
    return RETRY_POLICY.call(operation, _WEB_PATIENCE_SECONDS if is_web(uri) else None)
