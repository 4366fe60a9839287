"""Progress of a run on the terminal, and counters for dashboards."""

from __future__ import annotations

import collections
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType

from ray.util.metrics import Counter, Gauge
from rich.table import Table

from pipeline.process.progress_line import ProgressLine, duration
from pipeline.process.stopwatch import COMPUTING, STAGES
from pipeline.run.progress import Progress
from pipeline.run.sessions import Session


class Display:
    """Counts of the run so far. Images in flight count when they are reported, and again if their worker dies."""

    def __init__(self) -> None:
        self._line = ProgressLine("annotating")
        self._unit = "images"
        self._total = self._before = self._shards = self._shards_done = 0
        self._done = Progress()
        self._flying = Progress()
        self._deaths = self._quarantined = 0
        self._images_at_start = 0
        self._video_at_start = 0.0
        self._started = time.monotonic()
        self._seconds: dict[str, float] = defaultdict(float)
        self._worker_seconds: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._noted_retries: set[str] = set()
        self._noted_replaced = False
        self._metrics = _Metrics()
        self._people_before: int | None = 0
        self._created = time.time()

    def __enter__(self) -> Display:
        self._line.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        self._line.__exit__(kind, error, trace)

    def begin(self, images: int, images_done: int, shards: int, shards_done: int, unit: str = "images") -> None:
        """Set the size of the collection, how much of it earlier runs have finished, and what the images are called."""
        self._unit = unit
        self._total, self._before = images, images_done
        self._shards, self._shards_done = shards, shards_done
        self._started = time.monotonic()
        self._metrics.left.set(shards - shards_done)
        self._metrics.quarantined.set(0)
        if shards_done:
            self._people_before = None  # until `count_before`
            self.note(f"resuming: {shards_done} of {shards} shards ({images_done} {unit}) are already done")
        if shards_done < shards:
            self._line.begin("starting workers")

    def count_before(self, people: int) -> None:
        """Set the number of people in the parts of earlier sessions; any thread may call it."""
        self._people_before = people

    def in_flight(self, progress: Sequence[Progress]) -> None:
        """Set the last reports of the shards in flight."""
        self._flying = _sum(progress)
        if not self._images_at_start:  # the time in which workers load their networks does not count
            self._started = time.monotonic()
            now = _sum([self._done, self._flying])
            self._images_at_start, self._video_at_start = now.images, now.video_seconds
        self._show()

    def finish(self, progress: Progress) -> None:
        """Count a shard whose part is committed."""
        self._done = _sum([self._done, progress])
        self._shards_done += 1
        self._metrics.finish(progress)
        self._metrics.left.set(self._shards - self._shards_done)

    def report(self, progress: Progress, worker: int) -> None:
        """Count what a worker reports once: stage times and retries; `worker` is its number."""
        for stage, seconds in progress.seconds.items():
            self._seconds[stage] += seconds
            self._worker_seconds[worker][stage] += seconds
        self._metrics.report(progress, worker)
        for kind in progress.retries.keys() - self._noted_retries:
            self._noted_retries.add(kind)
            self.note(f"storage: retrying after {kind} (logged once)")

    @property
    def images_per_second(self) -> float | None:
        """Since the first report of images; None if the time since then is too short."""
        return self._rate(_sum([self._done, self._flying]).images - self._images_at_start)

    def _rate(self, amount: float) -> float | None:
        seconds = time.monotonic() - self._started
        if not self._images_at_start or seconds <= 1:
            return None
        return max(0.0, amount) / seconds  # images of a worker that died count no more

    @property
    def peak_megabytes(self) -> float:
        """Peak memory of a worker."""
        return _sum([self._done, self._flying]).peak_megabytes

    def session(self) -> Session:
        """What this session has done so far."""
        seconds = time.time() - self._created
        return Session(self._created, seconds, self._done.images, self.images_per_second, self.peak_megabytes)

    def worker_died(self) -> None:
        self._deaths += 1
        self._metrics.deaths.inc()

    def worker_replaced(self) -> None:
        """Count a worker that was replaced because it held almost as much memory as it may."""
        self._metrics.replaced.inc()
        if not self._noted_replaced:
            self._noted_replaced = True
            self.note("a worker reached its memory limit and was replaced (logged once)")

    def shard_quarantined(self, shard_id: str, reason: str) -> None:
        """Count a shard that is not tried again in this session."""
        self._quarantined += 1
        self._metrics.quarantined.set(self._quarantined)
        self.note(f"shard {shard_id} quarantined: {reason}")

    def profile(self) -> Table:
        """The time of all workers by stage. The time of the networks' thread is the time of the worker."""
        whole = _of_networks(self._seconds) or 1.0
        table = Table(title="time by stage, all workers", box=None, pad_edge=False)
        for column in ("thread", "stage", "seconds", "ms per image", "share of the networks' thread"):
            table.add_column(column, justify="left" if column in ("thread", "stage") else "right")
        for thread, stages in STAGES.items():
            for stage in stages:
                seconds = self._seconds[stage]
                per_image = f"{1000 * seconds / max(1, self._done.images):.1f}"
                table.add_row(thread, stage, f"{seconds:.1f}", per_image, f"{seconds / whole:.0%}")
        shares = [s[COMPUTING] / _of_networks(s) for s in self._worker_seconds.values() if _of_networks(s)]
        if shares:
            least, most = f"{min(shares):.0%}", f"{max(shares):.0%}"
            table.caption = "share of its time in which the device of a worker computed networks: " + (
                f"{least} to {most}" if least != most else least
            )
        return table

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._line.note(text)

    def _show(self) -> None:
        if self._total:
            self._line.update(self._images, self._total, self._parts())

    @property
    def _images(self) -> int:
        return min(self._total, self._before + self._done.images + self._flying.images)

    def _parts(self) -> list[str]:
        """What is shown, the most important first: a narrow terminal leaves out the last."""
        now = _sum([self._done, self._flying])
        rate = self.images_per_second or 0.0
        missing = self._total - self._images
        before = self._people_before
        left = duration(missing / rate) if rate else "?" if missing else duration(0)
        parts = [
            f"{self._images}/{self._total} {self._unit}",
            f"{left} left",
            f"{rate:.1f} {self._unit}/s",
            *self._video_rate(now.video_seconds),
            f"{now.people + before} people" if before is not None else f"{now.people} people since the restart",
            f"{now.failed} failed",
            f"{self._shards_done}/{self._shards} shards",
        ]
        if self._deaths:
            parts.insert(1, f"{self._deaths} workers died")
        if self._quarantined:
            parts.insert(1, f"{self._quarantined} shards in quarantine")
        return parts

    def _video_rate(self, video_seconds: float) -> list[str]:
        rate = self._rate(video_seconds - self._video_at_start)
        return [f"{rate:.2f} s of video/s"] if video_seconds and rate is not None else []


class _Metrics:
    """Counters for dashboards; Ray exports each one with the prefix `ray_`."""

    def __init__(self) -> None:
        self._images = Counter("posemill_images", "images in committed parts", ("status",))
        self._people = Counter("posemill_people", "people in these images")
        self._shards = Counter("posemill_shards", "parts committed")
        self.left = Gauge("posemill_shards_left", "shards without a part")
        self.quarantined = Gauge("posemill_shards_quarantined", "shards given up in this session")
        self._seconds = Counter("posemill_stage_seconds", "seconds that workers spent in each stage", ("stage",))
        self._worker = Counter("posemill_worker_seconds", "time of the networks' thread of a worker", ("worker",))
        self._computing = Counter("posemill_worker_compute_seconds", "of these, computing networks", ("worker",))
        self._retries = Counter("posemill_retries", "storage operations that were retried", ("kind",))
        self._memory = Gauge("posemill_worker_megabytes", "peak memory of a worker")
        self._gpu_memory = Gauge("posemill_gpu_megabytes", "peak GPU memory of a worker")
        self.deaths = Counter("posemill_worker_deaths", "worker processes that died")
        self.replaced = Counter("posemill_workers_replaced", "workers replaced at their memory limit")
        self._peaks = (0.0, 0.0)

    def finish(self, progress: Progress) -> None:
        for status, count in progress.statuses.items():
            self._images.inc(count, {"status": status})
        if progress.people:
            self._people.inc(progress.people)
        self._shards.inc()

    def report(self, progress: Progress, worker: int) -> None:
        for stage, seconds in progress.seconds.items():
            if seconds > 0 and stage != COMPUTING:
                self._seconds.inc(seconds, {"stage": stage})
        for counter, seconds in (
            (self._worker, _of_networks(progress.seconds)),
            (self._computing, progress.seconds.get(COMPUTING, 0.0)),
        ):
            if seconds > 0:
                counter.inc(seconds, {"worker": str(worker)})
        for kind, count in progress.retries.items():
            self._retries.inc(count, {"kind": kind})
        self._peaks = (max(self._peaks[0], progress.peak_megabytes), max(self._peaks[1], progress.gpu_megabytes))
        self._memory.set(self._peaks[0])
        self._gpu_memory.set(self._peaks[1])


def _of_networks(seconds: Mapping[str, float]) -> float:
    """The time of the networks' thread, which is the time of its worker."""
    return sum(seconds.get(stage, 0.0) for stage in STAGES["networks"])


def _sum(progress: Sequence[Progress]) -> Progress:
    return Progress(
        sum(p.images for p in progress),
        sum(p.people for p in progress),
        sum((collections.Counter(p.statuses) for p in progress), collections.Counter()),
        sum(p.video_seconds for p in progress),
        peak_megabytes=max((p.peak_megabytes for p in progress), default=0.0),
    )
