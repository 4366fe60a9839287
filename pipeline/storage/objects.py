"""Operations on single objects: metadata, reading, writing, deleting."""

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
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from pipeline.storage.filesystems import RETRY_POLICY, CredentialsRefused, open_uri, with_retries
from pipeline.storage.uris import is_local, is_web

_READ_CONCURRENCY = 32
Access = Literal["sequential", "mixed", "random"]
_BLOCKS: dict[Access, int] = {"sequential": 8 << 20, "mixed": 1 << 20, "random": 16 << 10}  # bytes
_ACCESS_SECONDS = 10.0
_CREDENTIAL_ERROR_CODES = (
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "RequestTimeTooSkewed", "TokenRefreshRequired",
)  # fmt: skip


class Entry(NamedTuple):
    """One stored object.

    Attributes:
        size: in bytes, -1 if unknown.
        etag: a tag that changes with the content, "" if unknown.
        modified: the time of the last change in seconds since 1970, None if unknown.
    """

    uri: str
    size: int
    etag: str
    modified: float | None = None


class MissingObject(FileNotFoundError):
    """No object exists at the URI."""


class ChangedObject(UserError):
    """The object differs from the listed one in size, ETag or modification time."""


def _info(uri: str) -> dict[str, Any] | None:
    """fsspec's metadata of a file, object, folder or prefix; None if it does not exist."""
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
    """Whether a file, object, folder or prefix exists."""
    return _info(uri) is not None


def check_access(uri: str) -> None:
    """Ask the storage of a URI for its metadata, with short retries: a wrong endpoint is no outage.

    Raises:
        StorageFailed: the storage does not answer, or there are no credentials for it.
        OSError: access is denied.
    """
    if is_local(uri):
        return
    with RETRY_POLICY.at_most(_ACCESS_SECONDS):
        _info(uri)


def is_file(uri: str) -> bool:
    """Whether a file or object exists; False for folders and prefixes."""
    info = _info(uri)
    return info is not None and info["type"] == "file"


def stat(uri: str) -> Entry:
    """The entry of one object.

    Raises:
        MissingObject: nothing is stored under the URI, or a folder.
    """
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
    """The first `limit` bytes of a listed object.

    Raises:
        MissingObject: the object no longer exists.
        ChangedObject: its size or tag differs from the entry's.
    """
    data, tag = _fetch(entry.uri, 0, limit)
    _check_unchanged(entry, len(data) if len(data) < limit else -1, tag)
    return data


def _check_unchanged(entry: Entry, size: int, tag: str) -> None:
    """Raise ChangedObject if the size or the tag differs; the unknown values -1 and "" are not compared."""
    if -1 not in (entry.size, size) and entry.size != size:
        raise ChangedObject(f"{entry.uri} has changed: {entry.size} bytes when it was listed, now {size}")
    if entry.etag and tag and entry.etag != tag:
        name = "modification time" if is_local(entry.uri) else "ETag"
        raise ChangedObject(f"{entry.uri} has changed: {name} {entry.etag} when it was listed, now {tag}")


def _fetch(uri: str, start: int, stop: int | None) -> tuple[bytes, str]:
    """Bytes start:stop of one object, and the tag of the version read, "" if the response does not contain it."""
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
        if isinstance(error, PermissionError) and (code := _code(error)) in _CREDENTIAL_ERROR_CODES:
            raise CredentialsRefused(f"{uri}: the storage refuses the credentials of this process ({code})") from None
        raise


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


async def _get_s3(fs: Any, path: str, start: int, stop: int | None) -> tuple[bytes, str]:
    # fs.cat_file does not return the ETag, and sends one more request for the size.
    bucket, key, version = fs.split_path(path)
    request = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    if start or stop is not None:
        request["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    response = await fs._call_s3("get_object", **request)
    async with response["Body"] as body:
        return await body.read(), tag_of(response)


def read_many(entries: Sequence[Entry], limit: int) -> Iterator[bytes | Exception]:
    """The result of `read_entry` for several objects, in order, fetched concurrently with bounded read-ahead.

    For an object that cannot be read, the exception is yielded in its place, so that the others are still read.
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
def open_read(uri: str, access: Access = "sequential", listed: Entry | None = None) -> Iterator[BinaryIO]:
    """Open one object as a seekable binary stream.

    Args:
        uri: the object to read.
        access: how a remote object is read: sequential, ahead in blocks of 8 MiB; random, in blocks of 16 KiB; or
            mixed, in blocks of 1 MiB, for long pieces in several places.
        listed: the entry of the object when it was listed.

    Raises:
        MissingObject: nothing is stored under the URI.
        ChangedObject: the object differs from `listed`, or changes while it is read.
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
    elif entry.size < 0 or (is_web(uri) and not _has_ranges(entry)):
        with tempfile.NamedTemporaryFile(prefix="posemill-") as copy:
            with_retries(uri, lambda: fs.get_file(path, copy.name))
            yield cast(BinaryIO, copy)
    else:
        with io.BufferedReader(_RemoteFile(entry), _BLOCKS[access]) as remote:
            yield cast(BinaryIO, remote)
        if is_web(uri):  # its ranges come without a tag
            after = stat(uri)
            _check_unchanged(entry, after.size, after.etag)


def _has_ranges(entry: Entry) -> bool:
    """Whether a web server sends parts of a large file; a small one is copied at once."""
    if entry.size <= _BLOCKS["sequential"]:
        return False
    fs, path = open_uri(entry.uri)

    def last_byte() -> bytes:
        with fs.open(path, cache_type="none") as file:
            file.seek(entry.size - 1)
            return file.read(1)

    try:
        return len(with_retries(entry.uri, last_byte)) == 1
    except ValueError:  # it sends the whole file instead
        return False


class _RemoteFile(io.RawIOBase):
    """A remote object as a raw file: each read is one range request, which is safe to retry."""

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
        length = min(len(buffer), self._entry.size - self._position)
        if length <= 0:
            return 0
        data, tag = _fetch(self._entry.uri, self._position, self._position + length)
        _check_unchanged(self._entry, -1, tag)
        if len(data) != length:
            raise ChangedObject(
                f"{self._entry.uri} has changed: {self._entry.size} bytes when it was listed, now "
                f"{self._position + len(data)}"
            )
        buffer[:length] = data
        self._position += length
        return length


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object atomically: a reader sees all of it or nothing.

    On an object store this is one PUT. On a file system the bytes are written and synced to a temporary file, which is
    then renamed; after a crash, either the old or the new file exists.
    """
    if not is_local(uri):
        fs, path = open_uri(uri)
        with_retries(uri, lambda: fs.pipe_file(path, data))
        return
    with open_write(uri) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_write(uri: str) -> Iterator[BinaryIO]:
    """Open one object for writing; like `write_bytes`, it is created atomically when the block ends without an error.

    For an object store, the content is collected in a temporary file on the local disk, so that the upload can be
    retried.
    """
    fs, path = open_uri(uri)
    if not isinstance(fs, LocalFileSystem):
        with tempfile.NamedTemporaryFile(prefix="posemill-") as upload:
            yield cast(BinaryIO, upload)
            upload.flush()
            with_retries(uri, lambda: fs.put_file(upload.name, path))
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as local:
            yield local
            local.flush()
            os.fsync(local.fileno())
        _rename_into_place(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, uri) from None  # e.g. a full disk: names the file
        raise


def _rename_into_place(temporary: str, target: Path) -> None:
    os.chmod(temporary, 0o644)
    os.replace(temporary, target)


def delete(uri: str) -> None:
    """Delete one object; does nothing if it does not exist."""
    fs, path = open_uri(uri)
    with contextlib.suppress(FileNotFoundError):
        with_retries(uri, lambda: fs.rm_file(path))


def tag_of(info: dict[str, Any]) -> str:
    """The tag of an object that changes with its content: its ETag or modification time, whichever fsspec provides."""
    return str(info.get("ETag") or info.get("etag") or info.get("mtime") or "").strip('"')
