"""WebDataset archives: each tar is one shard, and each of its image files is one item with its name in the key."""

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

# Members with any image suffix are items; those that cannot be decoded get a row with the status `unreadable`.
_SUFFIXES = (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)
_DAMAGED = (tarfile.ReadError, EOFError, gzip.BadGzipFile, zlib.error)


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes]


class _Truncated(NamedTuple):
    """The last item of a damaged or truncated archive; the members after this point are lost."""

    reason: str


def plan_tar(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """One shard per archive. Images are counted from the headers; a compressed archive is decompressed to read them."""
    for key, entry in entries:
        compressed = _is_compressed(entry.uri)
        with storage.open_read(entry.uri, sequential=compressed) as stream:
            count = sum(1 for _ in _walk(stream, compressed))
        yield container_shard(key, entry, "tar", count)


def read_tar(shard: Shard, limits: DecodeLimits) -> Iterator[EncodedImage]:
    """The images of an archive in order. Nothing is unpacked to disk, so member names such as `../x` are harmless."""
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
    """The member name, with a number if the archive contains it more than once, so that keys are unique."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name}#{seen[name]}"


def _walk(stream: BinaryIO, compressed: bool) -> Iterator[_Member | _Truncated]:
    source = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if compressed else stream
    try:
        archive = tarfile.open(fileobj=source, mode="r:")  # noqa: SIM115  # closed below
    except _DAMAGED as error:
        yield _Truncated(f"not a tar archive: {error}")
        return
    regular: dict[str, tarfile.TarInfo] = {}  # possible targets of hard links
    with archive:
        try:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else tarfile stores every header
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
            raise tarfile.ReadError("broken hard link")
        file = archive.extractfile(member)
        with contextlib.closing(cast(BinaryIO, file)) as opened:
            data = opened.read()
        if len(data) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        return data

    return read
