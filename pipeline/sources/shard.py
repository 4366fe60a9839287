"""Types of shards, and of the items that their readers yield."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from pipeline import storage
from pipeline.decoders.jpeg import decode_jpeg
from pipeline.images import DecodedImage, DecodeLimits, JpegDecoder, decode_image
from pipeline.storage import Entry

Kind = Literal["files", "tar", "zip", "parquet", "video"]


class FramePosition(NamedTuple):
    """The place of a frame in its video.

    Attributes:
        video: key of the video.
        frame: number of the frame from 0, in order of presentation.
        pts: presentation time stamp, in units of the stream; None if it is not known.
        seconds: since the start of the stream; None if it is not known.
    """

    video: str
    frame: int
    pts: int | None
    seconds: float | None


_USUAL_PREFIXES = ("", "frame", "img", "image")  # of the names of the images of a sequence


def frame_of_sequence(key: str, fps: float | None) -> FramePosition | None:
    """The position of an image in a sequence of numbered images: its folder is the video.

    What stands before the number keeps sequences of one folder apart, unless it says no more than that it is a frame.

    Args:
        key: of the image.
        fps: frames per second; None if images are no frames.

    >>> frame_of_sequence("walk/img_000012.jpg", 25)
    FramePosition(video='walk', frame=12, pts=None, seconds=0.48)
    """
    folder, name = posixpath.split(key)
    number = re.search(r"(?<![0-9])([0-9]{1,15})(\.\w+)?$", name)
    if fps is None or number is None:
        return None
    frame, prefix = int(number[1]), name[: number.start()].rstrip("_-. ")
    video = folder if prefix.lower() in _USUAL_PREFIXES else posixpath.join(folder, prefix)
    return FramePosition(video, frame, None, frame / fps)


@dataclass(frozen=True, kw_only=True)
class VideoRange:
    """Whole groups of pictures of a video; a group is a key frame and the packets until the next, in decoding order.

    Long groups are in several shards, each with some of their frames.

    Attributes:
        frames: numbers of the frames to annotate; (0,) if the video cannot be opened.
        video_frames: number of frames of the video, chosen or not.
        first_frame: number of the first frame of the groups.
        first_packet: number of their first packet, from 0 in the order of the file.
        lead_packets: number of packets in the groups before that it may refer to.
        num_packets: number of packets of the groups.
        anchor: time stamp of the first packet of these groups, where reading starts; None to start with the file. Of
            decoding where the file has an index of all packets, else as `time_stamp` gives it.
        digest: of all these packets, as `digest_of` gives it, where the file has no such index: searching for the
            anchor may lead elsewhere. Else None.
        damaged: numbers of the first packets of the groups in or after which the container is damaged. (Only reading a
            file from its start shows it.)
        section: first byte and number of bytes of the video in its file; None for all until the end.
        error: why the video cannot be opened; None if it can.
    """

    frames: tuple[int, ...]
    video_frames: int = 0
    first_frame: int = 0
    first_packet: int = 0
    lead_packets: int = 0
    num_packets: int = 0
    anchor: int | None = None
    digest: int | None = None
    damaged: tuple[int, ...] = ()
    section: tuple[int, int | None] = (0, None)
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A part of a collection that one worker annotates at a time, without its position in the collection.

    Attributes:
        kind: `files` for loose images, one per object; `tar` or `zip` for an archive; `parquet` for a row group of a
            file; `video` for a part of a video.
        keys: names in the collection: of the images (`files`) or of the container.
        uris: URIs of the images or of the container.
        sizes: in bytes, -1 if unknown.
        etags: tags that change with the content, "" if unknown.
        num_images: number of images, which is the number of rows of the part.
        row_group: index of the row group (`parquet` only).
        column: name of the column with the images (`parquet` only).
        video: the part of the video (`video` only).
    """

    kind: Kind
    keys: tuple[str, ...]
    uris: tuple[str, ...]
    sizes: tuple[int, ...]
    etags: tuple[str, ...]
    num_images: int
    row_group: int | None = None
    column: str | None = None
    video: VideoRange | None = None

    @property
    def entries(self) -> list[Entry]:
        """The listed entries of the images or of the container."""
        return [Entry(*listed) for listed in zip(self.uris, self.sizes, self.etags, strict=True)]

    def at(self, position: int) -> Shard:
        """This shard at a position (from 0) of the collection."""
        part = self.row_group if self.video is None else self.video
        content = "\n".join([*self.keys, *self.uris, str(self.num_images), str(part)])
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return Shard(id=f"{position:08d}-{digest}", **self.__dict__)


@dataclass(frozen=True, kw_only=True)
class Shard(PlannedShard):
    """A shard of a run.

    Attributes:
        id: position in the collection and digest of the names of its images; the name of its part.
    """

    id: str


def container_shard(key: str, entry: Entry, kind: Kind, num_images: int, **part: Any) -> PlannedShard:
    """A shard of a container, or of a `part` of it (such as `row_group` and `column` of a Parquet file)."""
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
    """One image of a collection, as a reader yields it: it becomes one row of the images table.

    `EncodedImage` is the implementation for encoded images, `VideoFrame` that for frames of videos.
    """

    @property
    def key(self) -> str:
        """Unique in the collection and stable over runs."""
        ...

    @property
    def uri(self) -> str:
        """The URI of the image; `container#name` for an image in a container."""
        ...

    @property
    def status(self) -> str:
        """`ok`, or the kind of error if it could not be read."""
        ...

    @property
    def error(self) -> str | None:
        """The error message if it could not be read, else None."""
        ...

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the stored bytes; None if they could not be read, and for frames of videos."""
        ...

    @property
    def position(self) -> FramePosition | None:
        """The place in its video; None for images."""
        ...

    def decode(self, limits: DecodeLimits, jpeg_decoder: JpegDecoder = decode_jpeg) -> DecodedImage:
        """The pixels of an item with the status `ok`; see `decode_image`.

        Raises:
            ImageRefused: the image exceeds the limits or is damaged; holds the status and the error of its row.
        """
        ...

    def blame(self) -> None:
        """Called if decoding it has ended a process: what is decoded together with it is not decoded again."""
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
    position: FramePosition | None = None

    @property
    def sha256(self) -> str | None:
        return None if self.data is None else storage.sha256(self.data)

    def decode(self, limits: DecodeLimits, jpeg_decoder: JpegDecoder = decode_jpeg) -> DecodedImage:
        assert self.data is not None
        return decode_image(self.data, limits, jpeg_decoder)

    def blame(self) -> None:
        """Nothing is decoded together with it."""


def too_large(key: str, uri: str, limits: DecodeLimits) -> EncodedImage:
    """The item of a file that exceeds the limit on bytes."""
    return EncodedImage(key, uri, None, "too_large", f"the file is larger than {limits.max_bytes / 1e6:g} megabytes")
