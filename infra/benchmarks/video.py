"""Measure the reading and annotation of videos: frames per second, and memory by length.

uv run infra/benchmarks/video.py clip.mp4
uv run infra/benchmarks/video.py *.mp4 --times 0 --rounds 5

The shards of a video are read and decoded to RGB in this process, one after another; PyAV alone decodes the same video
from first to last. The two alternate; the ratio is the median over the rounds. Then the networks of the default
settings annotate its first frames in this process, and the people are tracked. The table has frames per second. For the
memory, the packets of the first clip are written several times in a row into one video, which a fresh process reads.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np

from pipeline.annotator import Annotator, Picture
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings, Settings, TrackingSettings
from pipeline.sources import Item, plan_collection, read_shard
from pipeline.tracking.association import track_people
from pipeline.tracking.frames import FramePeople


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=100, help="annotated frames of each clip (default: 100)")
    parser.add_argument("--times", type=int, default=100, help="length of the long video, in clips (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the speed (default: 5)")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)  # what the fresh process does
    arguments = parser.parse_args()
    if arguments.only_memory:
        frames = _by_shards(arguments.clips[0])
        # Not getrusage: its maximum includes the process that started this one.
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        print(frames, int(peak) // 1024)
        return 0
    annotator = Annotator.from_settings(Settings())
    print("| clip | pixels | frames | decoded | of PyAV alone | annotated | people | tracked |")
    print("|---|---|---|---|---|---|---|---|")
    for clip in arguments.clips:
        print(_row(clip, annotator, arguments.rounds, arguments.frames))
    if not arguments.times:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, arguments.times):
            video = _repeated(arguments.clips[0], Path(folder) / f"{times}.mkv", times)
            done = subprocess.run(
                [sys.executable, __file__, str(video), "--only-memory"], capture_output=True, text=True, check=True
            )
            count, megabytes = done.stdout.split()
            print(f"{count} frames: peak memory {megabytes} MB")
    return 0


def _row(clip: Path, annotator: Annotator, rounds: int, most: int) -> str:
    """A line of the table."""
    ratios, seconds = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        frames = _alone(clip)
        middle = time.perf_counter()
        if _by_shards(clip) != frames:
            raise SystemExit(f"video: {clip} has frames that cannot be read")
        seconds.append(time.perf_counter() - middle)
        ratios.append((middle - start) / seconds[-1])
    start = time.perf_counter()
    images = [item.decode(DecodeLimits()).pixels for item in islice(_items(clip), most)]
    found = list(map(annotator.suppress, annotator.candidates(Picture(image, is_frame=True) for image in images)))
    annotated = len(images) / (time.perf_counter() - start)
    sigmas = np.array(annotator.poses.skeleton.oks_sigmas)
    seen = [
        FramePeople(i / 25, p.boxes, p.keypoints, p.keypoint_scores, p.box_scores) for i, p in enumerate(found)
    ]  # at 25 frames a second
    for _ in range(2):  # the first call loads scipy
        start = time.perf_counter()
        track_people(seen, sigmas, TrackingSettings())
    tracked = len(seen) / (time.perf_counter() - start)
    height, width = images[0].shape[:2]
    people = sum(map(len, found)) / len(found)
    return (
        f"| {clip.name} | {width}x{height} | {frames} | {frames / statistics.median(seconds):.0f} | "
        f"{statistics.median(ratios):.2f} | {annotated:.1f} | {people:.1f} | {tracked:.0f} |"
    )


def _alone(clip: Path) -> int:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for frame in container.decode(video=0) if frame.to_ndarray(format="rgb24").size)


def _by_shards(clip: Path) -> int:
    return sum(item.decode(DecodeLimits()).pixels.size > 0 for item in _items(clip))


def _items(clip: Path) -> Iterator[Item]:
    for position, shard in enumerate(plan_collection(InputSettings(uri=str(clip)))):
        yield from read_shard(shard.at(position))


def _repeated(clip: Path, target: Path, times: int) -> Path:
    """The packets of a clip, several times in a row."""
    with av.open(str(target), "w") as container:
        stream = None
        offset = 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or container.add_stream_from_template(video)
                end = offset
                for packet in source.demux(video):
                    if packet.size == 0 or packet.pts is None or packet.dts is None:
                        continue
                    end = max(end, packet.pts + offset + (packet.duration or 1))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    container.mux(packet)
                offset = end
    return target


if __name__ == "__main__":
    sys.exit(main())
