"""Tar archives, plain or compressed, such as WebDataset's: each is one shard, and each of its images is one item."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import posixpath
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import BinaryIO, cast

from backports import zstd

from pipeline import storage
from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.members import (
    Ending,
    Member,
    MemberDamaged,
    MemberMissing,
    Unique,
    is_image,
    is_video,
    link_target,
    member_items,
    member_keys,
    refused_video,
    without_images,
)
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard, container_shard
from pipeline.sources.video.plan import plan_section

_Decompress = Callable[[BinaryIO], BinaryIO]
_COMPRESSIONS: dict[str, _Decompress] = {
    ".tar.gz": lambda stream: cast(BinaryIO, gzip.GzipFile(fileobj=stream)),
    ".tar.bz2": lambda stream: cast(BinaryIO, bz2.BZ2File(stream)),
    ".tar.xz": lambda stream: cast(BinaryIO, lzma.LZMAFile(stream)),  # noqa: SIM115
    ".tar.zst": lambda stream: cast(BinaryIO, zstd.ZstdFile(stream)),
}
_SHORT = {".tgz": ".tar.gz", ".tbz2": ".tar.bz2", ".tbz": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}
TAR_SUFFIXES = (".tar", *_COMPRESSIONS, *_SHORT)
_ZEROS = tarfile.NUL * tarfile.BLOCKSIZE
# ValueError, struct.error: tarfile's own, for headers with impossible numbers.
_DAMAGED = (
    tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError, ValueError, OverflowError,
    struct.error,
)  # fmt: skip
_NAMED_MEMBERS = 3  # in error messages


def plan_tar(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """One shard with the images of an archive, and those of the videos in it.

    Images are counted from the headers; a compressed archive is decompressed to read them. Videos in compressed
    archives are unreadable items.
    """
    for key, entry in entries:
        videos: list[tarfile.TarInfo] = []
        with storage.open_read(entry.uri, _access(entry.uri)) as stream:
            count = sum(1 for _ in _walk(stream, entry.uri, videos=videos))
        if count:
            yield container_shard(key, entry, "tar", count)
        unique = Unique()
        for video in videos:
            name = f"{key}/{unique(video.name)}"
            yield from plan_section(name, entry, settings, (video.offset_data, video.size))


def tar_keys(shard: Shard) -> Iterator[str]:
    """The keys of the images of an archive, from its headers."""
    (listed,) = shard.entries
    with storage.open_read(listed.uri, _access(listed.uri), listed) as stream:
        yield from member_keys(shard, _walk(stream, listed.uri))


def read_tar(shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None) -> Iterator[EncodedImage]:
    """The images of an archive in order; with `wanted` keys, those alone."""
    (listed,) = shard.entries
    access = _access(listed.uri, reads_all=wanted is None)
    with storage.open_read(listed.uri, access, listed) as stream, _Targets(listed) as targets:
        yield from member_items(shard, _walk(stream, listed.uri, targets), limits, wanted)


def _access(uri: str, reads_all: bool = False) -> storage.Access:
    """Of an archive that is not compressed, the members that are not wanted need not be read."""
    return "sequential" if reads_all or _compression(uri) is not None else "random"


def _compression(uri: str) -> _Decompress | None:
    lower = uri.lower()
    suffix = next((long for short, long in _SHORT.items() if lower.endswith(short)), lower)
    return next((decompress for known, decompress in _COMPRESSIONS.items() if suffix.endswith(known)), None)


def _decompressed(stream: BinaryIO, uri: str) -> BinaryIO:
    compression = _compression(uri)
    return stream if compression is None else compression(stream)


def _walk(
    stream: BinaryIO, uri: str, targets: _Targets | None = None, videos: list[tarfile.TarInfo] | None = None
) -> Iterator[Member | Ending]:
    """The images of an archive, and an `Ending` if it is damaged or has nothing to annotate.

    Args:
        stream: the file.
        uri: its URI, which states the compression.
        targets: what links refer to; None if members are not read.
        videos: the videos of an archive without compression are added to it.
    """
    found = 0
    others: list[str] = []
    try:
        for archive, member in _members(_decompressed(stream, uri)):
            linked = member.issym() or member.islnk()
            if not (member.isreg() or linked):
                continue
            file = None if linked else _open(archive, member)
            if file is not None and is_video(member.name):
                found += 1
                if _compression(uri) is not None:
                    yield refused_video(member.name, "unpack it, or use a tar archive without compression")
                elif videos is not None:
                    videos.append(member)
            elif is_image(member.name, partial(_head, file)):
                found += 1
                if file is not None:
                    yield Member(member.name, member.size, partial(_read, file, member))
                else:
                    yield Member(member.name, 0, partial(targets.read, member) if targets else bytes)
            elif len(others) < _NAMED_MEMBERS:
                others.append(storage.portable_name(member.name))
    except _ArchiveDamaged as error:
        yield Ending(str(error))
    else:
        if not found:
            yield without_images(others)


class _ArchiveDamaged(Exception):
    """The members after this point are lost."""


def _members(source: BinaryIO) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All members of a file of one or more concatenated archives.

    Raises:
        _ArchiveDamaged: after the last member that can be read.
    """
    while True:
        with _damage("not a tar archive"):
            archive = tarfile.open(fileobj=source, mode="r:")  # noqa: SIM115  # it owns nothing to close
        with _damage("the archive is damaged, entries after this point are lost"):
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else tarfile stores every header
                yield archive, member
            source.seek(archive.offset)
            block = source.read(tarfile.BLOCKSIZE)
            if block != _ZEROS:
                raise tarfile.ReadError("it stops without an end marker, or with other data after it")
            while block == _ZEROS:
                block = source.read(tarfile.BLOCKSIZE)
            if not block:
                return
            source.seek(-len(block), 1)


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    """Raise _ArchiveDamaged instead of the errors by which tarfile and the decompressors report damage."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGED as error:
        raise _ArchiveDamaged(f"{what}: {error}") from None
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        raise _ArchiveDamaged(f"{what}: {error}") from None  # bz2's error for invalid data has no number


def _open(archive: tarfile.TarFile, member: tarfile.TarInfo) -> io.BufferedReader:
    return cast(io.BufferedReader, archive.extractfile(member))


def _head(file: io.BufferedReader | None, count: int) -> bytes:
    """The first bytes, which a later read returns again: a compressed archive cannot go back without starting anew."""
    if file is None:
        return b""
    with _damage("the archive is damaged"):
        return file.peek(count)[:count]


def _read(file: io.BufferedReader, member: tarfile.TarInfo) -> bytes:
    data = b""
    with contextlib.suppress(_ArchiveDamaged), _damage("the archive is damaged"), file:
        data = file.read()
    if len(data) < member.size:
        raise MemberDamaged("the archive ends inside this entry")
    return data


class _Targets:
    """The members that links refer to; the archive is opened a second time if it has a link."""

    def __init__(self, listed: storage.Entry) -> None:
        self._listed = listed
        self._stack = contextlib.ExitStack()
        self._regular: dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]] | None = None
        self._links: dict[str, str] = {}

    def __enter__(self) -> _Targets:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, link: tarfile.TarInfo) -> bytes:
        """The content of the member that a link refers to.

        Raises:
            MemberMissing: the target is not in the archive.
            MemberDamaged: the target cannot be read.
        """
        if self._regular is None:
            self._regular = dict(self._scan())
        found = self._regular.get(link_target(link.name, self._links))
        if found is None:
            raise MemberMissing(f"a link to {storage.portable_name(link.linkname)}, which is no file in the archive")
        archive, member = found
        return _read(_open(archive, member), member)

    def _scan(self) -> Iterator[tuple[str, tuple[tarfile.TarFile, tarfile.TarInfo]]]:
        uri = self._listed.uri
        is_compressed = _compression(uri) is not None
        stream = self._stack.enter_context(storage.open_read(uri, _access(uri), self._listed))
        if is_compressed:  # links lead anywhere: unpack once instead of starting anew for each
            unpacked = self._stack.enter_context(tempfile.TemporaryFile(prefix="posemill-"))  # noqa: SIM115
            with contextlib.suppress(_ArchiveDamaged), _damage("the archive is damaged"):
                shutil.copyfileobj(_decompressed(stream, uri), unpacked)
            unpacked.seek(0)
            stream = cast(BinaryIO, unpacked)
        with contextlib.suppress(_ArchiveDamaged):
            for archive, member in _members(stream):
                name = posixpath.normpath(member.name)
                if member.isreg():
                    yield name, (archive, member)
                elif member.issym() or member.islnk():
                    base = posixpath.dirname(name) if member.issym() else ""  # hard links count from the root
                    self._links[name] = posixpath.normpath(posixpath.join(base, member.linkname))
