"""Who gets which shard, and what happens when a worker dies over one.

A worker holds two shards, so that reading and writing hide behind the networks. A part that exists is done, so
nothing here has to be remembered: whatever dies, the next run takes up what has no part.

A shard whose worker died is tried again alone on a worker and carefully: each image is announced before it is
touched. An image in hand at two such deaths is poison: it gets a row that says so, and is not touched again. One
death is not enough; machines die for their own reasons, and no image may be lost to that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import ray
from ray import ObjectRef, ObjectRefGenerator
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from pipeline import storage
from pipeline.errors import UserError
from pipeline.fleet.cluster import WorkerShape, worker_shape
from pipeline.fleet.display import Display
from pipeline.fleet.worker import SHARDS_AT_A_TIME, WorkerActor
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.progress import Progress
from pipeline.sources import Manifest, Shard

_DEATHS_OF_POISON = 2
_FAILED_STARTS = 3  # for each worker that the job asks for
_LOST_WORKER_ERRORS = ("AcceleratorError", "OutOfMemoryError", "MemoryError", "NetworksError")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 60.0


class FleetError(UserError):
    """No worker can start; the text says why."""


class Stopped(Exception):
    """The run was asked to stop, and has; what is done is done.

    Attributes:
        exit_code: by which a shell knows the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class Stop:
    """SIGINT and SIGTERM as a request: the first lets shards in flight finish, the second does not wait."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals meanwhile; after ray.init, which takes SIGTERM for itself."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)


def annotate_run(
    run: Run,
    manifest: Manifest,
    display: Display,
    stop: Stop,
    given: Precomputed = Precomputed(),
) -> None:
    """Annotate every shard of a run that has no part yet. Needs a Ray session.

    Raises:
        FleetError: the workers cannot start.
        Stopped: by a signal.
    """
    done = run.parts().keys() & manifest.counts.keys()
    left = len(manifest) - len(done)
    display.begin(manifest.num_images, sum(manifest.counts[id_] for id_ in done), len(manifest), len(done))
    if left == 0:
        return
    shape = worker_shape(run.settings.fleet, run.settings.compute, left)
    arguments = (run, shape.cpus, ray.put(given))
    scheduler = _Scheduler(run, manifest.shards(without=done), shape, arguments, display, stop)
    try:
        scheduler.run_all()
    finally:
        scheduler.kill_workers()


@dataclass(eq=False)
class _Attempt:
    """A shard and what has been learnt about it."""

    shard: Shard
    attempts: int = 0
    poison: set[int] = field(default_factory=set)
    suspects: Counter[int] = field(default_factory=Counter)
    isolated: bool = False
    not_before: float = 0.0
    progress: Progress = Progress()


@dataclass(eq=False)
class _WorkerState:
    handle: Any
    starting: ObjectRef | None
    attempts: list[_Attempt] = field(default_factory=list)
    full: bool = False

    @property
    def takes_shards(self) -> bool:
        """Whether it has loaded its networks, and has memory left."""
        return self.starting is None and not self.full


class _Scheduler:
    def __init__(
        self,
        run: Run,
        shards: Iterator[Shard],
        shape: WorkerShape,
        start_arguments: tuple[Any, ...],
        display: Display,
        stop: Stop,
    ) -> None:
        self._run = run
        self._shards = shards
        self._shape = shape
        self._start_arguments = start_arguments
        self._display = display
        self._stop = stop
        self._stopping_since: float | None = None
        self._workers: list[_WorkerState] = []
        self._streams: dict[ObjectRefGenerator, tuple[_WorkerState, _Attempt]] = {}
        self._retries: deque[_Attempt] = deque()
        self._next: Shard | None = next(shards, None)
        self._wanted = 0
        self._failed_starts = 0  # in a row
        self._fruitless_starts = 0  # in a row, while no worker ran
        self._no_start_before = 0.0
        self._told: set[str] = set()
        self._waiting_since: float | None = time.monotonic()

    def run_all(self) -> None:
        while not self._is_over():
            self._keep_workers()
            self._hand_out()
            waited_for = [*self._streams, *(w.starting for w in self._workers if w.starting is not None)]
            self._note_waiting()
            if not waited_for:
                time.sleep(_POLL_SECONDS)
                continue
            ready, _ = ray.wait(waited_for, num_returns=1, timeout=_POLL_SECONDS)
            for item in ready:
                if item in self._streams:
                    self._advance(item)
                else:
                    self._started(next(w for w in self._workers if w.starting == item))
            self._display.in_flight([attempt.progress for _, attempt in self._streams.values()])
        if self._stop.signals:
            raise Stopped(self._stop.signals[0])

    def _note_waiting(self) -> None:
        if self._waiting_since is None or any(w.starting is None for w in self._workers):
            self._waiting_since = None
        elif time.monotonic() - self._waiting_since > _PATIENCE_SECONDS:
            self._waiting_since = None
            self._display.note(
                f"no worker yet: each asks for {self._shape.cpus} CPUs and {self._shape.gpus:g} GPUs; the cluster has "
                f"{ray.cluster_resources().get('CPU', 0):g} and {ray.cluster_resources().get('GPU', 0):g} in all. "
                "Waiting for nodes to come; fleet.cpus_per_worker and fleet.gpus_per_worker ask for less"
            )

    def kill_workers(self) -> None:
        for worker in self._workers:
            ray.kill(worker.handle)

    def _is_over(self) -> bool:
        if self._stop.signals:
            if self._stopping_since is None:
                self._stopping_since = time.monotonic()
                self._display.note(
                    f"stopping: waiting up to {self._run.settings.fleet.grace_seconds:g} s for {len(self._streams)} "
                    "shards in flight; once more to stop now"
                )
            waited = time.monotonic() - self._stopping_since
            patient = len(self._stop.signals) == 1 and waited < self._run.settings.fleet.grace_seconds
            return not (self._streams and patient)
        return self._next is None and not self._retries and not self._streams

    def _keep_workers(self) -> None:
        """Ask for workers up to the maximum, but no more than there are shards to hold."""
        if self._stop.signals or time.monotonic() < self._no_start_before:
            return
        held = len(self._streams) + len(self._retries)
        self._wanted = self._shape.workers if self._next is not None else min(self._shape.workers, held)
        while len(self._workers) < self._wanted:
            handle = WorkerActor.options(num_cpus=self._shape.cpus, num_gpus=self._shape.gpus).remote()
            self._workers.append(_WorkerState(handle, handle.start.remote(*self._start_arguments)))

    def _hand_out(self) -> None:
        if self._stop.signals:
            return
        # Idle workers first: a retry needs one for itself, and the last shards should spread out.
        for worker in sorted((w for w in self._workers if w.takes_shards), key=lambda w: len(w.attempts)):
            if not worker.attempts:
                retry = self._due_retry()
                if retry is not None:
                    self._give(worker, retry)
                    continue
        for level in range(SHARDS_AT_A_TIME):
            for worker in self._workers:
                alone = any(a.isolated for a in worker.attempts)
                if worker.takes_shards and len(worker.attempts) == level and not alone and self._next is not None:
                    if level > 0 and self._reserved(worker):
                        continue
                    self._give(worker, _Attempt(self._next))
                    self._next = next(self._shards, None)

    def _due_retry(self) -> _Attempt | None:
        now = time.monotonic()
        for attempt in self._retries:
            if attempt.not_before <= now:
                self._retries.remove(attempt)
                return attempt
        return None

    def _reserved(self, worker: _WorkerState) -> bool:
        """Whether a worker should run empty because retries wait for one: as many as there are retries."""
        return worker in self._workers[: len(self._retries)]

    def _give(self, worker: _WorkerState, attempt: _Attempt) -> None:
        attempt.progress = Progress()
        worker.attempts.append(attempt)
        # Backpressure of one: a isolated worker goes on only once its announcement has arrived here.
        stream = worker.handle.annotate.options(
            num_returns="streaming", _generator_backpressure_num_objects=1 if attempt.isolated else -1
        ).remote(attempt.shard, frozenset(attempt.poison), attempt.isolated)
        self._streams[stream] = (worker, attempt)

    def _started(self, worker: _WorkerState) -> None:
        try:
            ray.get(worker.starting)
            worker.starting = None
            self._failed_starts = self._fruitless_starts = 0
        except RayError as error:
            self._retire(worker)
            self._failed_starts += 1
            self._no_start_before = time.monotonic() + _wait_seconds(self._failed_starts)
            if isinstance(error, RayTaskError):
                reason = error.cause
            else:
                reason = error
                self._display.worker_died()
            # Settings that no worker can use end the job; one machine's trouble ends that worker. The others may still
            # be loading: a broken GPU, which says so at once, comes back to the next worker that is asked for.
            nobody_works = all(other.starting is not None for other in self._workers)
            self._fruitless_starts = self._fruitless_starts + 1 if nobody_works else 0
            if isinstance(reason, ValueError) or self._fruitless_starts >= _FAILED_STARTS * self._wanted:
                raise FleetError(f"a worker could not start: {reason}") from None
            first_line = next(iter(str(reason).splitlines()), type(reason).__name__)
            if first_line not in self._told:
                self._told.add(first_line)
                self._display.note(f"a worker could not start, asking for another: {first_line} (told once per kind)")

    def _advance(self, stream: ObjectRefGenerator) -> None:
        worker, attempt = self._streams[stream]
        try:
            attempt.progress = ray.get(next(stream))
            self._display.hear(attempt.progress)
            worker.full = attempt.progress.full
        except StopIteration:
            self._release(stream)
            self._finish(attempt)
        except RayTaskError as error:
            reason = f"{type(error.cause).__name__}: {error.cause}"
            if isinstance(error.cause, OSError) and error.cause.errno in _NO_ROOM:
                raise FleetError(f"nothing more can be written to {self._run.uri}: {error.cause}") from None
            if type(error.cause).__name__ in _LOST_WORKER_ERRORS:
                # A process whose device or memory is gone fails everything at once, and would eat shard after shard.
                self._bury(worker, error, reason)
                return
            self._release(stream)
            self._try_again(attempt, reason)
        except RayError as error:
            self._bury(worker, error, "its worker process died")

    def _release(self, stream: ObjectRefGenerator) -> None:
        worker, attempt = self._streams.pop(stream)
        worker.attempts.remove(attempt)
        if worker.full and not worker.attempts:
            self._retire(worker)
            self._display.worker_replaced()

    def _finish(self, attempt: _Attempt) -> None:
        self._display.finish(attempt.progress)
        if attempt.attempts:
            storage.delete(self._run.quarantine_uri(attempt.shard.id))

    def _bury(self, worker: _WorkerState, error: RayError, reason: str) -> None:
        """Every shard of a dead worker is tried again; what it had announced is under suspicion."""
        self._retire(worker)
        self._display.worker_died()
        for stream in [s for s, (w, _) in self._streams.items() if w is worker]:
            _, attempt = self._streams.pop(stream)
            number = attempt.progress.in_progress
            # A process that had filled up by and by says nothing against the image that it met last.
            if number is not None and _process_died(error) and not attempt.progress.full:
                attempt.suspects[number] += 1
                if attempt.suspects[number] == _DEATHS_OF_POISON:
                    attempt.poison.add(number)
                    attempt.attempts = 0
                    self._display.note(f"image {number} of shard {attempt.shard.id} ends its worker: marked as poison")
            self._try_again(attempt, reason)

    def _retire(self, worker: _WorkerState) -> None:
        self._workers.remove(worker)
        ray.kill(worker.handle)  # it may be unreachable rather than dead

    def _try_again(self, attempt: _Attempt, reason: str) -> None:
        attempt.attempts += 1
        attempt.isolated = True
        if attempt.attempts < self._run.settings.fleet.max_attempts:
            attempt.not_before = time.monotonic() + _wait_seconds(attempt.attempts)
            self._retries.append(attempt)
            kind = reason.partition(":")[0]
            if kind not in self._told:
                self._told.add(kind)
                self._display.note(f"shard {attempt.shard.id} is tried again: {reason} (told once per kind)")
            return
        reason = f"given up after {attempt.attempts} attempts: {reason}"
        record = {"shard": attempt.shard.id, "uris": attempt.shard.uris[:3], "reason": reason}
        storage.write_bytes(self._run.quarantine_uri(attempt.shard.id), json.dumps(record, indent=2).encode())
        self._display.note(f"shard {attempt.shard.id} quarantined: {reason}")


def _wait_seconds(failures: int) -> float:
    """Before something that has failed so often in a row is tried again."""
    return min(_LONGEST_WAIT_SECONDS, 0.5 * 2 ** min(failures, 16)) * random.uniform(0.5, 1.0)


def _process_died(error: RayError) -> bool:
    """Whether a process ended by itself, which an image can cause, and not with its node or its connection."""
    return isinstance(error, ActorDiedError) and not error.preempted and "its node has died" not in str(error)
