"""Zip archives: each is one shard, and each of its images is one item."""

from __future__ import annotations

import contextlib
import errno
import lzma
import posixpath
import stat
import struct
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import BinaryIO

from backports.zstd import ZstdError, zipfile

from pipeline import storage
from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.members import (
    Ending,
    Member,
    MemberDamaged,
    MemberMissing,
    is_image,
    is_video,
    link_target,
    member_items,
    member_keys,
    refused_video,
    without_images,
)
from pipeline.sources.shard import EncodedImage, PlannedShard, Shard, container_shard

ZIP_SUFFIXES = (".zip",)

warnings.filterwarnings("ignore", "Overlapped entries")  # about single entries: reading them fails

_ENCRYPTED = 1  # in the flags of an entry
# NotImplementedError: an unknown compression. RuntimeError: an encrypted entry.
_DAMAGED = (
    zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, ZstdError, NotImplementedError, RuntimeError, ValueError,
    struct.error, UnicodeDecodeError, OverflowError,
)  # fmt: skip
_NAMED_MEMBERS = 3  # in error messages
_LONGEST_PATH = 4096  # of a link


def plan_zip(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """One shard per archive. Images are counted from its directory."""
    for key, entry in entries:
        with storage.open_read(entry.uri, access="random") as stream:
            count = sum(1 for _ in _walk(stream))
        yield container_shard(key, entry, "zip", count)


def zip_keys(shard: Shard) -> Iterator[str]:
    """The keys of the images of an archive, from its directory."""
    (listed,) = shard.entries
    with storage.open_read(listed.uri, access="random", listed=listed) as stream:
        yield from member_keys(shard, _walk(stream))


def read_zip(shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None) -> Iterator[EncodedImage]:
    """The images of an archive, in the order of its directory; with `wanted` keys, those alone."""
    (listed,) = shard.entries
    with storage.open_read(listed.uri, listed=listed) as stream:
        yield from member_items(shard, _walk(stream), limits, wanted)


def _walk(stream: BinaryIO) -> Iterator[Member | Ending]:
    try:
        with _damage():
            archive = zipfile.ZipFile(stream)
    except MemberDamaged as error:
        yield Ending(f"not a zip archive, or a truncated one: {error}")
        return
    with archive:
        infos = {posixpath.normpath(info.filename): info for info in archive.infolist()}
        links: dict[str, str] | None = None
        found = 0
        others: list[str] = []
        for info in archive.infolist():
            if info.is_dir():
                continue
            linked = _is_link(info)
            if linked and links is None:
                links = {name: _target(archive, link) for name, link in infos.items() if _is_link(link)}
            if is_video(info.filename):
                found += 1
                yield refused_video(info.filename, "unpack it, or use a tar archive")
            elif is_image(info.filename, partial(_head, archive, info)):
                found += 1
                content = infos.get(link_target(info.filename, links)) if linked and links else info
                size = content.file_size if content else 0
                yield Member(info.filename, size, partial(_read, archive, content))
            elif len(others) < _NAMED_MEMBERS:
                others.append(storage.portable_name(info.filename))
        if not found:
            yield without_images(others)


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _target(archive: zipfile.ZipFile, link: zipfile.ZipInfo) -> str:
    """The path in the archive that a link names: its content."""
    named = _head(archive, link, _LONGEST_PATH).decode(errors="replace")
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.filename), named))


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    with contextlib.suppress(MemberDamaged), _damage(), archive.open(info) as file:
        return file.read(count)
    return b""


def _read(archive: zipfile.ZipFile, content: zipfile.ZipInfo | None) -> bytes:
    if content is None or _is_link(content):
        raise MemberMissing("a link whose target is not in the archive")
    if content.flag_bits & _ENCRYPTED:
        raise MemberDamaged("the entry is encrypted")
    with _damage(), archive.open(content) as file:
        return file.read()


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Raise MemberDamaged instead of the errors by which zipfile and the decompressors report damage."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGED as error:
        raise MemberDamaged(f"damaged: {error}") from None
    except OSError as error:
        # A position before the start of the file; bz2's error for invalid data has no number.
        if error.errno != errno.EINVAL and (type(error) is not OSError or error.errno is not None):
            raise
        raise MemberDamaged(f"damaged: {error}") from None
