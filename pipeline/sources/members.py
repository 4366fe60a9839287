"""Members of archives: which of them are images, their names, and the images behind links."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from pipeline import storage
from pipeline.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, SIGNATURE_BYTES, DecodeLimits, has_image_signature
from pipeline.sources.shard import EncodedImage, Shard, too_large
from pipeline.sources.video.plan import VIDEO_SUFFIXES

_SUFFIXES = (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)
_LONGEST_CHAIN = 40  # of links, as in Linux


class Member(NamedTuple):
    """One image of an archive.

    Attributes:
        read: returns the content. Raises MemberMissing or MemberDamaged.
    """

    name: str
    size: int
    read: Callable[[], bytes]


class Ending(NamedTuple):
    """The last item of an archive that is damaged, truncated or without images; `reason` is its error message."""

    reason: str


class MemberMissing(Exception):
    """The member is a link, and its target is not in the archive."""


class MemberDamaged(Exception):
    """The member cannot be read."""


def is_image(name: str, head: Callable[[int], bytes]) -> bool:
    """Whether a member counts as an image.

    It does if its name has an image suffix or no suffix at all, or if it starts as images do. Hidden files and what
    macOS adds to archives do not.

    Args:
        name: path in the archive.
        head: returns the first bytes of the content.
    """
    if _is_hidden(name):
        return False
    suffix = posixpath.splitext(name.split("/")[-1])[1]
    return suffix == "" or suffix.lower() in _SUFFIXES or has_image_signature(head(SIGNATURE_BYTES))


def refused_video(name: str, advice: str) -> Member:
    """A video that cannot be read where it is; `advice` says what to do."""

    def refuse() -> bytes:
        raise MemberDamaged(f"a video in this kind of archive is not read; {advice}")

    return Member(name, 0, refuse)


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or "__MACOSX" in parts


def is_video(name: str) -> bool:
    """Whether a member is a video, by its suffix; hidden files and what macOS adds to archives are not."""
    return name.lower().endswith(VIDEO_SUFFIXES) and not _is_hidden(name)


def without_images(names: list[str]) -> Ending:
    """The item of an archive none of whose members is an image."""
    if not names:
        return Ending("the archive is empty")
    return Ending(f"none of the members is an image: {', '.join(names)}, ...")


def link_target(name: str, links: dict[str, str]) -> str:
    """The path in the archive at the end of a chain of links, normalised.

    Args:
        name: path of a member.
        links: normalised path of each link to the normalised path that it names.
    """
    name = posixpath.normpath(name)
    for _ in range(_LONGEST_CHAIN):
        parts = name.split("/")
        folders = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        linked = next((folder for folder in folders if folder in links), None)  # a link to a folder, or to the file
        if linked is None:
            break
        name = posixpath.normpath(links[linked] + name[len(linked) :])
    return name


def member_keys(shard: Shard, members: Iterator[Member | Ending]) -> Iterator[str]:
    """The keys of the items of `member_items`."""
    (container,) = shard.keys
    for name in _names(members):
        yield f"{container}/{name}" if name else _ending(container)


def member_items(
    shard: Shard, members: Iterator[Member | Ending], limits: DecodeLimits, wanted: Collection[str] | None
) -> Iterator[EncodedImage]:
    """The images of an archive in order; with `wanted` keys, those alone.

    Nothing is unpacked to disk, so member names such as `../x` are harmless.
    """
    (container,), (uri,) = shard.keys, shard.uris
    unique = Unique()
    for member in members:
        if isinstance(member, Ending):
            if wanted is None or _ending(container) in wanted:
                yield EncodedImage(_ending(container), _ending(uri), None, "unreadable", member.reason)
            continue
        name = unique(member.name)
        key, member_uri = f"{container}/{name}", f"{uri}#{name}"
        if wanted is not None and key not in wanted:
            continue
        if member.size > limits.max_bytes:
            yield too_large(key, member_uri, limits)
            continue
        try:
            data = member.read()
            if len(data) > limits.max_bytes:  # the target of a link
                yield too_large(key, member_uri, limits)
            else:
                yield EncodedImage(key, member_uri, data)
        except MemberMissing as error:
            yield EncodedImage(key, member_uri, None, "missing", str(error))
        except MemberDamaged as error:
            yield EncodedImage(key, member_uri, None, "unreadable", str(error))


def _ending(container: str) -> str:
    return f"{container}#end"


class Unique:
    """Member names, with a number where the archive contains a name more than once, so that keys are unique."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        name = storage.portable_name(name)
        key = name
        while key in self._seen:
            self._seen[name] += 1
            key = f"{name}#{self._seen[name]}"
        self._seen[key] = 1
        return key


def _names(members: Iterator[Member | Ending]) -> Iterator[str | None]:
    unique = Unique()
    for member in members:
        yield None if isinstance(member, Ending) else unique(member.name)
