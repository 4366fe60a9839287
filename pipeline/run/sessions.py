"""The sessions of a run: each start of the annotate job, how long it worked and how fast."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass

from pipeline import storage
from pipeline.run.directory import Run


@dataclass(frozen=True)
class Session:
    """One start of the annotate job, from the first shard to the last.

    Attributes:
        started: seconds since 1970.
        seconds: until its end, with the start of workers.
        images: in the parts that it committed.
        images_per_second: without the start of workers; None if that was too short to measure.
        peak_megabytes: of a worker.
    """

    started: float
    seconds: float
    images: int
    images_per_second: float | None
    peak_megabytes: float


def write_session(run: Run, session: Session) -> None:
    """Write a session to `sessions/` of a run."""
    name = f"{round(session.started * 1000):015d}.json"
    storage.write_bytes(run.path("sessions", name), json.dumps(asdict(session)).encode())


def read_sessions(run: Run) -> list[Session]:
    """The sessions of a run, in the order of their start; those that were killed, or cannot be read, are missing."""
    sessions = []
    for _, entry in sorted(run.listed("sessions", ".json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            sessions.append(Session(**json.loads(storage.read_bytes(entry.uri))))
    return sessions
