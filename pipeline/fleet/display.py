"""Progress for people: a bar on a terminal, a line now and then elsewhere; and counters for dashboards."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from ray.util.metrics import Counter
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from pipeline.progress import Progress

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Counts of the run so far; images in flight count as they are reported, and again if their worker dies."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        self._total = self._before = self._shards = self._shards_done = 0
        self._done = Progress()
        self._flying = Progress()
        self._deaths = 0
        self._images_at_start = 0
        self._started = self._last_line = time.monotonic()
        self._counters = {
            name: Counter(f"posemill_{name}", description=description)
            for name, description in (
                ("images", "images annotated"),
                ("people", "people found, before suppression"),
                ("failed_images", "images with another status than ok"),
                ("shards", "parts committed"),
                ("worker_deaths", "worker processes that died"),
            )
        }

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("annotating"),
                BarColumn(),
                TextColumn("{task.fields[line]}"),
                console=self._console,
                refresh_per_second=4,
            )
            self._bar.start()
            self._bar.add_task("annotate", total=None, line="starting workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._total:
            self._console.print(self._line(), highlight=False)

    def begin(self, images: int, images_done: int, shards: int, shards_done: int) -> None:
        """What the collection holds, and what earlier runs have done of it."""
        self._total, self._before = images, images_done
        self._shards, self._shards_done = shards, shards_done
        self._started = time.monotonic()
        if shards_done:
            self.note(f"{shards_done} of {shards} shards are already done ({images_done} images)")
        self._show()

    def in_flight(self, progress: Sequence[Progress]) -> None:
        """What the shards in work report."""
        self._flying = _sum(progress)
        if not self._images_at_start:  # workers that load their networks don't count as slow images
            self._started = time.monotonic()
            self._images_at_start = self._done.images + self._flying.images
        self._show()

    def finish(self, progress: Progress) -> None:
        """A shard's part is committed."""
        self._done = _sum([self._done, progress])
        self._shards_done += 1
        for name, value in (
            ("images", progress.images),
            ("people", progress.people),
            ("failed_images", progress.failed),
            ("shards", 1),
        ):
            if value:
                self._counters[name].inc(value)

    @property
    def images_per_second(self) -> float | None:
        """Since the first report of images, whose own time isn't known; None where little has been done since."""
        seconds, images = time.monotonic() - self._started, _sum([self._done, self._flying]).images
        return (images - self._images_at_start) / seconds if self._images_at_start and seconds > 1 else None

    @property
    def peak_megabytes(self) -> float:
        """Most memory that a worker has held."""
        return _sum([self._done, self._flying]).peak_megabytes

    def worker_died(self) -> None:
        self._deaths += 1
        self._counters["worker_deaths"].inc()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, total=self._total, completed=self._images, line=self._line())
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    @property
    def _images(self) -> int:
        return self._before + self._done.images + self._flying.images

    def _line(self) -> str:
        now = _sum([self._done, self._flying])
        rate = self.images_per_second or 0.0
        left = _duration((self._total - self._images) / rate) if rate else "?"
        parts = [
            f"{self._images}/{self._total} images",
            f"{self._shards_done}/{self._shards} shards",
            f"{now.people} people",
            f"{rate:.1f} images/s",
            f"{now.failed} failed",
            f"{left} left",
        ]
        if self._deaths:
            parts.append(f"{self._deaths} workers died")
        return ", ".join(parts)


def _sum(progress: Sequence[Progress]) -> Progress:
    return Progress(
        sum(p.images for p in progress),
        sum(p.people for p in progress),
        sum(p.failed for p in progress),
        peak_megabytes=max((p.peak_megabytes for p in progress), default=0.0),
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
