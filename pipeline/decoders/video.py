"""Groups of pictures of a video, decoded one by one: a key frame and the packets until the next.

FFmpeg, through PyAV, hands out frames after damage that differ from the undamaged ones without a mark. Therefore a
group with any sign of damage is refused as a whole: an error that FFmpeg raises or logs while it reads or decodes the
group, a packet or frame marked as corrupt, a frame that does not come, comes twice, or out of order. A changed byte
inside a packet may give none of these signs, in HEVC and VP9 nearly always: these formats have no checksums.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipeline.images import DecodedImage, DecodeLimits, ImageRefused, upright

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

_KEPT_BYTES = 128 << 20  # frames of a group; a larger group is decoded twice


def load_av() -> ModuleType:
    """PyAV, with FFmpeg's error messages for `logged_errors`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import av
    import av.logging

    if av.logging.get_level() != av.logging.ERROR:
        logging.getLogger("libav").setLevel(logging.CRITICAL + 1)  # nothing on stderr: they belong to rows
        av.logging.set_level(av.logging.ERROR)
    return av


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """Collects the error messages of FFmpeg in this thread."""
    from av.logging import Capture

    collected: list[str] = []
    with Capture(local=True) as messages:
        yield collected
    collected += [text.strip() for _, _, text in messages]


def time_stamp(packet: av.Packet) -> int:
    """The presentation time stamp of a packet, in units of its time base; the decoding time stamp without one."""
    stamp = packet.dts if packet.pts is None else packet.pts
    assert stamp is not None
    return stamp


@dataclass
class GroupOfPictures:
    """The packets of a group, and the frames that they become when one is asked for.

    Attributes:
        codec: of the stream: its parameters are those of the decoder.
        packets: in decoding order, all with time stamps; the first is a key frame.
        lead_in: the packets of the group before, if frames of this group refer to it (an open group); else empty.
        orientation: EXIF orientation 1..8 of the stream.
        wanted: time stamps of the frames that will be asked for.
        damage: an error in the container where it has the group; None without one.
        blamed: why the group must not be decoded; None if it may be.
    """

    codec: VideoCodecContext
    packets: Sequence[av.Packet]
    lead_in: Sequence[av.Packet]
    orientation: int
    wanted: Collection[int]
    damage: str | None = None
    blamed: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _refused: dict[int, str] | None = None
    _kept: dict[int, av.VideoFrame] = field(default_factory=dict)
    _again: Iterator[av.VideoFrame] | None = None

    def decode(self, stamp: int, limits: DecodeLimits) -> DecodedImage:
        """The frame with a time stamp, once.

        Raises:
            ImageRefused: the frame is larger than allowed, or its group is damaged.
        """
        width, height = self.codec.width, self.codec.height
        if width * height > limits.max_megapixels * 1e6:
            reason = f"{width} x {height} pixels are more than {limits.max_megapixels:g} megapixels"
            raise ImageRefused("too_large", reason, width, height)
        if self.blamed is not None:
            raise ImageRefused("unreadable", self.blamed, width, height)
        with self._lock:
            if self._refused is None:
                self._refused = self._check()
            if stamp in self._refused:
                raise ImageRefused("unreadable", self._refused[stamp], width, height)
            frame = self._take(stamp)
        pixels = upright(frame.to_ndarray(format="rgb24"), self.orientation)
        return DecodedImage(np.ascontiguousarray(pixels), self.orientation)

    def _take(self, stamp: int) -> av.VideoFrame:
        if stamp not in self._kept:
            self._again = self._again or self._frames(_Signs())
            for frame in self._again:
                assert frame.pts is not None
                if frame.pts in self.wanted:
                    self._kept[frame.pts] = frame
                if frame.pts == stamp:
                    break
        return self._kept.pop(stamp)

    def _check(self) -> dict[int, str]:
        """Decode the group once; returns the reasons for the frames that cannot be used, by time stamp.

        Frames that will be asked for are kept if they are few.
        """
        signs = _Signs(self.damage)
        size = 0
        for frame in self._frames(signs):
            assert frame.pts is not None
            if frame.pts in self.wanted and size <= _KEPT_BYTES:
                self._kept[frame.pts] = frame
                size += sum(plane.buffer_size for plane in frame.planes)
        if size > _KEPT_BYTES:
            self._kept.clear()
        stamps = {time_stamp(packet) for packet in self.packets if not packet.is_discard}
        leading = {stamp for stamp in stamps if stamp < time_stamp(self.packets[0])}
        lost = stamps - signs.came
        if signs.damage is None and lost - leading:
            signs.damage = f"{len(lost - leading)} of {len(stamps)} frames did not come"
        if signs.damage is not None:
            reason = f"damaged video, in this group of pictures: {signs.damage}"
            return dict.fromkeys(stamps, reason)
        if signs.lead_in_damage is not None:
            reason = f"refers to frames before it that are damaged: {signs.lead_in_damage}"
            return dict.fromkeys(leading, reason)
        return dict.fromkeys(lost & leading, "refers to frames before it that the video does not have")

    def _frames(self, signs: _Signs) -> Iterator[av.VideoFrame]:
        """The frames of the group in order of presentation; signs of damage are noted in `signs`."""
        pyav = load_av()
        decoder = cast("VideoCodecContext", pyav.CodecContext.create(self.codec.codec, "r"))
        decoder.extradata = self.codec.extradata
        decoder.width, decoder.height, decoder.pix_fmt = self.codec.width, self.codec.height, self.codec.pix_fmt
        decoder.thread_type = "NONE"  # results and errors never depend on the number of threads
        decoder.options = {"err_detect": "explode"}
        stamps = {time_stamp(packet) for packet in self.packets}
        # Without time stamps of presentation, the order of the frames is that of the decoding time stamps.
        in_order = iter(sorted(stamps)) if any(packet.pts is None for packet in self.packets) else None
        last: int | None = None
        packets: list[tuple[Any, bool]] = [(packet, True) for packet in self.lead_in]
        packets += [(packet, False) for packet in self.packets]
        for packet, leads_in in [*packets, (None, False)]:
            frames: Sequence[av.VideoFrame] = ()
            with logged_errors() as messages:
                try:
                    frames = decoder.decode(packet)
                except pyav.error.FFmpegError as error:
                    signs.note(f"a packet cannot be decoded ({error.strerror})", leads_in)
            if messages:
                signs.note(f"a packet cannot be decoded ({messages[0]})", leads_in)
            if packet is not None and packet.is_corrupt:
                signs.note("a packet is marked as corrupt", leads_in)
            for frame in frames:
                if in_order is not None:
                    frame.pts = next(in_order, None)
                leads_in = frame.pts not in stamps
                if frame.is_corrupt:
                    signs.note("a frame is marked as corrupt", leads_in)
                if frame.pts is None or leads_in:
                    continue
                if last is not None and frame.pts <= last:
                    signs.note("frames came twice or out of order", leads_in=False)
                    continue
                last = frame.pts
                signs.came.add(frame.pts)
                yield frame


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
