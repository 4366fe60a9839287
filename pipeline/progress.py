"""What a worker tells about the shard it is at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a shard is; a streaming caller sees one now and then.

    Attributes:
        images: of the shard, done.
        people: found in these before suppression.
        failed: of these images, those with another status than `ok`.
        in_hand: number of the image that is about to be touched, where a careful run says so.
        peak_megabytes: most memory that the process has held.
    """

    images: int = 0
    people: int = 0
    failed: int = 0
    in_hand: int | None = None
    peak_megabytes: float = 0.0
