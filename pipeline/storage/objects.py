"""Objects one by one: what is there, reading, writing, deleting."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from pipeline.storage.filesystems import open_uri, with_retries
from pipeline.storage.uris import is_local, is_web

_READ_CONCURRENCY = 32
_READ_AHEAD = 8 << 20
_HOPPING = 16 << 10
_OF_CREDENTIALS = (
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "RequestTimeTooSkewed", "TokenRefreshRequired",
)  # fmt: skip


class Entry(NamedTuple):
    """One stored object.

    Attributes:
        size: bytes, -1 where unknown.
        etag: a tag that changes with its content, "" where unknown.
        modified: when it was written, seconds since 1970; None where unknown.
    """

    uri: str
    size: int
    etag: str
    modified: float | None = None


class MissingObject(FileNotFoundError):
    """The object that a URI names does not exist."""


class CredentialsRefused(OSError):
    """The storage no longer takes this process's credentials: nothing about the object that was asked for."""


class ChangedObject(UserError):
    """Another object lies where one was listed; the text says what differs."""


def _info(uri: str) -> dict[str, Any] | None:
    """What the storage tells of a file, object, folder or prefix; None where there is none."""
    fs, path = open_uri(uri)
    try:
        return with_retries(uri, lambda: fs.info(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def exists(uri: str) -> bool:
    return _info(uri) is not None


def is_file(uri: str) -> bool:
    info = _info(uri)
    return info is not None and info["type"] == "file"


def stat(uri: str) -> Entry:
    """One object's entry."""
    info = _info(uri)
    if info is None or info["type"] == "directory":
        raise MissingObject(f"{uri}: no such file or object")
    size = info.get("size")
    return Entry(uri, -1 if size is None else int(size), tag_of(info))


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The bytes of one object, or its first `limit` bytes.

    Raises:
        MissingObject: nothing is stored under the URI.
    """
    return _fetch(uri, 0, limit)[0]


def read_entry(entry: Entry, limit: int) -> bytes:
    """The first `limit` bytes of an object that was listed before.

    Raises:
        MissingObject: it is gone.
        ChangedObject: another lies in its place, by its size or its tag.
    """
    data, tag = _fetch(entry.uri, 0, limit)
    _check_unchanged(entry, len(data) if len(data) < limit else -1, tag)
    return data


def _check_unchanged(entry: Entry, size: int, tag: str) -> None:
    """-1 and "" are unknown, and equal to anything."""
    if -1 not in (entry.size, size) and entry.size != size:
        raise ChangedObject(f"{entry.uri} has changed: {entry.size} bytes when it was listed, now {size}")
    if entry.etag and tag and entry.etag != tag:
        what = "time" if is_local(entry.uri) else "ETag"
        raise ChangedObject(
            f"{entry.uri} has changed: its {what} was {entry.etag} when it was listed, and is {tag} now"
        )


def _fetch(uri: str, start: int, stop: int | None) -> tuple[bytes, str]:
    """A range of one object, and the tag of what was read, "" where the storage doesn't tell it along."""
    fs, path = open_uri(uri)
    try:
        if hasattr(fs, "call_s3"):
            return with_retries(uri, lambda: sync(fs.loop, _get_s3, fs, path, start, stop))
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read() if stop is None else file.read(stop - start)
                return data, str(os.fstat(file.fileno()).st_mtime)
        return with_retries(uri, lambda: fs.cat_file(path, start=start or None, end=stop)), ""
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingObject(f"{uri}: no such file or object") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise MissingObject(f"{uri}: no file can have this name") from None
        if error.errno == errno.EINVAL and not is_local(uri) and stat(uri).size == 0:
            return b"", ""  # an object store refuses a range of an empty object
        if isinstance(error, PermissionError) and (code := _code(error)) in _OF_CREDENTIALS:
            raise CredentialsRefused(f"{uri}: the storage refuses the credentials of this process ({code})") from None
        raise


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


async def _get_s3(fs: Any, path: str, start: int, stop: int | None) -> tuple[bytes, str]:
    # fsspec's own call keeps the tag to itself, and asks for the size first.
    bucket, key, version = fs.split_path(path)
    request = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    if start or stop is not None:
        request["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    response = await fs._call_s3("get_object", **request)
    async with response["Body"] as body:
        return await body.read(), tag_of(response)


def read_many(entries: Sequence[Entry], limit: int) -> Iterator[bytes | Exception]:
    """What `read_entry` gives for several objects, in order, fetched concurrently, a bounded number ahead.

    An object that cannot be read gives its exception, so that it does not stop the others.
    """

    def read(entry: Entry) -> bytes | Exception:
        try:
            return read_entry(entry, limit)
        except Exception as error:
            return error

    with ThreadPoolExecutor(_READ_CONCURRENCY) as pool:
        ahead: deque[Future[bytes | Exception]] = deque()
        try:
            for entry in entries:
                ahead.append(pool.submit(read, entry))
                if len(ahead) == _READ_CONCURRENCY:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def open_read(uri: str, sequential: bool = True, listed: Entry | None = None) -> Iterator[BinaryIO]:
    """A seekable binary stream.

    Args:
        uri: what to read.
        sequential: remote objects are read ahead in large blocks; else only what is asked for is fetched, for readers
            that hop.
        listed: what the object was when it was listed.

    Raises:
        MissingObject: nothing is stored under the URI.
        ChangedObject: it is not what was listed, or changes while it is read.
    """
    entry = stat(uri)
    if listed is not None:
        _check_unchanged(listed, entry.size, entry.etag)
    fs, path = open_uri(uri)
    if is_local(uri):
        with open(path, "rb") as local:
            yield local
            now = os.fstat(local.fileno())
            _check_unchanged(entry, now.st_size, str(now.st_mtime))
    elif entry.size < 0 or is_web(uri):  # a web server may tell no size, and know no ranges
        with tempfile.NamedTemporaryFile(prefix="posemill-") as copy:
            with_retries(uri, lambda: fs.get_file(path, copy.name))
            yield cast(BinaryIO, copy)
    else:
        with io.BufferedReader(_RemoteFile(entry), _READ_AHEAD if sequential else _HOPPING) as remote:
            yield cast(BinaryIO, remote)


class _RemoteFile(io.RawIOBase):
    """An object as a file: every read is a request for a range, which can be repeated."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._entry.size))
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._entry.size - self._position)
        if wanted <= 0:
            return 0
        data, tag = _fetch(self._entry.uri, self._position, self._position + wanted)
        _check_unchanged(self._entry, -1, tag)
        if len(data) != wanted:
            raise ChangedObject(f"{self._entry.uri} has changed: it ends after {self._position + len(data)} bytes")
        buffer[:wanted] = data
        self._position += wanted
        return wanted


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object so that a reader sees all of it or nothing.

    On an object store that is one PUT. On a file system the bytes reach the disk under a temporary name, then take the
    final name in one step; a crash leaves the old file or the new one.
    """
    if not is_local(uri):
        fs, path = open_uri(uri)
        with_retries(uri, lambda: fs.pipe_file(path, data))
        return
    with open_write(uri) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_write(uri: str) -> Iterator[BinaryIO]:
    """Stream one object into place; like `write_bytes`, it appears whole when the block ends, and not if it raises.

    What goes to an object store waits on this machine's disk until it is whole, so that sending it can be repeated.
    """
    fs, path = open_uri(uri)
    if not isinstance(fs, LocalFileSystem):
        with tempfile.NamedTemporaryFile(prefix="posemill-") as waiting:
            yield cast(BinaryIO, waiting)
            waiting.flush()
            with_retries(uri, lambda: fs.put_file(waiting.name, path))
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as local:
            yield local
            local.flush()
            os.fsync(local.fileno())
        _take_name(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, uri) from None  # a full disk doesn't say what didn't fit
        raise


def _take_name(temporary: str, target: Path) -> None:
    os.chmod(temporary, 0o644)
    os.replace(temporary, target)


def delete(uri: str) -> None:
    """Remove one object; one that is already gone is fine."""
    fs, path = open_uri(uri)
    with contextlib.suppress(FileNotFoundError):
        with_retries(uri, lambda: fs.rm_file(path))


def tag_of(info: dict[str, Any]) -> str:
    """What fsspec tells of an object that changes with its content: each file system has its own name for it."""
    return str(info.get("ETag") or info.get("etag") or info.get("mtime") or "").strip('"')
