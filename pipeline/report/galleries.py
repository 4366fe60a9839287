"""Which images a page shows: a random sample, the least certain, and with annotations the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.image_errors import ImageErrors
from pipeline.review.ranking import DOUBTFUL_POSE, MANY_PEOPLE, TINY, Suspicion, uncertainty
from pipeline.run.statistics import Statistics

_PER_GALLERY = 12


@dataclass(frozen=True)
class Gallery:
    """A titled list of images.

    Attributes:
        name: for links.
        note: what the images have in common.
        rows: of the shown images in `Statistics`.
        captions: of these images.
        total: number of images that could be shown.
    """

    name: str
    title: str
    note: str
    rows: list[int]
    captions: list[str]
    total: int


def galleries(statistics: Statistics, suspicion: Suspicion, errors: ImageErrors | None) -> list[Gallery]:
    """The galleries of a page that have images, the most useful first."""
    doubt = uncertainty(statistics)
    reasons = suspicion.reasons
    chosen = []
    if errors is not None:
        missed, wrong = errors.column("missed"), errors.column("background")
        chosen = [
            _worst(statistics, "missed", "Missed people", "Most missed people first.", missed, errors.describe),
            _worst(statistics, "invented", "False positives", "Most false positives first.", wrong, errors.describe),
            _worst(
                statistics,
                "worst",
                "Worst images",
                "Highest cost first: 1 for each missed person and each false positive, 1 - OKS for each person found.",
                errors.costs,
                errors.describe,
            ),
        ]
    chosen.append(
        _worst(
            statistics,
            "unusual",
            "Unusual images",
            f"More than {MANY_PEOPLE} people, people under {TINY:g} pixels, doubtful poses (mean joint score under "
            f"{DOUBTFUL_POSE:g}), and files that occur twice.",
            suspicion.strength,
            lambda row: reasons.get(row, ""),
        )
    )
    chosen.append(
        _worst(
            statistics,
            "uncertain",
            "Least certain poses",
            "Images with the lowest mean joint score of any person first.",
            doubt,
            lambda row: f"lowest mean joint score {1 - doubt[row]:.2f}",
        )
    )
    ok = np.flatnonzero(statistics.ok)
    sample = np.sort(np.random.default_rng(0).choice(ok, min(_PER_GALLERY, len(ok)), replace=False)).tolist()
    describe = errors.describe if errors is not None else lambda row: _people(int(statistics.num_people[row]))
    note = "Every image that could be read has the same chance."
    chosen.append(Gallery("sample", "Random sample", note, sample, list(map(describe, sample)), len(ok)))
    return [gallery for gallery in chosen if gallery.rows]


def event_gallery(statistics: Statistics, captions: Mapping[str, str]) -> list[Gallery]:
    """The frames of events, with captions by image id; none if there are no events."""
    row_of = {image_id: row for row, image_id in enumerate(statistics.ids) if image_id in captions}
    rows = {row_of[image_id]: caption for image_id, caption in captions.items() if image_id in row_of}
    note = "Frames at steps, jumps and throws."
    return [Gallery("events", "Events", note, list(rows), list(rows.values()), len(rows))] if rows else []


def _worst(
    statistics: Statistics, name: str, title: str, note: str, badness: np.ndarray, describe: Callable[[int], str]
) -> Gallery:
    values = np.where(statistics.ok, badness, 0.0)
    rows = [int(i) for i in np.argsort(-values, kind="stable")[:_PER_GALLERY] if values[i] > 0]
    return Gallery(name, title, note, rows, list(map(describe, rows)), int((values > 0).sum()))


def _people(count: int) -> str:
    return f"{count} {'person' if count == 1 else 'people'}"
