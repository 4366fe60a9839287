"""Small videos, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Container and codec with its options: key frames every 10 frames, B frames where the codec has them.
CLIPS = {
    "h264.mp4": ("libx264", {"g": "10", "bf": "3", "sc_threshold": "0"}),
    "h264.mov": ("libx264", {"g": "10", "bf": "0"}),
    "open.mp4": ("libx265", {"x265-params": "keyint=10:min-keyint=10:open-gop=1:bframes=4:log-level=none"}),
    "open264.mp4": ("libx264", {"x264-params": "keyint=10:min-keyint=10:open-gop=1:bframes=3:scenecut=0"}),
    "h264.mkv": ("libx264", {"g": "10", "bf": "3"}),
    "short.mkv": ("libx264", {"g": "2", "bf": "1"}),
    "vp9.webm": ("libvpx-vp9", {"g": "10", "lag-in-frames": "0", "deadline": "realtime"}),
    "h264.ts": ("libx264", {"g": "10", "bf": "3"}),
    "mpeg4.avi": ("mpeg4", {"g": "10"}),
    "h264.avi": ("libx264", {"g": "10", "bf": "3"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "10", "bf": "2"}),
}


def moving(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Frames that all differ: a pattern that moves, (height, width, 3) uint8 RGB."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    pattern = noise.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(pattern, (i, 3 * i), axis=(0, 1)) for i in range(count)]


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    rate: int = 30,
    rotation: int = 0,
) -> Path:
    """Write a video.

    Args:
        stamps: presentation time stamps in units of 1 / rate seconds; by default 0, 1, 2, ...
        rotation: of the display matrix, degrees counter-clockwise.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        for stamp, pixels in zip(stamps or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def index_first(source: Path, target: Path, sound: int = 0) -> Path:
    """Write an MP4 again with its index at its start.

    Args:
        sound: number of blocks of 1024 samples of noise; they begin ten seconds late, so that the pictures come first.
    """
    options = {"movflags": "faststart"}
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        sounds = new.add_stream("aac", rate=48000) if sound else None
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
        for number in range(sound):
            noise = np.random.default_rng(number).normal(0, 3000, (1, 2048)).astype(np.int16)
            block = av.AudioFrame.from_ndarray(noise, format="s16", layout="stereo")
            block.sample_rate, block.pts, block.time_base = 48000, 480_000 + number * 1024, Fraction(1, 48000)
            new.mux(sounds.encode(block))
        if sounds is not None:
            new.mux(sounds.encode(None))
    return target


def decoded(path: Path) -> list[tuple[int | None, np.ndarray]]:
    """All frames by PyAV alone, from first to last: time stamp and (H, W, 3) uint8 RGB, not rotated."""
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
