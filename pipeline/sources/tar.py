"""WebDataset archives: a tar is a shard, its image members are the entries, their names are kept as keys."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

from pipeline import storage
from pipeline.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard, container_shard, too_large

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


# Whatever looks like an image is an entry; one that cannot be decoded gets a row that says so.
_SUFFIXES = (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)
_DAMAGED = (tarfile.ReadError, EOFError, gzip.BadGzipFile, zlib.error)


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes]


class _Truncated(NamedTuple):
    """Stands at the end of an archive that stops without saying so: what followed is lost."""

    reason: str


def plan_tar(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """One shard per archive. Its images are counted by reading headers alone; a compressed archive is read through."""
    for key, entry in entries:
        compressed = _is_compressed(entry.uri)
        with storage.open_read(entry.uri, sequential=compressed) as stream:
            count = sum(1 for _ in _walk(stream, compressed))
        yield container_shard(key, entry, "tar", count)


def read_tar(shard: Shard, limits: DecodeLimits) -> Iterator[EncodedImage]:
    """The archive's images in its order. Nothing is ever unpacked to disk, so names cannot lead anywhere."""
    (container,), (listed,) = shard.keys, shard.entries
    uri = listed.uri
    seen: dict[str, int] = {}
    with storage.open_read(uri, listed=listed) as stream:
        for member in _walk(stream, _is_compressed(uri)):
            if isinstance(member, _Truncated):
                yield EncodedImage(f"{container}#end", f"{uri}#end", None, "unreadable", member.reason)
                continue
            name = _unique(member.name, seen)
            key, member_uri = f"{container}/{name}", f"{uri}#{name}"
            if member.size > limits.max_bytes:
                yield too_large(key, member_uri, limits)
                continue
            try:
                yield EncodedImage(key, member_uri, member.read())
            except _DAMAGED:
                yield EncodedImage(key, member_uri, None, "unreadable", "the archive ends inside this entry")


def _is_compressed(uri: str) -> bool:
    return not uri.lower().endswith(".tar")


def _unique(name: str, seen: dict[str, int]) -> str:
    """A member name that stands in the archive again gets a number, so that both entries have their own key."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name}#{seen[name]}"


def _walk(stream: BinaryIO, compressed: bool) -> Iterator[_Member | _Truncated]:
    source = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if compressed else stream
    try:
        archive = tarfile.open(fileobj=source, mode="r:")
    except _DAMAGED as error:
        yield _Truncated(f"not a tar archive: {error}")
        return
    regular: dict[str, tarfile.TarInfo] = {}  # what hard links may point to
    with archive:
        try:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else every header is kept until the end
                if not member.name.lower().endswith(_SUFFIXES):
                    continue
                if member.isreg():
                    regular[member.name] = member
                elif not member.islnk():
                    continue
                content = regular.get(member.linkname) if member.islnk() else member
                size = content.size if content else 0
                yield _Member(storage.portable_name(member.name), size, _reader(archive, content))
            source.seek(archive.offset)
            ended = source.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE
            reason = "the archive stops without an end marker"
        except _DAMAGED as error:
            ended, reason = False, f"the archive is damaged: {error}"
    if not ended:
        yield _Truncated(f"{reason}; entries after this point are lost")


def _reader(archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> Callable[[], bytes]:
    def read() -> bytes:
        if member is None:
            raise tarfile.ReadError("a link to nowhere")
        file = archive.extractfile(member)
        with contextlib.closing(cast(BinaryIO, file)) as opened:
            data = opened.read()
        if len(data) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        return data

    return read
