"""Measure what scheduling and storage cost, with networks that sleep instead of computing.

  uv run infra/scale.py workers          1, 2 and 4 workers on 64 shards of 1,000 images, against the time slept
  uv run infra/scale.py shards           the driver's CPU time and memory against 10,000 and 100,000 shards
  uv run infra/scale.py workers --shards 16 --images 500 --milliseconds 4

Workers are those of the job but for their networks: they read, decode, wait their turn, encode and write. The overhead
is the time from the first to the last image over what the slowest worker slept. Sleeping needs no cores, so more
workers than cores can be measured, as long as reading and decoding leave them time.
"""

from __future__ import annotations

import argparse
import io
import logging
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from pipeline.annotator import Annotator
from pipeline.fleet import Stop, annotate_run, scheduler
from pipeline.fleet.display import Display
from pipeline.fleet.worker import SHARDS_AT_A_TIME, Worker
from pipeline.parts import PartWriter
from pipeline.people import People
from pipeline.process.stopwatch import Stopwatch
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.progress import Progress
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS
from pipeline.sources import PlannedShard, Shard, write_manifest

SKELETON = SKELETONS["coco17"]
_BATCH = 50


class SleepingAnnotator(Annotator):
    """Sleeps so long for each image, a batch at a time, and finds two people."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.slept = 0.0
        self.stopwatch = Stopwatch()
        self.poses: Any = SimpleNamespace(skeleton=SKELETON, head=SimpleNamespace(kind="none"), describe=list)
        self.compute: Any = SimpleNamespace(describe=dict, peak_megabytes=lambda: 0.0)

    def candidates(self, images: Iterable[Any]) -> Iterator[People]:
        r = np.random.default_rng(0)
        people = People(r.random((2, 4)), r.random(2), r.random((2, 17, 2)), r.random((2, 17)), r.random(2))
        count = 0
        for count, _ in enumerate(images, 1):
            if count % _BATCH == 0:
                self._sleep(_BATCH)
            yield people
        self._sleep(count % _BATCH)

    def suppress(self, candidates: People) -> People:
        return candidates

    def _sleep(self, images: int) -> None:
        began = time.perf_counter()
        time.sleep(images * self._seconds)
        self.slept += time.perf_counter() - began


class SleepingWorker(Worker):
    """The job's worker without its networks."""

    def start(self, run: Run, threads: int, given: Precomputed) -> None:
        self._limit = 1 << 62
        self._writer = PartWriter(run, SleepingAnnotator(_SECONDS_PER_IMAGE))

    def annotate(self, shard: Shard, poison: Any, isolated: bool) -> Iterator[Progress]:
        yield Progress()  # the clock starts with the first shard
        yield from super().annotate(shard, poison, isolated)
        done = shard.num_images
        yield Progress(done, 2 * done, {"ok": done}, seconds={"slept": self._writer.annotator.slept})  # type: ignore[attr-defined]


class IdleWorker(SleepingWorker):
    """Says at once that a shard is done."""

    def annotate(self, shard: Shard, poison: Any, isolated: bool) -> Iterator[Progress]:
        yield Progress(shard.num_images, 2 * shard.num_images, {"ok": shard.num_images}, peak_megabytes=1.0)


_SECONDS_PER_IMAGE = 0.005


class Clock(Display):
    """The time from the first report to the last."""

    first = last = 0.0
    slept = 0.0

    def hear(self, progress: Progress) -> None:
        self.first = self.first or time.perf_counter()
        self.last = time.perf_counter()
        self.slept = max(self.slept, progress.seconds.get("slept", 0.0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["workers", "shards"])
    parser.add_argument("--shards", type=int, default=64, help="of workers (default: 64)")
    parser.add_argument("--images", type=int, default=1000, help="of a shard (default: 1000)")
    parser.add_argument("--milliseconds", type=float, default=5.0, help="slept for an image (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median overhead counts (default: 3)")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if told.what == "workers":
            _workers(Path(name), told.shards, told.images, told.milliseconds / 1000, told.rounds)
        else:
            _shards(Path(name))
    return 0


def _workers(folder: Path, shards: int, images: int, seconds: float, rounds: int) -> None:
    _write_archives(folder / "in", shards, images)
    print(f"{shards} shards of {images} images, {1000 * seconds:g} ms slept for each, {rounds} rounds")
    print("workers   images/s   overhead: median   least    most")
    for workers in (1, 2, 4):
        overheads, rates = [], []
        for number in range(rounds):
            run = Run.create(_settings(folder / "in", folder / f"run{workers}.{number}", workers))
            clock, _, _ = _annotate(run, SleepingWorker, seconds)
            took = clock.last - clock.first
            overheads.append(took / clock.slept - 1)
            rates.append(shards * images / took)
        middle, least, most = statistics.median(overheads), min(overheads), max(overheads)
        print(f"{workers:7d} {statistics.median(rates):10.0f} {middle:18.1%} {least:7.1%} {most:7.1%}", flush=True)


def _shards(folder: Path) -> None:
    print(" shards   seconds   driver's CPU seconds   ms of CPU a shard   driver's peak memory")
    for count in (10_000, 100_000):
        settings = _settings(folder, folder / f"run{count}", 2)
        run = Run.create(settings)
        write_manifest(run.manifest_uri, _planned(count))
        clock, cpu, peak = _annotate(run, IdleWorker, 0.0)
        took = clock.last - clock.first
        print(f"{count:7d} {took:9.1f} {cpu:22.1f} {1000 * cpu / count:19.2f} {peak:20.0f} MB", flush=True)


def _annotate(run: Run, worker: type[Worker], seconds: float) -> tuple[Clock, float, float]:
    """The clock, CPU seconds of the driver, and its peak memory in megabytes."""
    import ray  # after pipeline, which tells it to start workers without uv

    global _SECONDS_PER_IMAGE
    _SECONDS_PER_IMAGE = seconds
    manifest = run.plan()
    # Sleeping needs no cores, whatever this machine has.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        scheduler.WorkerActor = ray.remote(max_restarts=0, max_concurrency=SHARDS_AT_A_TIME)(worker)
        before = time.process_time()
        clock = Clock()
        annotate_run(run, manifest, clock, Stop())
        cpu = time.process_time() - before
    finally:
        ray.shutdown()
    return clock, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _settings(source: Path, output: Path, workers: int) -> Settings:
    return Settings.model_validate(
        {
            "input": str(source),
            "output": str(output),
            "detector": {"name": "whole_image"},
            "pose": {"weights": None},
            "fleet": {"workers": workers, "cpus_per_worker": 1},
        }
    )


def _planned(count: int) -> Iterator[PlannedShard]:
    for number in range(count):
        key = f"{number:08d}.tar"
        yield PlannedShard(
            kind="tar", keys=(key,), uris=(f"s3://bucket/{key}",), sizes=(10**8,), etags=("x",), num_images=1000
        )


def _write_archives(folder: Path, shards: int, images: int) -> None:
    folder.mkdir()
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(sink, "JPEG")
    data = sink.getvalue()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:04d}.tar", "w") as archive:
            for number in range(images):
                info = tarfile.TarInfo(f"{number:06d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    sys.exit(main())
