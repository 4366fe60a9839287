"""The values of this folder: what a shard is, and what comes out of one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Kind = Literal["files", "tar", "parquet"]


@dataclass(frozen=True)
class Shard:
    """A part of the collection that one worker annotates at a time.

    Attributes:
        id: position in the collection and digest of the content's names; the name of its part.
        kind: `files` are objects that are an image each; a `tar` or a row group of a `parquet` holds many.
        keys: names in the collection, of the images (`files`) or of the container.
        uris: where these lie.
        sizes: their bytes, -1 where unknown.
        etags: tags that change with their content, "" where unknown.
        num_images: entries, and so rows of the part.
        row_group, column: of a `parquet`.
    """

    id: str
    kind: Kind
    keys: tuple[str, ...]
    uris: tuple[str, ...]
    sizes: tuple[int, ...]
    etags: tuple[str, ...]
    num_images: int
    row_group: int | None = None
    column: str | None = None


@dataclass(frozen=True)
class PlannedShard:
    """A shard before it has its place in the collection."""

    kind: Kind
    keys: tuple[str, ...]
    uris: tuple[str, ...]
    sizes: tuple[int, ...]
    etags: tuple[str, ...]
    num_images: int
    row_group: int | None = None
    column: str | None = None

    def at(self, position: int) -> Shard:
        content = "\n".join([*self.keys, *self.uris, str(self.num_images), str(self.row_group)])
        digest = hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return Shard(f"{position:08d}-{digest}", **self.__dict__)


@dataclass(frozen=True)
class EncodedImage:
    """One entry of a collection, as stored.

    Attributes:
        key: unique in the collection and stable over runs.
        uri: where it lies; entries of a container as `container#name`.
        data: the encoded bytes; None where the entry could not be had.
        status, error: `ok`, or why there are no bytes.
    """

    key: str
    uri: str
    data: bytes | None
    status: str = "ok"
    error: str | None = None
