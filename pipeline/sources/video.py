"""Videos: each is cut into shards at key frames, and each of its frames is one item.

Frames are counted from the packets, never from the header. Where MP4 and QuickTime files have an index of all packets,
planning reads that alone; other files are read through once. Reading needs PyAV (`uv sync --extra video`).
"""

from __future__ import annotations

import io
import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, dropwhile, islice
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from pipeline import storage
from pipeline.decoders.video import GroupOfPictures, load_av, logged_errors, time_stamp
from pipeline.errors import UserError
from pipeline.images import DecodedImage, DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources.files import plan_files
from pipeline.sources.shard import EncodedImage, FramePosition, Item, PlannedShard, Shard, VideoRange, container_shard

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")

_DIGITS = 9  # of a frame's number in its key
_SEEK_BACK = (0.0, 1.0, 5.0, 30.0)  # seconds before the packet that is sought
# The first two rows of the display matrix (without their third column) to the EXIF orientation.
_ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip


def has_video_signature(head: bytes) -> bool:
    """Whether a file that starts with `head`, its first 16 bytes, claims to be MP4, QuickTime, Matroska or AVI."""
    is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide")
    return is_mp4 or head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


class _Indexed(NamedTuple):
    """One packet of a video.

    Attributes:
        anchor: its decoding time stamp; that of presentation without one.
        stamp: the time stamp of its frame; None if only the index was read.
        is_key: whether decoding can start here.
        is_shown: whether it becomes a frame; an edit list may hide it.
        error_after: whether FFmpeg reported damage of the container between it and the next.
    """

    anchor: int
    stamp: int | None
    is_key: bool
    is_shown: bool
    error_after: bool = False


@dataclass
class VideoFrame:
    """An item that is a frame of a video; see `Item`."""

    key: str
    uri: str
    position: FramePosition
    group: GroupOfPictures
    status: str = "ok"
    error: str | None = None
    sha256: str | None = None

    def decode(self, limits: DecodeLimits) -> DecodedImage:
        assert self.position.pts is not None
        return self.group.decode(self.position.pts, limits)

    def blame(self) -> None:
        self.group.blamed = f"not decoded: frame {self.position.frame} of the same group of pictures ended its process"


def plan_video(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """Shards of whole groups of pictures, of about `shard_size` frames each; a missing video is a loose file."""
    for key, entry in entries:
        try:
            shards = list(plan_section(key, entry, settings))
        except storage.MissingObject:
            shards = list(plan_files([(key, entry)], settings))
        yield from shards


def plan_section(
    key: str, entry: storage.Entry, settings: InputSettings, section: tuple[int, int | None] = (0, None)
) -> Iterator[PlannedShard]:
    """The shards of a video that is a section of a file.

    A video that cannot be opened, or has no frames, is planned as one item, which is unreadable.

    Args:
        key: of the video.
        entry: the file.
        section: first byte and number of bytes; None for all until the end of the file.

    Raises:
        storage.MissingObject: the file does not exist.
        UserError: PyAV is not installed.
    """
    try:
        ranges = list(_plan(entry.uri, settings, section))
    except _Unreadable as error:
        ranges = [VideoRange(frames=(0,), error=str(error))]
    for part in ranges:
        yield container_shard(key, entry, "video", len(part.frames), video=part)


def video_keys(shard: Shard) -> Iterator[str]:
    """The keys of the frames of a shard."""
    assert shard.video is not None
    if shard.video.error is not None:
        return iter(shard.keys)
    return (_key(shard.keys[0], frame) for frame in shard.video.frames)


def read_video(shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None) -> Iterator[Item]:
    """The frames of a shard in order of presentation, `key/number` each; with `wanted` keys, those alone.

    Packets are read here, and decoded when an item is.
    """
    (key,), (listed,), part = shard.keys, shard.entries, shard.video
    assert part is not None
    if part.error is not None:
        yield EncodedImage(key, listed.uri, None, "unreadable", part.error)
        return
    for position, group in _frames(key, listed, part):
        frame_key, uri = _key(key, position.frame), f"{listed.uri}#{position.frame:0{_DIGITS}d}"
        if wanted is not None and frame_key not in wanted:
            continue
        if group is None:
            yield EncodedImage(frame_key, uri, None, "unreadable", "the video ends before this frame", position)
        else:
            yield VideoFrame(frame_key, uri, position, group)


def _frames(
    video: str, listed: storage.Entry, part: VideoRange
) -> Iterator[tuple[FramePosition, GroupOfPictures | None]]:
    """The planned frames of a shard with their groups; without a group where the video ends early."""
    planned = dict.fromkeys(part.frames)
    number = part.first_frame
    with _open(listed.uri, part.section, listed) as (container, stream):
        before: Sequence[av.Packet] = ()
        for packets in _groups(islice(_packets_at(container, stream, part.anchor), part.num_packets)):
            shown = sorted((p for p in packets if not p.is_discard), key=time_stamp)
            chosen = {number + i: packet for i, packet in enumerate(shown) if number + i in planned}
            number += len(shown)
            is_open = bool(shown) and time_stamp(shown[0]) < time_stamp(packets[0])
            if is_open and not before and part.lead_in is not None:
                before = _lead_in(listed, part)
            stamps = {time_stamp(packet) for packet in chosen.values()}
            lead_in = before if is_open else ()
            group = GroupOfPictures(stream.codec_context, packets, lead_in, part.orientation, stamps)
            if _anchor(packets[0]) in part.damaged:
                group.damage = "the container is damaged, and packets may be missing"
            for frame, packet in chosen.items():
                del planned[frame]
                yield FramePosition(video, frame, *_time(packet, stream)), group
            before = packets
    for frame in planned:
        yield FramePosition(video, frame, None, None), None


def _time(packet: av.Packet, stream: VideoStream) -> tuple[int, float]:
    """Time stamp of a packet in units of the stream, and seconds since the start of the stream."""
    stamp = time_stamp(packet)
    assert stream.time_base is not None
    return stamp, float((stamp - (stream.start_time or 0)) * stream.time_base)


def _groups(packets: Iterable[av.Packet]) -> Iterator[list[av.Packet]]:
    """The packets from each key frame until the next."""
    group: list[av.Packet] = []
    for packet in packets:
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
    if group:
        yield group


def _lead_in(listed: storage.Entry, part: VideoRange) -> list[av.Packet]:
    """The packets of the group before a shard."""
    with _open(listed.uri, part.section, listed) as (container, stream):
        return next(_groups(_packets_at(container, stream, part.lead_in)), [])


def _packets_at(container: InputContainer, stream: VideoStream, anchor: int | None) -> Iterator[av.Packet]:
    """The packets from the one with this anchor on; from the start of the video if it is None.

    A container's seek may land behind the packet that is sought; then it is repeated from further ahead.
    """
    if anchor is None:
        yield from _packets(container, stream)
        return
    assert stream.time_base is not None
    starts = [anchor - int(seconds / stream.time_base) for seconds in _SEEK_BACK]
    for start in (*starts, stream.start_time or 0):
        container.seek(start, stream=stream)
        packets = _packets(container, stream)
        first = next(packets, None)
        if first is None or _anchor(first) > anchor:
            continue
        found = dropwhile(lambda packet: _anchor(packet) != anchor, chain([first], packets))
        if (sought := next(found, None)) is not None:
            yield sought
            yield from found
            return


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of the stream in the order of the file, until its end or to damage that FFmpeg cannot pass."""
    pyav = load_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except pyav.error.FFmpegError:
            return
        if packet is None or packet.size == 0:
            return
        if packet.dts is not None or packet.pts is not None:
            yield packet


def _anchor(packet: av.Packet) -> int:
    return time_stamp(packet) if packet.dts is None else packet.dts


def _plan(uri: str, settings: InputSettings, section: tuple[int, int | None]) -> Iterator[VideoRange]:
    """
    Raises:
        _Unreadable: it is no video, or a damaged one.
    """
    with _open(uri, section) as (container, stream):
        orientation = _orientation(container, stream)
    with _open(uri, section) as (container, stream):
        index = _index(container, stream, with_stamps=settings.video.fps is not None)
        time_base = stream.time_base
    chosen = _chosen(index, settings, time_base)
    if not chosen:
        raise _Unreadable("the video has no frames")
    first_packet = first_frame = 0
    lead_in: int | None = None
    damaged: list[int] = []
    keys = [i for i, packet in enumerate(index) if packet.is_key and i > 0]
    ends = [*keys, len(index)]
    ends_of_next = [*ends[1:], math.inf]
    for start, stop, following in zip([0, *keys], ends, ends_of_next, strict=True):
        if any(packet.error_after for packet in index[start:stop]):
            damaged.append(index[start].anchor)
        if following - first_packet <= settings.shard_size:
            continue
        shown = sum(packet.is_shown for packet in index[first_packet:stop])
        frames = tuple(chosen[bisect_left(chosen, first_frame) : bisect_left(chosen, first_frame + shown)])
        if frames:
            yield VideoRange(
                frames=frames,
                first_frame=first_frame,
                anchor=index[first_packet].anchor if first_packet else None,
                lead_in=lead_in,
                num_packets=stop - first_packet,
                orientation=orientation,
                damaged=tuple(damaged),
                section=section,
            )
        damaged = []
        first_packet, first_frame, lead_in = stop, first_frame + shown, index[start].anchor


def _index(container: InputContainer, stream: VideoStream, with_stamps: bool) -> list[_Indexed]:
    """All packets of the video in decoding order.

    Args:
        with_stamps: read the packets, also where the file has an index: it has no time stamps of presentation.
    """
    entries = stream.index_entries
    if not with_stamps and 0 < stream.frames == len(entries):
        return [_Indexed(entry.timestamp, None, entry.is_keyframe, not entry.is_discard) for entry in entries]
    index: list[_Indexed] = []
    packets = _packets(container, stream)
    while True:
        with logged_errors() as errors:
            packet = next(packets, None)
        if errors and index:
            index[-1] = index[-1]._replace(error_after=True)
        if packet is None:
            return index
        index.append(_Indexed(_anchor(packet), time_stamp(packet), packet.is_keyframe, not packet.is_discard))


def _chosen(index: Sequence[_Indexed], settings: InputSettings, time_base: Fraction | None) -> Sequence[int]:
    """The numbers of the frames to annotate, ascending."""
    count = sum(packet.is_shown for packet in index)
    fps = settings.video.fps
    if fps is None:
        return range(0, count, settings.video.every)
    assert time_base is not None
    stamps = sorted(packet.stamp for packet in index if packet.is_shown and packet.stamp is not None)
    # For each multiple of 1 / fps, the last frame until then; the first frame starts the clock.
    times = [(stamp - stamps[0]) * time_base for stamp in stamps]
    step = 1 / Fraction(fps)
    # Matroska rounds to milliseconds: a frame that is late by rounding alone is in time.
    rounding = min(time_base / 2, Fraction(1, 1000))
    numbers = (
        (bisect_right(times, k * step + rounding) - 1 for k in range(int((times[-1] + rounding) / step) + 1))
        if times
        else ()
    )
    return list(dict.fromkeys(numbers))


def _orientation(container: InputContainer, stream: VideoStream) -> int:
    """The EXIF orientation by the display matrix of the first frame that can be decoded; 1 without one."""
    pyav = load_av()
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except pyav.error.FFmpegError:
            continue
        for frame in frames:
            side_data: Any = frame.side_data
            matrix = next((data for data in side_data if data.type.name == "DISPLAYMATRIX"), None)
            if matrix is None:
                return 1
            a, b, _, c, d = struct.unpack_from("<5i", bytes(matrix))
            return _ORIENTATIONS.get(tuple((n > 0) - (n < 0) for n in (a, b, c, d)), 1)
    return 1


def _key(video: str, frame: int) -> str:
    return f"{video}/{frame:0{_DIGITS}d}"


class _Unreadable(Exception):
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
def _open(
    uri: str, section: tuple[int, int | None], listed: storage.Entry | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video.

    Args:
        section: first byte and number of bytes in the file; None for all until its end.

    Raises:
        _Unreadable: FFmpeg cannot open it, or it has no video stream.
        OSError: the storage failed.
    """
    try:
        pyav = load_av()
    except ModuleNotFoundError:
        raise UserError(f"{uri} is a video, and videos need PyAV; install it by `uv sync --extra video`") from None
    with storage.open_read(uri, listed=listed) as file:
        try:
            container = pyav.open(_Section(file, *section))
        except pyav.error.FFmpegError as error:
            raise _Unreadable(f"not a video that FFmpeg can open: {error.strerror}") from None
        with container:
            covers = pyav.stream.Disposition.attached_pic
            videos = [s for s in container.streams.video if not s.disposition & covers]
            if not videos:
                raise _Unreadable("the file has no video stream")
            stream = max(videos, key=lambda s: s.codec_context.width * s.codec_context.height if s.codec_context else 0)
            if stream.codec_context is None:
                raise _Unreadable("FFmpeg has no decoder for its video")
            yield cast("InputContainer", container), stream
