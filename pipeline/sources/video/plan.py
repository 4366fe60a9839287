"""Videos to shards of whole groups of pictures.

Frames are counted from the packets, never from the header. Where MP4 and QuickTime files have an index of all packets,
planning reads that alone; other files are read through once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from pipeline import storage
from pipeline.settings.tree import InputSettings
from pipeline.sources.files import plan_files
from pipeline.sources.shard import PlannedShard, VideoRange, container_shard
from pipeline.sources.video.container import OpenVideo, Unreadable, all_packets, digest_of, open_video
from pipeline.sources.video.ffmpeg import logged_errors, time_stamp
from pipeline.sources.video.group import LEAD_GROUPS

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")

_LONG_GROUP = 5000  # frames
_MOST_PIECES = 16


class _Indexed(NamedTuple):
    """One packet of a video.

    Attributes:
        anchor: its decoding time stamp in the index of the file; without an index that of its frame.
        stamp: the time stamp of its frame; None if the index alone was read.
        size: bytes; None if the index alone was read.
        is_key: whether decoding can start here.
        is_shown: whether it becomes a frame; an edit list may hide it.
        error_after: whether FFmpeg reported damage of the container between it and the next.
    """

    anchor: int
    stamp: int | None
    size: int | None
    is_key: bool
    is_shown: bool
    error_after: bool = False


def plan_video(entries: Iterable[tuple[str, storage.Entry]], settings: InputSettings) -> Iterator[PlannedShard]:
    """Shards of whole groups of pictures, of about `shard_size` frames each.

    A video that is missing, or may not be read, is a loose file.
    """
    for key, entry in entries:
        try:
            # The entry of a list has no size and no tag yet, by which a change would be noticed.
            found = storage.stat(entry.uri) if entry.size < 0 else entry
            shards = list(plan_section(key, found, settings))
        except (storage.MissingObject, PermissionError):
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
    except Unreadable as error:
        ranges = [VideoRange(frames=(0,), error=str(error))]
    for part in ranges:
        yield container_shard(key, entry, "video", len(part.frames), video=part)


def _plan(uri: str, settings: InputSettings, section: tuple[int, int | None]) -> Iterator[VideoRange]:
    """
    Raises:
        Unreadable: it is no video, or a damaged one.
    """
    with open_video(uri, section) as video:
        index = _index(video, with_stamps=settings.video.fps is not None)
        time_base = video.stream.time_base
    # The first packet of each group, and the end.
    bounds = [0, *(i for i, packet in enumerate(index) if packet.is_key and i > 0), len(index)]
    chosen = _chosen(index, bounds, settings, time_base)
    if not chosen:
        raise Unreadable("the video has no frames")
    video_frames = sum(packet.is_shown for packet in index)
    places = Counter(packet.anchor for packet in index if packet.is_key)  # some repeat where videos were joined
    first = first_frame = 0  # group and frame of the next shard
    for last in range(1, len(bounds)):
        if last + 1 < len(bounds) and bounds[last + 1] - bounds[first] <= settings.shard_size:
            continue
        shown = sum(packet.is_shown for packet in index[bounds[first] : bounds[last]])
        frames = tuple(chosen[bisect_left(chosen, first_frame) : bisect_left(chosen, first_frame + shown)])
        lead = max(first - LEAD_GROUPS, 0)
        read = index[bounds[lead] : bounds[last]]
        has_anchor = lead > 0 and places[read[0].anchor] == 1
        pieces = 1
        if last == first + 1:  # of a long group, so that several workers annotate it; each decodes all of it
            pieces = min(_MOST_PIECES, max(1, -(-len(frames) // _LONG_GROUP)))
        for piece in range(pieces if frames else 0):
            yield VideoRange(
                frames=frames[piece * len(frames) // pieces : (piece + 1) * len(frames) // pieces],
                video_frames=video_frames,
                first_frame=first_frame,
                first_packet=bounds[first],
                lead_packets=bounds[first] - bounds[lead],
                num_packets=bounds[last] - bounds[first],
                anchor=read[0].anchor if has_anchor else None,
                digest=_digest(read) if has_anchor else None,
                damaged=tuple(
                    start
                    for start, stop in pairwise(bounds[first : last + 1])
                    if any(packet.error_after for packet in index[start:stop])
                ),
                section=section,
            )
        first, first_frame = last, first_frame + shown


def _digest(packets: Sequence[_Indexed]) -> int | None:
    """Of packets, where the file has no index of them."""
    if packets[0].size is None:
        return None
    return digest_of((packet.anchor, packet.size or 0, packet.is_key) for packet in packets)


def _index(video: OpenVideo, with_stamps: bool) -> list[_Indexed]:
    """All packets of the video in decoding order.

    Args:
        with_stamps: read the packets, also where the file has an index: it has no time stamps of presentation.
    """
    entries = video.stream.index_entries
    is_mov = video.container.format.name.startswith("mov")
    if is_mov and not with_stamps and 0 < video.stream.frames == len(entries):
        return [_Indexed(entry.timestamp, None, None, entry.is_keyframe, not entry.is_discard) for entry in entries]
    index: list[_Indexed] = []
    packets = all_packets(video)
    while True:
        with logged_errors() as errors:
            packet = next(packets, None)
        if errors and index and not (packet is not None and video.is_lost(packet)):
            index[-1] = index[-1]._replace(error_after=True)
        if packet is None:
            return index
        stamp = time_stamp(packet)
        index.append(_Indexed(stamp, stamp, packet.size, packet.is_keyframe, not packet.is_discard))


def _chosen(
    index: Sequence[_Indexed], bounds: Sequence[int], settings: InputSettings, time_base: Fraction | None
) -> Sequence[int]:
    """The numbers of the frames to annotate, ascending."""
    fps = settings.video.fps
    if fps is None:
        return range(0, sum(packet.is_shown for packet in index), settings.video.every)
    assert time_base is not None
    stamps: list[int] = []  # in the order of the numbers: group by group
    for start, stop in pairwise(bounds):
        stamps += sorted(p.stamp for p in index[start:stop] if p.is_shown and p.stamp is not None)
    # Matroska rounds to milliseconds: a frame that is late by rounding alone is in time.
    rounding = min(time_base / 2, Fraction(1, 1000))
    return frames_at([stamp * time_base for stamp in stamps], fps, rounding)


def frames_at(times: Sequence[Fraction], fps: float, rounding: Fraction = Fraction(0)) -> list[int]:
    """For each multiple of 1 / fps, the number of the last frame until then; the first frame starts the clock.

    Args:
        times: of the frames, seconds, ascending.
        rounding: by how much a frame may be late.
    """
    points = [math.ceil((time - times[0] - rounding) * Fraction(fps)) for time in times]
    # A frame is the last until a point if the next frame comes after that point; the clock stops with the last frame.
    end = math.floor((times[-1] - times[0] + rounding) * Fraction(fps)) + 1 if times else 0
    return [i for i, (point, following) in enumerate(pairwise([*points, end])) if following > point]
