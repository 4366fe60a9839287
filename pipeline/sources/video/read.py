"""The frames of a shard of a video. Packets are read here, and decoded when an item is."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.decoders.jpeg import decode_jpeg
from pipeline.images import DecodedImage, DecodeLimits, JpegDecoder
from pipeline.sources.shard import EncodedImage, FramePosition, Item, Shard, VideoRange
from pipeline.sources.video.container import Unreadable, groups, open_range
from pipeline.sources.video.ffmpeg import time_stamp
from pipeline.sources.video.group import LEAD_GROUPS, Decoder, GroupOfPictures

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

_CONTAINER_DAMAGE = "the container is damaged, and packets may be missing"
_CUT_SHORT = "the file is shorter than its index says"


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

    def decode(self, limits: DecodeLimits, jpeg_decoder: JpegDecoder = decode_jpeg) -> DecodedImage:
        assert self.position.pts is not None
        return self.group.decode(self.position.pts, limits)

    def blame(self) -> None:
        self.group.blamed = (
            f"not decoded: frame {self.position.frame}, which is decoded together with it, ended its process (crash, "
            "lack of memory, or longer than --fleet.image_seconds)"
        )


def video_keys(shard: Shard) -> Iterator[str]:
    """The keys of the frames of a shard."""
    assert shard.video is not None
    if shard.video.error is not None:
        return iter(shard.keys)
    return (_key(shard.keys[0], frame) for frame in shard.video.frames)


def read_video(shard: Shard, limits: DecodeLimits, wanted: Collection[str] | None = None) -> Iterator[Item]:
    """The frames of a shard in order of presentation, `key/number` each; with `wanted` keys, those alone.

    Raises:
        OSError: the storage failed.
        storage.ChangedObject: the video has changed since it was planned.
    """
    (key,), (listed,), part = shard.keys, shard.entries, shard.video
    assert part is not None
    if part.error is not None:
        yield EncodedImage(key, listed.uri, None, "unreadable", part.error)
        return
    start = f"{listed.uri}#"
    if part.section[1] is not None:  # a member of an archive
        start += key.partition(f"{storage.basename(listed.uri)}/")[2] + "/"
    numbers = [number for number in part.frames if wanted is None or _key(key, number) in wanted]
    for position, group in _frames(key, listed, part, numbers, limits):
        number = position.frame
        frame_key, frame_uri = _key(key, number), f"{start}{_digits(number)}"
        if group is None:
            yield EncodedImage(frame_key, frame_uri, None, "unreadable", "the video ends before this frame", position)
        else:
            yield VideoFrame(frame_key, frame_uri, position, group)


def _frames(
    video: str, listed: storage.Entry, part: VideoRange, numbers: Sequence[int], limits: DecodeLimits
) -> Iterator[tuple[FramePosition, GroupOfPictures | None]]:
    """Some frames of a shard with their groups; without a group where the video ends early."""
    planned = dict.fromkeys(numbers)
    number, ordinal = part.first_frame, part.first_packet - part.lead_packets
    try:
        with open_range(listed, part) as (opened, packets):
            decoder = Decoder(opened.stream.codec_context, limits)
            is_counted = opened.container.format.name == "avi"
            before: deque[list[av.Packet]] = deque(maxlen=LEAD_GROUPS)
            for group_packets, is_last in groups(opened, packets):
                first, ordinal = ordinal, ordinal + len(group_packets)
                if is_last and ordinal < part.first_packet + part.num_packets:
                    break  # which of the frames of this group are missing is not known
                if first >= part.first_packet:
                    shown = sorted((p for p in group_packets if not p.is_discard), key=time_stamp)
                    chosen = {number + i: packet for i, packet in enumerate(shown) if number + i in planned}
                    number += len(shown)
                    is_open = bool(shown) and time_stamp(shown[0]) < time_stamp(group_packets[0])
                    stamps = {time_stamp(packet) for packet in chosen.values()}
                    lead_in = tuple(before) if is_open and not is_counted else ()
                    damage = _CONTAINER_DAMAGE if first in part.damaged else None
                    if any(map(opened.is_lost, group_packets)):
                        damage = _CUT_SHORT
                    group = GroupOfPictures(decoder, group_packets, lead_in, stamps, is_counted, damage)
                    for frame, packet in chosen.items():
                        del planned[frame]
                        yield FramePosition(video, frame, *_time(packet, opened.stream)), group
                before.append(group_packets)
    except Unreadable:  # it could be opened when it was planned: damage that FFmpeg meets by chance
        pass
    for frame in planned:
        yield FramePosition(video, frame, None, None), None


def _time(packet: av.Packet, stream: VideoStream) -> tuple[int, float]:
    """Time stamp of a packet in units of the stream, and seconds since the start of the stream."""
    stamp = time_stamp(packet)
    assert stream.time_base is not None
    return stamp, float((stamp - (stream.start_time or 0)) * stream.time_base)


def _key(video: str, frame: int) -> str:
    return f"{video}/{_digits(frame)}"


def _digits(frame: int) -> str:
    return f"{frame:09d}"
