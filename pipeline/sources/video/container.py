"""The container of a video: opened by FFmpeg, and its packets in the order of the file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline import storage
from pipeline.errors import UserError
from pipeline.sources.shard import VideoRange
from pipeline.sources.video.ffmpeg import load_av, time_stamp

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

# FFmpeg also opens text files that name other files or servers: playlists, lists of parts, session descriptions.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg"
_STEPS_BACK = (0, 1, 5, 30)  # seconds before the anchor
_PASSED = 3  # key frames after the anchor at which a search has failed


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
    with storage.open_read(uri, "mixed", listed) as file:
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

    Reading starts at the anchor. Where the file has no index of all packets, FFmpeg may find another place, or give
    other time stamps there: it is tried from farther away, and at last the file is read from its start.
    """
    first, count = part.first_packet - part.lead_packets, part.lead_packets + part.num_packets
    with ExitStack() as stack:

        def search(seconds: float) -> tuple[VideoStream, Iterator[av.Packet] | None]:
            container, stream = stack.enter_context(open_video(listed.uri, part.section, listed))
            return stream, _from_anchor(container, stream, part, seconds)

        for seconds in () if part.anchor is None else (0,) if part.digest is None else _STEPS_BACK:
            stream, packets = search(seconds)
            if packets is not None and part.digest is not None:
                is_right = _digest(islice(packets, count)) == part.digest
                stream, packets = search(seconds) if is_right else (stream, None)
            if packets is not None:
                yield stream, islice(packets, count)
                return
        container, stream = stack.enter_context(open_video(listed.uri, part.section, listed))
        yield stream, islice(all_packets(container, stream), first, first + count)


def _from_anchor(
    container: InputContainer, stream: VideoStream, part: VideoRange, seconds: float
) -> Iterator[av.Packet] | None:
    """The packets of a range from its anchor on; None if the search, so many seconds before it, does not lead there."""
    pyav = load_av()
    assert part.anchor is not None
    assert stream.time_base is not None
    try:
        container.seek(part.anchor - round(seconds / stream.time_base), stream=stream)
    except pyav.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return None
    packets, passed = all_packets(container, stream), 0
    for packet in packets:  # FFmpeg often finds an earlier key frame
        if packet.is_keyframe:
            stamp = packet.dts if part.digest is None else time_stamp(packet)
            if stamp == part.anchor:
                return chain([packet], packets)
            passed += stamp is None or stamp > part.anchor
            if passed > _PASSED:
                return None
    return None


def digest_of(packets: Iterable[tuple[int, int, bool]]) -> int:
    """A number that other packets hardly have, from the time stamp and size of each, and whether it is a key frame."""
    digest = 0
    for stamp, size, is_key in packets:
        digest = zlib.crc32(b"%d %d %d;" % (stamp, size, is_key), digest)
    return digest


def _digest(packets: Iterable[av.Packet]) -> int:
    return digest_of((time_stamp(packet), packet.size, packet.is_keyframe) for packet in packets)


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
