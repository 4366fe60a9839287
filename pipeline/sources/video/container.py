"""The container of a video: opened by FFmpeg, and its packets in the order of the file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

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
_BYTES_PER_PIXEL, _PACKET_OVERHEAD = 8, 1 << 16  # no packet has more
_LARGEST_PROMISE = 100  # sizes of the file
_PASSED = 3  # key frames after the anchor at which a search has failed


class Unreadable(Exception):
    """The file is no video, or a damaged one; the message says why."""


class OpenVideo(NamedTuple):
    """A video that FFmpeg has opened.

    Attributes:
        container: of all streams.
        stream: the largest one with pictures.
        size: bytes of the video. The index may promise packets that end later, if the file was cut short.
        lost_keys: decoding time stamps of the promised key frames that end later.
        is_oversized: whether the index is damaged: a packet is larger than the pixels of its frame.
    """

    container: InputContainer
    stream: VideoStream
    size: int
    lost_keys: frozenset[int] = frozenset()
    is_oversized: bool = False

    def is_key(self, packet: av.Packet) -> bool:
        """Whether a packet is a key frame, or was one before it was lost."""
        return packet.is_keyframe or packet.dts in self.lost_keys

    def is_lost(self, packet: av.Packet) -> bool:
        """Whether a packet ends after the end of the file."""
        return packet.pos is not None and packet.pos + packet.size > self.size


class _Section:
    """A section of a file as a file for FFmpeg.

    FFmpeg may seek before the start of a damaged video. Then it gets the start: this must not look like failing
    storage.

    Attributes:
        size: bytes of the section.
        promised: bytes that it seems to have; those after its end are zeros.
    """

    def __init__(self, file: BinaryIO, start: int, size: int | None) -> None:
        self._file, self._start, self._position = file, start, 0
        stored = file.seek(0, io.SEEK_END) - start
        self.size = stored if size is None else min(size, stored)
        self.promised = self.size

    def read(self, count: int) -> bytes:
        stored = min(count, max(0, self.size - self._position))
        data = b""
        if stored:
            self._file.seek(self._start + self._position)
            data = self._file.read(stored)
        if len(data) == stored:
            data += bytes(max(0, min(count, self.promised - self._position) - stored))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.promised}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


@contextmanager
def open_video(uri: str, section: tuple[int, int | None], listed: storage.Entry | None = None) -> Iterator[OpenVideo]:
    """Open a video.

    Where the file was cut short, the packets that its index promises after the end are zeros: so each frame has its
    number and its time.

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
        data = _Section(file, *section)
        try:
            container = pyav.open(data, metadata_errors="replace", container_options={"format_whitelist": _FORMATS})
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
            for other in container.streams:  # else the end of the sound would be that of the video
                if other.index != stream.index:
                    other.discard = pyav.stream.Discard.all
            opened = OpenVideo(cast("InputContainer", container), stream, data.size)
            yield _promised(data, opened) if container.format.name.startswith("mov") else opened


def _promised(data: _Section, video: OpenVideo) -> OpenVideo:
    """Let a file that was cut short go on as its index says, as far as that can be true."""
    context = video.stream.codec_context
    largest = context.width * context.height * _BYTES_PER_PIXEL + _PACKET_OVERHEAD
    entries = video.stream.index_entries
    possible = [entry for entry in entries if 0 <= entry.size <= largest]  # FFmpeg's number of 30 bits overflows
    lost = [entry for entry in possible if entry.pos + entry.size > data.size]
    data.promised = min(max([data.size, *(entry.pos + entry.size for entry in lost)]), _LARGEST_PROMISE * data.size)
    keys = frozenset(entry.timestamp for entry in lost if entry.is_keyframe)
    return video._replace(lost_keys=keys, is_oversized=len(possible) < len(entries))


@contextmanager
def open_range(listed: storage.Entry, part: VideoRange) -> Iterator[tuple[OpenVideo, Iterator[av.Packet]]]:
    """The video of a shard, and its packets, those of the groups that it may refer to first.

    Reading starts at the anchor. Where the file has no index of all packets, FFmpeg may find another place, or give
    other time stamps there: it is tried from farther away, and at last the file is read from its start.
    """
    first, count = part.first_packet - part.lead_packets, part.lead_packets + part.num_packets
    with ExitStack() as stack:

        def search(seconds: float) -> tuple[OpenVideo, Iterator[av.Packet] | None]:
            video = stack.enter_context(open_video(listed.uri, part.section, listed))
            return video, _from_anchor(video, part, seconds)

        for seconds in () if part.anchor is None else (0,) if part.digest is None else _STEPS_BACK:
            video, packets = search(seconds)
            if packets is not None and part.digest is not None:
                is_right = _digest(islice(packets, count)) == part.digest
                video, packets = search(seconds) if is_right else (video, None)
            if packets is not None:
                yield video, islice(packets, count)
                return
        video = stack.enter_context(open_video(listed.uri, part.section, listed))
        yield video, islice(all_packets(video), first, first + count)


def _from_anchor(video: OpenVideo, part: VideoRange, seconds: float) -> Iterator[av.Packet] | None:
    """The packets of a range from its anchor on; None if the search, so many seconds before it, does not lead there."""
    pyav = load_av()
    assert part.anchor is not None
    assert video.stream.time_base is not None
    try:
        video.container.seek(part.anchor - round(seconds / video.stream.time_base), stream=video.stream)
    except pyav.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return None
    packets, passed = all_packets(video), 0
    for packet in packets:  # FFmpeg often finds an earlier key frame
        if video.is_key(packet):
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


def all_packets(video: OpenVideo) -> Iterator[av.Packet]:
    """The packets of the stream in the order of the file, until its end or to damage that FFmpeg cannot pass.

    Raises:
        MemoryError: from FFmpeg.
        OSError: the storage failed.
    """
    pyav = load_av()
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except pyav.error.FFmpegError as error:
            if isinstance(error, MemoryError) and not video.is_oversized:
                raise
            return
        if packet is None or packet.size == 0:
            return
        if packet.dts is not None or packet.pts is not None:
            yield packet


def groups(video: OpenVideo, packets: Iterable[av.Packet]) -> Iterator[tuple[list[av.Packet], bool]]:
    """The packets from each key frame until the next, and whether they end where all packets end."""
    group: list[av.Packet] = []
    for packet in packets:
        if video.is_key(packet) and group:
            yield group, False
            group = []
        group.append(packet)
    if group:
        yield group, True
