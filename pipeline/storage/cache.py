"""Local copies of remote objects, and digests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pipeline.storage.objects import MissingObject, read_bytes, stat, write_bytes
from pipeline.storage.uris import basename, is_local


def cache_folder() -> Path:
    """The folder for local copies of remote objects: `$POSEMILL_CACHE`, by default `~/.cache/posemill`."""
    return Path(os.environ.get("POSEMILL_CACHE") or Path.home() / ".cache" / "posemill")


def local_copy(uri: str) -> Path:
    """The path of a local file with the content of `uri`: the file itself, or a cached copy of a remote object.

    Copies are stored in `cache_folder()`. An object is downloaded again only if its size or ETag changed.

    Raises:
        MissingObject: nothing is stored under the URI.
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
    """The SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a local file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
