"""Shards, and the items that readers yield."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipeline import storage
from pipeline.images import DecodedImage, DecodeLimits, decode_image
from pipeline.storage import Entry

Kind = Literal["files", "tar", "parquet"]


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A part of the collection that one worker annotates at a time, before it has its place among the others.

    Attributes:
        kind: `files` are objects that are an image each; a `tar` or a row group of a `parquet` holds many.
        keys: names in the collection, of the images (`files`) or of the container.
        uris: where these lie.
        sizes: their bytes, -1 where unknown.
        etags: tags that change with their content, "" where unknown.
        num_images: entries, and so rows of the part.
        row_group, column: of a `parquet`.
    """

    kind: Kind
    keys: tuple[str, ...]
    uris: tuple[str, ...]
    sizes: tuple[int, ...]
    etags: tuple[str, ...]
    num_images: int
    row_group: int | None = None
    column: str | None = None

    @property
    def entries(self) -> list[Entry]:
        """What was listed: images, or the one container."""
        return [Entry(*listed) for listed in zip(self.uris, self.sizes, self.etags, strict=True)]

    def at(self, position: int) -> Shard:
        """The shard at this position of the collection."""
        content = "\n".join([*self.keys, *self.uris, str(self.num_images), str(self.row_group)])
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return Shard(id=f"{position:08d}-{digest}", **self.__dict__)


@dataclass(frozen=True, kw_only=True)
class Shard(PlannedShard):
    """A shard of a run.

    Attributes:
        id: position in the collection and digest of the content's names; the name of its part.
    """

    id: str


def container_shard(key: str, entry: Entry, kind: Kind, num_images: int, **part: Any) -> PlannedShard:
    """A shard that is one object with many images in it, or a `part` of one."""
    return PlannedShard(
        kind=kind,
        keys=(key,),
        uris=(entry.uri,),
        sizes=(entry.size,),
        etags=(entry.etag,),
        num_images=num_images,
        **part,
    )


class Item(Protocol):
    """One entry of a collection, as a reader yields it: it becomes one row.

    An encoded image is an item; so is anything else that can give pixels within limits, such as a frame of a video.
    """

    @property
    def key(self) -> str:
        """Unique in the collection and stable over runs."""
        ...

    @property
    def uri(self) -> str:
        """Where it is stored; entries of a container as `container#name`."""
        ...

    @property
    def status(self) -> str:
        """`ok`, or the reason's kind if it could not be read."""
        ...

    @property
    def error(self) -> str | None:
        """The reason, if it could not be read."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of the stored bytes; None if there are none."""
        ...

    def decode(self, limits: DecodeLimits) -> DecodedImage:
        """The pixels of an item whose status is `ok`.

        Raises:
            ImageRefused: with the status and the reason that go into the row.
        """
        ...


@dataclass(frozen=True)
class EncodedImage:
    """An item that is an encoded image; see `Item`.

    Attributes:
        data: the encoded bytes; None if they could not be read.
    """

    key: str
    uri: str
    data: bytes | None
    status: str = "ok"
    error: str | None = None

    @property
    def sha256(self) -> str | None:
        return None if self.data is None else storage.sha256(self.data)

    def decode(self, limits: DecodeLimits) -> DecodedImage:
        assert self.data is not None
        return decode_image(self.data, limits)


def too_large(key: str, uri: str, limits: DecodeLimits) -> EncodedImage:
    """The item of a file that exceeds the limit on bytes."""
    return EncodedImage(key, uri, None, "too_large", f"the file is larger than {limits.max_bytes / 1e6:g} megabytes")
