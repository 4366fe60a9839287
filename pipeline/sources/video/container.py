"""The container of a video: opened by FFmpeg, and its packets in the order of the file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline import storage
from pipeline.errors import UserError
from pipeline.sources.shard import VideoRange
from pipeline.sources.video.ffmpeg import load_av

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

# FFmpeg also opens text files that name other files or servers: playlists, lists of parts, session descriptions.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg"


class Unreadable(Exception):
    """The file is no video, or a damaged one; the message says why."""


class _Section:
    """A section of a file as a file for FFmpeg.

    FFmpeg may seek before the start of a damaged video. Then it gets the start: this must not look like failing
    storage.
    """

    def __init__(self, file: BinaryIO, start: int, size: int | None) -> None:
        self._file, self._start = file, start
        self._end = file.seek(0, io.SEEK_END) if size is None else start + size
        file.seek(start)

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._end}[whence]
        return self._file.seek(max(self._start, base + offset)) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start


@contextmanager
def open_video(
    uri: str, section: tuple[int, int | None], listed: storage.Entry | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video.

    Args:
        section: first byte and number of bytes in the file; None for all until its end.
        listed: the entry of the file when it was planned.

    Raises:
        Unreadable: FFmpeg cannot open it, or it has no video stream.
        OSError: the storage failed.
        storage.ChangedObject: the file differs from the listed one.
        UserError: PyAV is not installed.
    """
    try:
        pyav = load_av()
    except ModuleNotFoundError:
        raise UserError(f"{uri} is a video, and videos need PyAV; install it by `uv sync --extra video`") from None
    with storage.open_read(uri, listed=listed) as file:
        try:
            container = pyav.open(
                _Section(file, *section), metadata_errors="replace", container_options={"format_whitelist": _FORMATS}
            )
        except pyav.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            raise Unreadable(f"not a video that FFmpeg can open: {error.strerror}") from None
        with container:
            covers = pyav.stream.Disposition.attached_pic
            videos = [s for s in container.streams.video if not s.disposition & covers]
            if not videos:
                raise Unreadable("the file has no video stream")
            stream = max(videos, key=lambda s: s.codec_context.width * s.codec_context.height if s.codec_context else 0)
            if stream.codec_context is None:
                raise Unreadable("FFmpeg has no decoder for its video")
            yield cast("InputContainer", container), stream


@contextmanager
def open_range(listed: storage.Entry, part: VideoRange) -> Iterator[tuple[VideoStream, Iterator[av.Packet]]]:
    """The stream of a shard, and its packets, those of the groups that it may refer to first.

    Where the file has an index of all packets, reading starts there. FFmpeg's search in other files gives other
    time stamps, or none: they are read from their start.
    """
    first, count = part.first_packet - part.lead_packets, part.lead_packets + part.num_packets
    with ExitStack() as stack:
        if part.anchor is not None:
            container, stream = stack.enter_context(open_video(listed.uri, part.section, listed))
            packets = _from_anchor(container, stream, part.anchor)
            if packets is not None:
                yield stream, islice(packets, count)
                return
        container, stream = stack.enter_context(open_video(listed.uri, part.section, listed))
        yield stream, islice(all_packets(container, stream), first, first + count)


def _from_anchor(container: InputContainer, stream: VideoStream, anchor: int) -> Iterator[av.Packet] | None:
    """The packets from the one with this decoding time stamp on; None if the search does not lead to it."""
    pyav = load_av()
    try:
        container.seek(anchor, stream=stream)
    except pyav.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return None
    packets = all_packets(container, stream)
    first = next(packets, None)
    if first is None or first.dts != anchor:
        return None

    def continued() -> Iterator[av.Packet]:
        yield first
        yield from packets

    return continued()


def all_packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of the stream in the order of the file, until its end or to damage that FFmpeg cannot pass.

    Raises:
        MemoryError: from FFmpeg.
        OSError: the storage failed.
    """
    pyav = load_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except pyav.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            return
        if packet is None or packet.size == 0:
            return
        if packet.dts is not None or packet.pts is not None:
            yield packet


def groups(packets: Iterable[av.Packet]) -> Iterator[list[av.Packet]]:
    """The packets from each key frame until the next."""
    group: list[av.Packet] = []
    for packet in packets:
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
    if group:
        yield group
