"""The only module that opens URIs: local paths, s3://, gs://, http(s):// and whatever else fsspec knows.

Credentials and endpoints come from the environment, as each storage's own tools read them (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, ...), never from settings, so no run file can hold a secret.
Remote operations are repeated while their trouble can pass (`pipeline.patience`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import fsspec
from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from pipeline.patience import Patience

READ_CONCURRENCY = 32
PATIENCE = Patience()
_WEB_PATIENCE_SECONDS = 3.0  # a list of web images is full of servers that will never answer
_READ_AHEAD = 8 << 20
_HOPPING = 16 << 10
_OF_CREDENTIALS = (
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "RequestTimeTooSkewed", "TokenRefreshRequired",
)  # fmt: skip

_T = TypeVar("_T")


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


class ChangedObject(ValueError):
    """Another object lies where one was listed; the text says what differs."""


# A file name that isn't UTF-8 reaches Python with lone surrogates, which no table can hold. They travel as private-use
# characters, and turn back where the file is opened.
_TO_PORTABLE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_TO_NATIVE = {portable: native for native, portable in _TO_PORTABLE.items()}


def portable_name(name: str) -> str:
    """A name as tables can hold it; `name` itself unless it isn't UTF-8."""
    return name.translate(_TO_PORTABLE)


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _is_web(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def refuse_password(uri: str) -> None:
    """What is written down about a run names its URIs, so none may hold a secret.

    Raises:
        ValueError: it holds one; the text doesn't.
    """
    scheme, _, rest = uri.partition("://")
    user, at, host = rest.split("/", 1)[0].rpartition("@")
    if at and ":" in user:
        raise ValueError(
            f"{scheme}://***@{host}/...: a URI with a password in it is refused; credentials come from the environment"
        )


@functools.lru_cache(maxsize=32)
def _filesystem(protocol: str) -> fsspec.AbstractFileSystem:
    # Listings decide what is left to do, so a cached listing would be a wrong answer.
    return fsspec.filesystem(protocol, use_listings_cache=False)


def _open_uri(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path inside it."""
    refuse_password(uri)
    protocol = "file" if is_local(uri) else uri.split("://", 1)[0]
    try:
        fs = _filesystem(protocol)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{uri}: cannot open {protocol}:// ({error})") from None
    return fs, fs._strip_protocol(uri.translate(_TO_NATIVE) if protocol == "file" else uri)


def join(base: str, *parts: str) -> str:
    """`base` extended by path parts, as URI or local path alike."""
    return "/".join([base.rstrip("/") or base, *(part.strip("/") for part in parts)])


def basename(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def suffix(uri: str) -> str:
    """The file name's extension with its dot, "" where there is none."""
    return os.path.splitext(basename(uri))[1]


def _persist(uri: str, operation: Callable[[], _T]) -> _T:
    if is_local(uri):
        return operation()  # a disk's trouble does not pass
    return PATIENCE.persist(operation, _WEB_PATIENCE_SECONDS if _is_web(uri) else None)


def _info(uri: str) -> dict[str, Any] | None:
    """What the storage tells of a file, object, folder or prefix; None where there is none."""
    fs, path = _open_uri(uri)
    try:
        return _persist(uri, lambda: fs.info(path))
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
    return Entry(uri, -1 if size is None else int(size), _tag(info))


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
    fs, path = _open_uri(uri)
    try:
        if hasattr(fs, "call_s3"):
            return _persist(uri, lambda: sync(fs.loop, _get_s3, fs, path, start, stop))
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read() if stop is None else file.read(stop - start)
                return data, str(os.fstat(file.fileno()).st_mtime)
        return _persist(uri, lambda: fs.cat_file(path, start=start or None, end=stop)), ""
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
        return await body.read(), _tag(response)


def read_many(entries: Sequence[Entry], limit: int) -> Iterator[bytes | Exception]:
    """What `read_entry` gives for several objects, in order, fetched concurrently, a bounded number ahead.

    An object that cannot be read gives its exception, so that it does not stop the others.
    """

    def read(entry: Entry) -> bytes | Exception:
        try:
            return read_entry(entry, limit)
        except Exception as error:
            return error

    with ThreadPoolExecutor(READ_CONCURRENCY) as pool:
        ahead: deque[Future[bytes | Exception]] = deque()
        try:
            for entry in entries:
                ahead.append(pool.submit(read, entry))
                if len(ahead) == READ_CONCURRENCY:
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
    fs, path = _open_uri(uri)
    if is_local(uri):
        with open(path, "rb") as local:
            yield local
            now = os.fstat(local.fileno())
            _check_unchanged(entry, now.st_size, str(now.st_mtime))
    elif entry.size < 0 or _is_web(uri):  # a web server may tell no size, and know no ranges
        with tempfile.NamedTemporaryFile(prefix="posemill-") as copy:
            _persist(uri, lambda: fs.get_file(path, copy.name))
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
        fs, path = _open_uri(uri)
        _persist(uri, lambda: fs.pipe_file(path, data))
        return
    with open_write(uri) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_write(uri: str) -> Iterator[BinaryIO]:
    """Stream one object into place; like `write_bytes`, it appears whole when the block ends, and not if it raises.

    What goes to an object store waits on this machine's disk until it is whole, so that sending it can be repeated.
    """
    fs, path = _open_uri(uri)
    if not isinstance(fs, LocalFileSystem):
        with tempfile.NamedTemporaryFile(prefix="posemill-") as waiting:
            yield cast(BinaryIO, waiting)
            waiting.flush()
            _persist(uri, lambda: fs.put_file(waiting.name, path))
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as local:
            yield local
            local.flush()
            os.fsync(local.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, uri) from None  # a full disk doesn't say what didn't fit
        raise


def delete(uri: str) -> None:
    """Remove one object; one that is already gone is fine."""
    fs, path = _open_uri(uri)
    with contextlib.suppress(FileNotFoundError):
        _persist(uri, lambda: fs.rm_file(path))


def list_files(prefix: str) -> Iterator[Entry]:
    """Every object below a folder or prefix, recursively, in the order of their paths' characters.

    Streams: at most one page (object stores) or one folder (file systems) is held at a time. The order is the same on
    every storage, so the same collection makes the same shards wherever it lies.

    Raises:
        MissingObject: a local folder that does not exist. An empty prefix of an object store lists nothing.
    """
    fs, path = _open_uri(prefix)
    if isinstance(fs, LocalFileSystem):
        if not os.path.isdir(path):
            raise MissingObject(f"{prefix}: no such folder")
        yield from _list_local(prefix.removeprefix("file://").translate(_TO_NATIVE).rstrip("/") or "/")
    elif hasattr(fs, "call_s3"):
        yield from _list_s3(fs, path, prefix.split("://", 1)[0])
    else:
        yield from _list_walking(fs, path, prefix.split("://", 1)[0])


def _list_local(folder: str) -> Iterator[Entry]:
    # "name/" sorts as it does inside a whole path, so that depth-first order is path order.
    with os.scandir(folder) as entries:
        names = sorted(e.name + "/" if _is_folder(e) else e.name for e in entries)
    for name in names:
        path = os.path.join(folder, name.rstrip("/"))
        if name.endswith("/"):
            yield from _list_local(path)
        else:
            try:
                stat = os.stat(path)
            except OSError:  # a link to nowhere is an entry all the same; its reader will say that it is missing
                yield Entry(portable_name(path), -1, "")
            else:
                yield Entry(portable_name(path), stat.st_size, str(stat.st_mtime), stat.st_mtime)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A linked folder is walked, unless the link leads back above itself.
    if not entry.is_symlink():
        return entry.is_dir()
    target = os.path.realpath(entry.path)
    return os.path.isdir(target) and not os.path.realpath(os.path.dirname(entry.path)).startswith(target)


def _list_s3(fs: Any, path: str, protocol: str) -> Iterator[Entry]:
    bucket, _, key = path.partition("/")
    prefix = key.rstrip("/") + "/" if key else ""
    request: dict[str, str] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = PATIENCE.persist(lambda: fs.call_s3("list_objects_v2", **request))
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):  # folder markers of storage consoles
                uri, tag = f"{protocol}://{bucket}/{item['Key']}", item.get("ETag", "").strip('"')
                yield Entry(uri, item["Size"], tag, item["LastModified"].timestamp())
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _list_walking(fs: fsspec.AbstractFileSystem, path: str, protocol: str) -> Iterator[Entry]:
    try:
        children = PATIENCE.persist(lambda: fs.ls(path, detail=True))
    except FileNotFoundError:
        return
    named = {}
    for child in children:
        if child["name"].rstrip("/") != path.rstrip("/"):
            named[child["name"].rstrip("/") + ("/" if child["type"] == "directory" else "")] = child
    for name in sorted(named):
        if name.endswith("/"):
            yield from _list_walking(fs, name.rstrip("/"), protocol)
        else:
            info = named[name]
            uri = name if name.startswith(f"{protocol}://") else f"{protocol}://{name}"
            yield Entry(uri, int(info.get("size") or 0), _tag(info))


def glob_files(pattern: str) -> list[Entry]:
    """The objects that match a glob (`*`, `?`, `[..]`, `**`), sorted by path."""
    fs, path = _open_uri(pattern)
    found = _persist(pattern, lambda: fs.glob(path, detail=True))
    protocol = "" if is_local(pattern) else pattern.split("://", 1)[0] + "://"
    return [
        Entry(
            name if name.startswith(protocol) else protocol + name,
            int(info.get("size") or 0),
            _tag(info),
        )
        for name, info in sorted(found.items())
        if info["type"] == "file"
    ]


def _tag(info: dict[str, Any]) -> str:
    """What fsspec tells of an object that changes with its content: each file system has its own name for it."""
    return str(info.get("ETag") or info.get("etag") or info.get("mtime") or "").strip('"')


def cache_folder() -> Path:
    """Where this machine keeps copies: `$POSEMILL_CACHE`, by default `~/.cache/posemill`."""
    return Path(os.environ.get("POSEMILL_CACHE") or Path.home() / ".cache" / "posemill")


def local_copy(uri: str) -> Path:
    """A local file with the content of `uri`: the file itself, or a copy in the cache of this machine.

    Copies live in `cache_folder()` and are downloaded once for each content.
    """
    if is_local(uri):
        path = Path(uri.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise MissingObject(f"{uri}: no such file")
        return path
    entry = stat(uri)
    target = (
        cache_folder() / hashlib.sha256(f"{uri} {entry.size} {entry.etag}".encode()).hexdigest()[:16] / basename(uri)
    )
    if not target.exists():
        write_bytes(str(target), read_bytes(uri))
    return target


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
