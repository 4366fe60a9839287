"""The sessions of a run: each start of the annotate job, how long it worked and how fast."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pipeline import storage
from pipeline.errors import parsing
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
    """The sessions of a run, in the order of their start; sessions that were killed are missing."""
    try:
        uris = sorted(entry.uri for entry in storage.list_files(run.path("sessions")))
    except storage.MissingObject:
        return []
    sessions = []
    for uri in uris:
        with parsing(uri, "a session of a run"):
            sessions.append(Session(**json.loads(storage.read_bytes(uri))))
    return sessions
