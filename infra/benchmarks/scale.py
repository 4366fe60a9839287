"""Measure the overhead of scheduling and storage, with networks that sleep instead of computing.

  uv run infra/benchmarks/scale.py workers          1, 2 and 4 workers on 64 shards of 1,000 images
  uv run infra/benchmarks/scale.py shards           the driver's CPU time and memory for 10,000 and 100,000 shards
  uv run infra/benchmarks/scale.py shards --counts 1000000 --workers 1000 --seconds 1
                                                    a million shards on 1,000 workers that only sleep
  uv run infra/benchmarks/scale.py workers --shards 16 --images 500 --milliseconds 4

Workers are the job's workers except for their networks: they read, decode, take turns, encode and write. The overhead
is the wall time from the first to the last image, relative to the longest time that one worker slept. Sleeping needs no
cores, so more workers than cores can be measured while reading and decoding do not saturate the cores. The workers of
`shards` read nothing, and a few processes hold all of them: the driver treats each as a process of its own.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
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
from pipeline.runtime.device import Compute
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS
from pipeline.sources import PlannedShard, Shard, write_manifest

SKELETON = SKELETONS["coco17"]
_BATCH = 50
_PROCESSES = 4  # of the workers that only sleep
_SHARD_COUNTS = (10_000, 100_000)


class SleepingAnnotator(Annotator):
    """Sleeps for each image, a batch at a time, and returns the same two people for every image.

    Attributes:
        slept: total seconds slept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.slept = 0.0
        self.stopwatch = Stopwatch()
        self.poses: Any = SimpleNamespace(skeleton=SKELETON, head=SimpleNamespace(kind="none"), describe=list)
        self.compute = Compute.resolve("cpu")
        self.confidence = -np.inf
        self.appearance = None

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
        started = time.perf_counter()
        time.sleep(images * self._seconds)
        self.slept += time.perf_counter() - started


class SleepingWorker(Worker):
    """The job's worker without its networks; also reports the seconds slept."""

    def start(self, run: Run, threads: int, precomputed: Precomputed) -> None:
        self._limit = 1 << 62
        self._writer = PartWriter(run, SleepingAnnotator(_SECONDS_PER_IMAGE))

    def annotate(self, shard: Shard, poison: Any, isolated: bool) -> Iterator[Progress]:
        yield Progress()  # starts the clock
        yield from super().annotate(shard, poison, isolated)
        count = shard.num_images
        slept = self._writer.annotator.slept  # type: ignore[attr-defined]
        yield Progress(count, 2 * count, {"ok": count}, seconds={"slept": slept})


class IdleWorker(SleepingWorker):
    """Reports the start of every shard, sleeps, and reports it as done, without reading it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def start(self, run: Run, threads: int, precomputed: Precomputed) -> None:
        pass

    def annotate(self, shard: Shard, poison: Any, isolated: bool) -> Iterator[Progress]:
        yield Progress()
        time.sleep(self._seconds)
        yield Progress(shard.num_images, 2 * shard.num_images, {"ok": shard.num_images}, peak_megabytes=1.0)


class IdleWorkers:
    """In place of `WorkerActor`: actors that are `IdleWorker`s, several of them in a process."""

    def __init__(self, workers: int, seconds: float) -> None:
        import ray

        processes = min(workers, _PROCESSES)
        threads = SHARDS_AT_A_TIME * -(-workers // processes) + 1
        actor = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=threads)(IdleWorker)
        self._handles = itertools.cycle([actor.remote(seconds) for _ in range(processes)])

    def options(self, **_: Any) -> IdleWorkers:
        return self

    def remote(self) -> Any:
        return next(self._handles)


_SECONDS_PER_IMAGE = 0.005


class Clock(Display):
    """Records the times of the first and the last report, and the longest time that one worker slept, in seconds."""

    first = last = 0.0
    slept = 0.0

    def report(self, progress: Progress, worker: int) -> None:
        self.first = self.first or time.perf_counter()
        self.last = time.perf_counter()
        self.slept = max(self.slept, progress.seconds.get("slept", 0.0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=["workers", "shards"])
    parser.add_argument("--shards", type=int, default=64, help="workers: number of shards (default: 64)")
    parser.add_argument("--images", type=int, default=1000, help="workers: images per shard (default: 1000)")
    parser.add_argument("--milliseconds", type=float, default=5.0, help="workers: sleep per image (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="workers: repetitions (default: 3)")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=_SHARD_COUNTS, help="shards: numbers of shards (default: 10000 100000)"
    )
    parser.add_argument("--workers", type=int, default=2, help="shards: number of workers (default: 2)")
    parser.add_argument("--seconds", type=float, default=0.0, help="shards: sleep per shard (default: 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.benchmark == "workers":
            _workers(Path(name), arguments.shards, arguments.images, arguments.milliseconds / 1000, arguments.rounds)
        else:
            _shards(Path(name), arguments.counts, arguments.workers, arguments.seconds)
    return 0


def _workers(folder: Path, shards: int, images: int, seconds: float, rounds: int) -> None:
    _write_archives(folder / "in", shards, images)
    print(f"{shards} shards of {images} images, {1000 * seconds:g} ms of sleep per image, {rounds} rounds")
    print("workers   images/s   overhead: median     min     max")
    for workers in (1, 2, 4):
        overheads, rates = [], []
        for number in range(rounds):
            run = Run.create(_settings(folder / "in", folder / f"run{workers}.{number}", workers))
            clock, _, _ = _annotate(run, partial(_sleeping_workers, seconds))
            elapsed = clock.last - clock.first
            overheads.append(elapsed / clock.slept - 1)
            rates.append(shards * images / elapsed)
        median, low, high = statistics.median(overheads), min(overheads), max(overheads)
        print(f"{workers:7d} {statistics.median(rates):10.0f} {median:18.1%} {low:7.1%} {high:7.1%}", flush=True)


def _sleeping_workers(seconds: float) -> Any:
    import ray

    global _SECONDS_PER_IMAGE
    _SECONDS_PER_IMAGE = seconds
    return ray.remote(max_restarts=0, max_concurrency=SHARDS_AT_A_TIME)(SleepingWorker)


def _shards(folder: Path, counts: Sequence[int], workers: int, seconds: float) -> None:
    print(f"{workers} workers, {seconds:g} s a shard")
    print(" shards   seconds   driver's CPU seconds   CPU ms per shard   driver's peak memory")
    for count in counts:
        settings = _settings(folder, folder / f"run{count}", workers)
        run = Run.create(settings)
        write_manifest(run.manifest_uri, _planned(count), run.fingerprint)
        clock, cpu, peak = _annotate(run, partial(IdleWorkers, workers, seconds))
        elapsed = clock.last - clock.first
        print(f"{count:7d} {elapsed:9.1f} {cpu:22.1f} {1000 * cpu / count:18.2f} {peak:20.0f} MB", flush=True)


def _annotate(run: Run, make_workers: Callable[[], Any]) -> tuple[Clock, float, float]:
    """Run the job with a replacement for its worker actors.

    Args:
        run: the run directory.
        make_workers: makes what takes the place of `WorkerActor`, once Ray runs.

    Returns:
        The clock, the CPU seconds of the driver, and its peak resident memory in megabytes.
    """
    import ray  # after pipeline, which configures Ray to start workers without uv

    manifest = run.plan()
    # A fixed number of CPUs: sleeping workers do not need real cores.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        scheduler.WorkerActor = make_workers()
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
