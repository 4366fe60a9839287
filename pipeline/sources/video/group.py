"""Groups of pictures of a video, decoded one by one: a key frame and the packets until the next.

FFmpeg hands out frames after damage that differ from the undamaged ones without a mark. Therefore a group with any sign
of damage is refused as a whole: an error that FFmpeg raises or logs while it reads or decodes the group, a packet or
frame marked as corrupt, a frame that does not come, comes twice, or out of order. A changed byte inside a packet, or a
packet that is missing where the container shows no gap, may give none of these signs: these formats have no checksums.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.images import DecodedImage, DecodeLimits, ImageRefused, upright
from pipeline.process.deadline import restart_deadline
from pipeline.sources.video.ffmpeg import load_av, logged_errors, time_stamp

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

# Of the groups before an open one, the last holds the frames that it refers to. The leading frames of that group refer
# to the one before it; without it H.264 goes on with errors after them.
LEAD_GROUPS = 2
_KEPT_BYTES = 128 << 20  # frames of a group; a larger group is decoded twice
# The first two rows of the display matrix (without their third column) to the EXIF orientation.
_ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip


class Decoder:
    """The decoder of a stream, which one group uses at a time."""

    def __init__(self, context: VideoCodecContext, limits: DecodeLimits) -> None:
        """
        Args:
            context: of the stream, not yet open: it has all parameters that the container states.
            limits: frames with more pixels are not decoded.
        """
        self.context = context
        self.lock = threading.Lock()
        # What it does now: compared by identity. It must not refer to the group, which refers to it: such a cycle holds
        # hundreds of megabytes until it is collected.
        self.task = object()
        self.orientations: dict[int, int] = {}  # of frames that were seen, by their rotation in degrees
        context.thread_type = "NONE"  # errors come with the packet that has them
        context.options = {"err_detect": "explode", "max_pixels": str(int(limits.max_megapixels * 1e6))}


@dataclass(eq=False)
class GroupOfPictures:
    """The packets of a group, and the frames that they become when one is asked for.

    Attributes:
        decoder: of the stream.
        packets: in decoding order, all with time stamps; the first is a key frame, if the group is not damaged.
        lead_in: the packets of the groups before, if frames of this group refer to the last of them (an open group);
            else empty.
        wanted: time stamps of the frames that will be asked for.
        is_counted: whether the time stamps are those of decoding, so that the order of the frames alone counts.
        damage: an error in the container where it has the group; None without one.
        blamed: why the group must not be decoded; None if it may be.
    """

    decoder: Decoder
    packets: Sequence[av.Packet]
    lead_in: Sequence[Sequence[av.Packet]]
    wanted: Collection[int]
    is_counted: bool = False
    damage: str | None = None
    blamed: str | None = None
    _refused: dict[int, str] | None = None
    _kept: dict[int, av.VideoFrame] = field(default_factory=dict)
    _last_wanted: int | None = None
    _task: object = None  # of the decoder, when it last decoded this group
    _again: Iterator[av.VideoFrame] = field(default_factory=lambda: iter(()))

    def decode(self, stamp: int, limits: DecodeLimits) -> DecodedImage:
        """The frame with a time stamp.

        Raises:
            ImageRefused: the frame is larger than allowed, or its group is damaged.
        """
        width, height = self.decoder.context.width, self.decoder.context.height
        if width * height > limits.max_megapixels * 1e6:
            reason = f"{width} x {height} pixels are more than {limits.max_megapixels:g} megapixels"
            raise ImageRefused("too_large", reason, width, height)
        if self.blamed is not None:
            raise ImageRefused("unreadable", self.blamed, width, height)
        with self.decoder.lock:
            if self._refused is None:
                self._refused = self._check()
            if stamp in self._refused:
                raise ImageRefused("unreadable", self._refused[stamp], width, height)
            frame = self._take(stamp)
        try:
            # Once: PyAV's side data refers to its frame and the frame to it, so that neither is freed until the garbage
            # collector comes, which is seldom in a process with many objects.
            if frame.rotation not in self.decoder.orientations:
                self.decoder.orientations[frame.rotation] = _orientation(frame)
            orientation = self.decoder.orientations[frame.rotation]
            pixels = upright(frame.to_ndarray(format="rgb24"), orientation)
        except ValueError as error:  # a pixel format without a conversion, or one that is not known
            raise ImageRefused("unreadable", f"its pixels cannot be converted: {error}", width, height) from None
        return DecodedImage(np.ascontiguousarray(pixels), orientation)

    def _take(self, stamp: int) -> av.VideoFrame:
        """A frame that was kept, or from the group decoded again, from where the last call stopped if it can."""
        if stamp in self._kept:
            return self._kept.pop(stamp)
        for _ in range(2):
            if self.decoder.task is self._task:
                for frame in self._again:
                    if frame.pts == stamp:
                        if stamp == self._last_wanted:
                            self._again = iter(())  # it refers to this group, and would keep it alive
                        return frame
            self._again, self._last_wanted = self._frames(_Signs()), max(self.wanted)
        raise ImageRefused("unreadable", "the frame did not come when its group was decoded again")

    def _check(self) -> dict[int, str]:
        """Decode the group once; returns the reasons for the frames that cannot be used, by time stamp.

        Frames that will be asked for are kept if they are few.
        """
        stamps = {time_stamp(packet) for packet in self.packets if not packet.is_discard}
        if self.damage is not None:
            return _refused(stamps, self.damage)
        signs, size = _Signs(), 0
        for frame in self._frames(signs):
            if frame.pts is not None and frame.pts in self.wanted and size <= _KEPT_BYTES:
                self._kept[frame.pts] = frame
                size += sum(plane.buffer_size for plane in frame.planes)
        if size > _KEPT_BYTES:
            self._kept.clear()
        leading = {time_stamp(packet) for packet in self.packets if _leads(packet, self.packets)} & stamps
        lost = stamps - signs.came
        if not self.packets[0].is_keyframe:
            signs.damage = "its key frame is lost"
        if signs.damage is None and lost - leading:
            signs.damage = f"{len(lost - leading)} of {len(stamps)} frames did not come"
        if signs.damage is not None:
            return _refused(stamps, signs.damage)
        if signs.lead_in_damage is not None:
            reason = f"refers to frames before it that are damaged: {signs.lead_in_damage}"
            return dict.fromkeys(leading, reason)
        return dict.fromkeys(lost & leading, "refers to frames before it that the video does not have")

    def _frames(self, signs: _Signs) -> Iterator[av.VideoFrame]:
        """The frames of the group in order of presentation; signs of damage are noted in `signs`."""
        pyav = load_av()
        context = self.decoder.context
        if context.is_open:
            context.flush_buffers()
        self._task = self.decoder.task = object()
        stamps = {time_stamp(packet) for packet in self.packets}
        in_order = iter(sorted(stamps)) if self.is_counted else None
        last: int | None = None
        # Errors of the first group of several mean nothing: it may refer to others, which are not decoded.
        packets: list[tuple[Any, bool, bool]] = [
            (
                packet,
                True,
                group is self.lead_in[-1] and (len(self.lead_in) == LEAD_GROUPS or not _leads(packet, group)),
            )
            for group in self.lead_in
            for packet in group
        ]
        packets += [(packet, False, True) for packet in self.packets]
        for packet, leads_in, counts in [*packets, (None, False, True)]:
            restart_deadline()  # the time limit of an image holds for each frame, not for the group
            frames: Sequence[av.VideoFrame] = ()
            with logged_errors() as messages:
                try:
                    frames = context.decode(packet)
                except pyav.error.FFmpegError as error:
                    if isinstance(error, MemoryError):
                        raise
                    messages.append(str(error.strerror))
            if messages and counts:
                signs.note(f"a packet cannot be decoded ({messages[0]})", leads_in)
            if packet is not None and packet.is_corrupt and counts:
                signs.note("a packet is marked as corrupt", leads_in)
            for frame in frames:
                if in_order is not None:
                    frame.pts = next(in_order, None)
                belongs = frame.pts in stamps
                if frame.is_corrupt and (belongs or counts):
                    signs.note("a frame is marked as corrupt", not belongs)
                if frame.pts is None or not belongs:
                    continue
                if last is not None and frame.pts <= last:
                    signs.note("frames came twice or out of order", leads_in=False)
                    continue
                last = frame.pts
                signs.came.add(frame.pts)
                yield frame


def _refused(stamps: Iterable[int], damage: str) -> dict[int, str]:
    reason = f"damaged video, so the frames from one key frame to the next are refused: {damage}"
    return dict.fromkeys(stamps, reason)


def _leads(packet: av.Packet, group: Sequence[av.Packet]) -> bool:
    """Whether a frame is shown before the key frame of its group: it may refer to the group before."""
    return time_stamp(packet) < time_stamp(group[0])


def _orientation(frame: av.VideoFrame) -> int:
    """The EXIF orientation of the display matrix that the container states; 1 without one, and for other angles."""
    side_data: Any = frame.side_data
    matrix = next((data for data in side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return 1
    a, b, _, c, d = struct.unpack_from("<5i", bytes(matrix))
    return _ORIENTATIONS.get(tuple((n > 0) - (n < 0) for n in (a, b, c, d)), 1)


@dataclass
class _Signs:
    """What happened while a group was decoded: the first sign of damage in it and in its lead-in, and what came."""

    damage: str | None = None
    lead_in_damage: str | None = None
    came: set[int] = field(default_factory=set)

    def note(self, damage: str, leads_in: bool) -> None:
        if leads_in:
            self.lead_in_damage = self.lead_in_damage or damage
        else:
            self.damage = self.damage or damage
