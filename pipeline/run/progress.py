"""Progress of a shard, as a worker streams it to the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Progress of one shard, and counters of the worker process.

    Attributes:
        images: of the shard, finished.
        people: in these, as in the tables.
        statuses: number of these images by status.
        video_seconds: time between the frames among these, seconds of video.
        in_progress: number of the image that is about to be decoded; only in an isolated run.
        peak_megabytes, gpu_megabytes: peak memory of the process and of its GPU.
        seconds: by stage, of the whole process since its last report (`pipeline.process.stopwatch`).
        retries: by kind of error, of the whole process since its last report (`pipeline.storage.retry`).
        notes: what happened to the networks of the process, for the user.
        full: the process holds almost as much memory as it may; it should be replaced when its shards are finished.
    """

    images: int = 0
    people: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    video_seconds: float = 0.0
    in_progress: int | None = None
    peak_megabytes: float = 0.0
    gpu_megabytes: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    full: bool = False

    @property
    def failed(self) -> int:
        """Images with another status than `ok`."""
        return self.images - self.statuses.get("ok", 0)
