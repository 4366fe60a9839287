"""Assigns shards to workers on a Ray cluster, and handles the failure of workers.

A worker holds two shards, so that reading and writing overlap with the networks. An existing part is a finished shard:
nothing needs to be remembered here, and the next run takes the shards without a part.
"""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import ray
from ray import ObjectRef, ObjectRefGenerator
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from pipeline import storage
from pipeline.errors import UserError, first_line
from pipeline.fleet.attempts import Backlog, ShardAttempt, StartPolicy
from pipeline.fleet.cluster import WorkerShape, worker_shape
from pipeline.fleet.display import Display
from pipeline.fleet.worker import SHARDS_AT_A_TIME, WorkerActor
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.progress import Progress
from pipeline.run.sessions import write_session
from pipeline.run.tables import count_people
from pipeline.sources import Manifest, Shard

# Errors after which a worker process is unusable: its device or its memory cannot be used.
_LOST_WORKER_ERRORS = ("AcceleratorError", "OutOfMemoryError", "MemoryError", "NetworksError")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_POLL_SECONDS = 0.5
_NOTE_WAITING_SECONDS = 60.0
_FOOTERS_AT_A_TIME, _FOOTERS_PER_BATCH = 16, 1000


class FleetError(UserError):
    """No worker can start, or nothing can be written; the message has the reason."""


class Stopped(Exception):
    """The run was stopped by a signal; finished shards are kept.

    Attributes:
        exit_code: of the signal, by the convention of shells.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class Stop:
    """SIGINT and SIGTERM as a request: the first lets shards in flight finish, the second stops at once."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle both signals inside the block. Call it after ray.init, which takes SIGTERM for itself."""
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
    precomputed: Precomputed = Precomputed(),
) -> None:
    """Annotate every shard of a run that has no part yet. Needs a Ray session.

    Raises:
        FleetError: the workers cannot start.
        Stopped: by a signal.
    """
    done = run.parts().keys() & manifest.counts.keys()
    left = len(manifest) - len(done)
    images_done = sum(manifest.counts[id_] for id_ in done)
    unit = "frames" if manifest.only_frames else "images"
    display.begin(manifest.num_images, images_done, len(manifest), len(done), unit)
    if left == 0:
        return
    if done:
        threading.Thread(target=_count_people, args=(run, done, display), name="count people", daemon=True).start()
    shape = worker_shape(run.settings.fleet, run.settings.compute, left)
    arguments = (run, shape.cpus, ray.put(precomputed))
    scheduler = _Scheduler(run, manifest.shards(without=done), shape, arguments, display, stop)
    try:
        scheduler.run_all()
    finally:
        scheduler.kill_workers()
        with contextlib.suppress(OSError):  # the storage may be the reason for the end; the run does not need it
            write_session(run, display.session())


def _count_people(run: Run, done: Collection[str], display: Display) -> None:
    """Count the people of finished parts beside the annotation: a large run has many."""
    ids, people = list(done), 0
    with contextlib.suppress(OSError, UserError), ThreadPoolExecutor(_FOOTERS_AT_A_TIME, "footers") as pool:
        for start in range(0, len(ids), _FOOTERS_PER_BATCH):
            people += sum(pool.map(partial(count_people, run.uri), ids[start : start + _FOOTERS_PER_BATCH]))
        display.count_before(people)


@dataclass(eq=False)
class _WorkerState:
    """A worker as the scheduler sees it.

    Attributes:
        handle: of the Ray actor.
        number: of the worker, from 1; a worker in place of another has a new one.
        starting: result of its start; None once it has started.
        attempts: shards that it holds.
        full: whether it holds almost as much memory as it may, and takes no more shards.
    """

    handle: Any
    number: int
    starting: ObjectRef | None
    attempts: list[ShardAttempt] = field(default_factory=list)
    full: bool = False

    @property
    def takes_shards(self) -> bool:
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
        self._shape = shape
        self._start_arguments = start_arguments
        self._display = display
        self._stop = stop
        self._stopping_since: float | None = None
        self._workers: list[_WorkerState] = []
        self._streams: dict[ObjectRefGenerator, tuple[_WorkerState, ShardAttempt]] = {}
        self._backlog = Backlog(shards, run.settings.fleet.max_attempts)
        self._starts = StartPolicy()
        self._wanted_workers = self._num_started = 0
        self._noted: set[str] = set()
        self._waiting_since: float | None = time.monotonic()

    def run_all(self) -> None:
        while not self._is_over():
            self._start_workers()
            self._assign_shards()
            waited_for = [*self._streams, *(w.starting for w in self._workers if w.starting is not None)]
            self._note_waiting()
            if not waited_for:
                time.sleep(_POLL_SECONDS)
                continue
            ready, _ = ray.wait(waited_for, num_returns=1, timeout=_POLL_SECONDS)
            if ready:  # all at once: with a thousand workers, each wait takes longer than what it waits for
                ready, _ = ray.wait(waited_for, num_returns=len(waited_for), timeout=0)
            for item in ready:
                if item in self._streams:
                    self._advance(item)
                # Else the start of a worker; or it belonged to one whose death has just been handled.
                elif (worker := next((w for w in self._workers if w.starting == item), None)) is not None:
                    self._on_start(worker)
            self._display.in_flight([attempt.progress for _, attempt in self._streams.values()])
        if self._stop.signals:
            raise Stopped(self._stop.signals[0])

    def _note_waiting(self) -> None:
        if self._waiting_since is None or any(w.starting is None for w in self._workers):
            self._waiting_since = None
        elif time.monotonic() - self._waiting_since > _NOTE_WAITING_SECONDS:
            self._waiting_since = None
            resources = ray.cluster_resources()
            self._display.note(
                f"no worker has started yet: each needs {self._shape.cpus} CPUs and {self._shape.gpus:g} GPUs; the "
                f"cluster has {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}. Waiting for nodes; "
                "--fleet.cpus_per_worker and --fleet.gpus_per_worker change what a worker needs"
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
                    "shards in flight; a second signal stops at once"
                )
            waited = time.monotonic() - self._stopping_since
            wait_on = len(self._stop.signals) == 1 and waited < self._run.settings.fleet.grace_seconds
            return not (self._streams and wait_on)
        return self._backlog.empty and not self._streams

    def _start_workers(self) -> None:
        """Ask for workers up to the maximum, but not for more than there are shards."""
        if self._stop.signals or time.monotonic() < self._starts.not_before:
            return
        shards = len(self._streams) + len(self._backlog.retries)
        most = self._shape.workers
        self._wanted_workers = most if self._backlog.has_first_attempts else min(most, shards)
        while len(self._workers) < self._wanted_workers:
            handle = WorkerActor.options(num_cpus=self._shape.cpus, num_gpus=self._shape.gpus).remote()
            self._num_started += 1
            starting = handle.start.remote(*self._start_arguments)
            self._workers.append(_WorkerState(handle, self._num_started, starting))

    def _assign_shards(self) -> None:
        if self._stop.signals:
            return
        # Idle workers first: a retry runs alone on its worker, and the last shards should be spread out.
        for worker in [w for w in self._workers if w.takes_shards and not w.attempts]:
            retry = self._backlog.take_retry(time.monotonic())
            if retry is not None:
                self._assign(worker, retry)
        for level in range(SHARDS_AT_A_TIME):
            for worker in self._workers:
                alone = any(a.isolated for a in worker.attempts)
                if not worker.takes_shards or len(worker.attempts) != level or alone:
                    continue
                if self._backlog.has_first_attempts and not (level > 0 and self._reserved(worker)):
                    self._assign(worker, self._backlog.take_first_attempt())

    def _reserved(self, worker: _WorkerState) -> bool:
        """Whether a worker takes no new shards, for a waiting retry: as many workers as there are retries."""
        return worker in self._workers[: len(self._backlog.retries)]

    def _assign(self, worker: _WorkerState, attempt: ShardAttempt) -> None:
        attempt.progress = Progress()
        worker.attempts.append(attempt)
        # Backpressure of one: an isolated worker continues only after its announcement has arrived here.
        stream = worker.handle.annotate.options(
            num_returns="streaming", _generator_backpressure_num_objects=1 if attempt.isolated else -1
        ).remote(attempt.shard, frozenset(attempt.poison), attempt.isolated)
        self._streams[stream] = (worker, attempt)

    def _on_start(self, worker: _WorkerState) -> None:
        try:
            warning = ray.get(worker.starting)
            if warning is not None:
                self._note_once(warning, warning)
            worker.starting = None
            self._starts.on_success()
        except RayError as error:
            self._retire(worker)
            reason: BaseException = error.cause if isinstance(error, RayTaskError) else error
            if not isinstance(error, RayTaskError):
                self._display.worker_died()
            # Settings that no worker can use end the job; the failure of one machine ends that worker. Others may still
            # be loading: Ray assigns a broken GPU, which fails at once, to the next worker again.
            any_running = any(other.starting is None for other in self._workers)
            give_up = self._starts.on_failure(time.monotonic(), any_running, self._wanted_workers)
            if give_up or isinstance(reason, UserError):
                raise FleetError(f"a worker could not start: {reason}") from None
            self._note_once(first_line(reason), f"a worker could not start, starting another: {first_line(reason)}")

    def _advance(self, stream: ObjectRefGenerator) -> None:
        worker, attempt = self._streams[stream]
        try:
            attempt.progress = ray.get(next(stream))
            self._display.report(attempt.progress, worker.number)
            worker.full = attempt.progress.full
            for note in attempt.progress.notes:
                self._note_once(note, note)
        except StopIteration:
            self._release(stream)
            self._finish(attempt)
        except RayTaskError as error:
            reason = f"{type(error.cause).__name__}: {error.cause}"
            if isinstance(error.cause, OSError) and error.cause.errno in _NO_SPACE:
                raise FleetError(f"no space left to write to {self._run.uri}: {error.cause}") from None
            if type(error.cause).__name__ in _LOST_WORKER_ERRORS:
                # Such a process fails on every image: replace it before it takes another shard.
                self._on_worker_death(worker, error, reason)
                return
            self._release(stream)
            self._on_failure(attempt, reason)
        except RayError as error:
            self._on_worker_death(worker, error, "its worker process died")

    def _release(self, stream: ObjectRefGenerator) -> None:
        worker, attempt = self._streams.pop(stream)
        worker.attempts.remove(attempt)
        if worker.full and not worker.attempts:
            self._retire(worker)
            self._display.worker_replaced()

    def _finish(self, attempt: ShardAttempt) -> None:
        self._display.finish(attempt.progress)
        if attempt.failures:
            storage.delete(self._run.quarantine_uri(attempt.shard.id))

    def _on_worker_death(self, worker: _WorkerState, error: RayError, reason: str) -> None:
        """Retry every shard of a dead worker; the image in progress becomes a suspect."""
        self._retire(worker)
        self._display.worker_died()
        for stream in [s for s, (w, _) in self._streams.items() if w is worker]:
            _, attempt = self._streams.pop(stream)
            poison = attempt.blame_image() if _process_died(error) else None
            if poison is not None:
                self._display.note(
                    f"image {poison} of shard {attempt.shard.id} has ended its worker twice: marked as poison"
                )
            self._on_failure(attempt, reason)

    def _retire(self, worker: _WorkerState) -> None:
        self._workers.remove(worker)
        ray.kill(worker.handle)  # it may be unreachable rather than dead

    def _on_failure(self, attempt: ShardAttempt, reason: str) -> None:
        if self._backlog.add_failure(attempt, time.monotonic()):
            self._note_once(reason.partition(":")[0], f"retrying shard {attempt.shard.id}: {reason}")
            return
        reason = f"failed {attempt.failures} times: {reason}"
        record = {"shard": attempt.shard.id, "uris": attempt.shard.uris[:3], "reason": reason}
        storage.write_bytes(self._run.quarantine_uri(attempt.shard.id), json.dumps(record, indent=2).encode())
        self._display.shard_quarantined(attempt.shard.id, reason)

    def _note_once(self, kind: str, text: str) -> None:
        if kind not in self._noted:
            self._noted.add(kind)
            self._display.note(f"{text} (logged once)")


def _process_died(error: RayError) -> bool:
    """Whether the process ended by itself, which an image can cause, and not with its node or its connection."""
    return isinstance(error, ActorDiedError) and not error.preempted and "its node has died" not in str(error)
