"""Measure the reading of videos: speed relative to PyAV alone, and memory by length.

uv run infra/benchmarks/video.py clip.mp4
uv run infra/benchmarks/video.py clip.mp4 --times 100 --rounds 5

The shards of a video are read and decoded to RGB in this process, one after another; PyAV alone decodes the same video
from first to last. The two alternate; the ratio is the median over the rounds. For the memory, the packets of the clip
are written several times in a row into one video, which a fresh process reads.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources import plan_collection, read_shard


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--times", type=int, default=100, help="length of the long video, in clips (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the speed (default: 5)")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)  # what the fresh process does
    arguments = parser.parse_args()
    if arguments.only_memory:
        frames = _by_shards(arguments.clip)
        print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return 0
    ratios, seconds = [], []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        frames = _alone(arguments.clip)
        middle = time.perf_counter()
        if _by_shards(arguments.clip) != frames:
            raise SystemExit(f"video: {arguments.clip} has frames that cannot be read")
        seconds.append(time.perf_counter() - middle)
        ratios.append((middle - start) / seconds[-1])
    print(f"{frames} frames, {frames / statistics.median(seconds):.0f} frames/s by shards")
    print(f"speed relative to PyAV alone: {statistics.median(ratios):.2f} (median of {arguments.rounds} rounds)")
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, arguments.times):
            video = _repeated(arguments.clip, Path(folder) / f"{times}.mkv", times)
            done = subprocess.run(
                [sys.executable, __file__, str(video), "--only-memory"], capture_output=True, text=True, check=True
            )
            count, megabytes = done.stdout.split()
            print(f"{count} frames: peak memory {megabytes} MB")
    return 0


def _alone(clip: Path) -> int:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for frame in container.decode(video=0) if frame.to_ndarray(format="rgb24").size)


def _by_shards(clip: Path) -> int:
    limits, frames = DecodeLimits(), 0
    for position, shard in enumerate(plan_collection(InputSettings(uri=str(clip)))):
        for item in read_shard(shard.at(position)):
            frames += item.decode(limits).pixels.size > 0
    return frames


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
