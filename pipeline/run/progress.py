"""What a worker tells about the shard it is at, and about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a shard is; a streaming caller sees one now and then.

    Attributes:
        images: of the shard, done.
        people: found in these before suppression.
        statuses: of these images, how many have which.
        in_progress: number of the image that is about to be touched, where a isolated run says so.
        peak_megabytes, gpu_megabytes: most memory that the process has held, of its own and of its GPU's.
        seconds: spent in each stage by the whole process since it last told (`pipeline.stopwatch`).
        retries: what was tried again by the whole process since it last told, by kind (`pipeline.storage.patience`).
        full: the process holds almost as much memory as it may, and should be replaced once its shards are done.
    """

    images: int = 0
    people: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    in_progress: int | None = None
    peak_megabytes: float = 0.0
    gpu_megabytes: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    full: bool = False

    @property
    def failed(self) -> int:
        """Images with another status than `ok`."""
        return self.images - self.statuses.get("ok", 0)
