"""What happens at a moment of a person's movement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LARGEST_STEP = 0.25  # seconds between frames; across a longer one no event is looked for

MEASURES = (
    "stride_seconds",
    "steps_per_minute",
    "stance_share",
    "flight_seconds",
    "height_metres",
    "pixels_per_metre",
    "rise_pixels",
    "knee_flexion",
    "elbow_flexion",
)


@dataclass(frozen=True)
class Event:
    """An event.

    Attributes:
        kind: heel_strike, toe_off, deepest_knee, take_off, peak, landing or release.
        seconds: between frames if the curve allows it.
        side: left, right, or None for the whole body.
        measured: some of `MEASURES`; angles in degrees.
    """

    kind: str
    seconds: float
    side: str | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
