"""The fsspec file system of a URI, and the retry policy for remote operations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import fsspec

from pipeline.errors import UserError, first_line
from pipeline.storage.retry import RetryPolicy
from pipeline.storage.s3_session import read_times_fast
from pipeline.storage.uris import is_local, is_web, native_path, refuse_password

RETRY_POLICY = RetryPolicy()
_S3 = ("s3", "s3a")
_WEB_NO_ANSWER_SECONDS = 3.0  # lists of web images contain many servers that no longer exist

_T = TypeVar("_T")


@functools.lru_cache(maxsize=32)
def filesystem(protocol: str) -> fsspec.AbstractFileSystem:
    """The fsspec file system of a protocol, created once per process."""
    # Listings decide which shards are left to process, so a cached listing would give wrong results.
    fs = fsspec.filesystem(protocol, use_listings_cache=False)
    if protocol in _S3:
        read_times_fast(fs)
    return fs


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


def _name(uri: str, error: OSError) -> None:
    """Put the URI in front of the message of an error, unless it has it."""
    if uri in str(error):
        return
    if error.strerror:
        error.strerror = f"{uri}: {error.strerror}"
    else:
        error.args = (f"{uri}: {first_line(error)}",)


class StorageFailed(OSError):
    """The storage cannot be reached or used; the message names the URI."""


class CredentialsRefused(StorageFailed):
    """The storage rejected the credentials of this process, or there are none; unrelated to the requested object."""


def with_retries(uri: str, operation: Callable[[], _T]) -> _T:
    """The result of an operation on a URI: one attempt on local files, `RETRY_POLICY` on remote storage.

    Raises:
        StorageFailed: instead of exceptions that only storage libraries know.
    """
    if is_local(uri):
        return operation()  # errors of a local disk are not transient
    try:
        return RETRY_POLICY.call(operation, _WEB_NO_ANSWER_SECONDS if is_web(uri) else None)
    except OSError as error:
        _name(uri, error)
        raise
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        # By name, so that no storage library is imported for its error classes.
        if "Credential" in type(error).__name__:
            raise CredentialsRefused(
                f"{uri}: no credentials found ({first_line(error)}); set them in the environment, for S3 "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        raise StorageFailed(f"{uri}: {first_line(error)} ({type(error).__name__})") from error
