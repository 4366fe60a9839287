"""What happens to a shard or a worker after a failure: retries, isolation, poison, quarantine. Independent of Ray.

A failed shard is retried on a worker without other shards, one image at a time, each announced before it is decoded. An
image in progress at two worker deaths is poison: it gets a row that says so, and is not decoded again. One death is not
enough, because machines also fail for unrelated reasons.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.run.progress import Progress
from pipeline.sources import Shard

_DEATHS_OF_POISON = 2
_FAILED_STARTS_PER_WORKER = 3
_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 60.0


@dataclass(eq=False)
class ShardAttempt:
    """A shard, and the failures so far.

    Attributes:
        failures: in a row; reset when an image becomes poison.
        poison: numbers of images that are not decoded any more.
        suspects: number of worker deaths by number of the image that was in progress.
        isolated: whether the shard runs alone on its worker, one image at a time.
        not_before: when it may be retried, seconds of a monotonic clock.
        progress: last report of the worker.
    """

    shard: Shard
    failures: int = 0
    poison: set[int] = field(default_factory=set)
    suspects: Counter[int] = field(default_factory=Counter)
    isolated: bool = False
    not_before: float = 0.0
    progress: Progress = Progress()

    def blame_image(self) -> int | None:
        """Count a worker death against the image in progress; its number if that makes it poison, else None."""
        number = self.progress.in_progress
        # If memory had filled up gradually, the last image is not the cause.
        if number is None or self.progress.full:
            return None
        self.suspects[number] += 1
        if self.suspects[number] != _DEATHS_OF_POISON:
            return None
        self.poison.add(number)
        self.failures = 0
        return number


class Backlog:
    """The shards that no worker has: first attempts in the order of the manifest, and retries that wait.

    Attributes:
        retries: attempts that wait to be retried.
    """

    def __init__(self, shards: Iterator[Shard], max_attempts: int) -> None:
        self._shards = shards
        self._next = next(shards, None)
        self._max_attempts = max_attempts
        self.retries: list[ShardAttempt] = []

    @property
    def has_first_attempts(self) -> bool:
        return self._next is not None

    @property
    def empty(self) -> bool:
        return self._next is None and not self.retries

    def take_first_attempt(self) -> ShardAttempt:
        """The next shard; only if `has_first_attempts`."""
        assert self._next is not None
        attempt = ShardAttempt(self._next)
        self._next = next(self._shards, None)
        return attempt

    def take_retry(self, now: float) -> ShardAttempt | None:
        """The first retry whose delay is over at `now`, or None."""
        due = next((attempt for attempt in self.retries if attempt.not_before <= now), None)
        if due is not None:
            self.retries.remove(due)
        return due

    def add_failure(self, attempt: ShardAttempt, now: float) -> bool:
        """Schedule a retry, isolated and after a delay; False if the shard has failed too often: quarantine it."""
        attempt.failures += 1
        attempt.isolated = True
        if attempt.failures >= self._max_attempts:
            return False
        attempt.not_before = now + backoff_seconds(attempt.failures)
        self.retries.append(attempt)
        return True


class StartPolicy:
    """When to ask for another worker after failed starts, and when to give up.

    Attributes:
        not_before: when the next worker may be started, seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self.not_before = 0.0
        self._in_a_row = 0
        self._without_workers = 0  # in a row, while no worker was running

    def on_success(self) -> None:
        self._in_a_row = self._without_workers = 0

    def on_failure(self, now: float, any_running: bool, wanted_workers: int) -> bool:
        """Count a failed start; True if the job should give up.

        Args:
            any_running: whether another worker has started. While one runs, the job goes on without the others.
            wanted_workers: number of workers that the job asks for.
        """
        self._in_a_row += 1
        self.not_before = now + backoff_seconds(self._in_a_row)
        self._without_workers = 0 if any_running else self._without_workers + 1
        return self._without_workers >= _FAILED_STARTS_PER_WORKER * wanted_workers


def backoff_seconds(failures: int) -> float:
    """Exponential backoff with jitter after this number of failures in a row."""
    return min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** min(failures, 16)) * random.uniform(0.5, 1.0)
