"""Images that deserve a look, from a run alone: uncertain poses, and what is unusual."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from pipeline.run.statistics import Statistics

MANY_PEOPLE = 20  # COCO's evaluation counts no more per image
TINY = 20.0  # square root of the box's area in pixels; the joints of smaller people cannot be separated
# Box score, and mean joint score, that contradict each other: the box is likely right, and the pose likely wrong.
# Chosen on 120 photographs of COCO for the shipped networks.
SURE_BOX, DOUBTFUL_POSE = 0.8, 0.25


@dataclass(frozen=True)
class Suspicion:
    """What is unusual about the images of a run.

    Attributes:
        strength: (I,) number of unusual people, plus 1 for each unusual property of the image; 0 if there is none.
        reasons: text by row of the image.
    """

    strength: np.ndarray
    reasons: dict[int, str]


def uncertainty(statistics: Statistics) -> np.ndarray:
    """(I,) 1 - mean joint score of the person with the lowest one; 0 without people."""
    lowest = np.ones(len(statistics.ids))
    np.minimum.at(lowest, statistics.image, np.clip(statistics.mean_joint_scores, 0, 1))
    return 1 - lowest


def suspicion(statistics: Statistics) -> Suspicion:
    """Images with very many people, tiny people, sure boxes with doubtful poses, or the bytes of another image."""
    s = statistics
    num_images = len(s.ids)
    strength = np.zeros(num_images)
    reasons: dict[int, list[str]] = defaultdict(list)

    def count(chosen: np.ndarray, text: str) -> None:
        counts = np.bincount(s.image[chosen], minlength=num_images)
        strength[:] += counts
        for row in np.flatnonzero(counts):
            reasons[int(row)].append(f"{counts[row]} {text}")

    for row in np.flatnonzero(s.num_people > MANY_PEOPLE):
        strength[row] += 1
        reasons[int(row)].append(f"{s.num_people[row]} people")
    doubtful = s.mean_joint_scores < DOUBTFUL_POSE
    count(doubtful & (s.box_scores >= SURE_BOX), "with a sure box and a doubtful pose")
    count(doubtful & (s.box_scores < SURE_BOX), "with a doubtful pose")
    count(~doubtful & (s.sizes < TINY), f"under {TINY:g} pixels")
    first: dict[str, int] = {}
    for copy, digest in enumerate(s.sha256):
        if digest is not None and first.setdefault(digest, copy) != copy:
            strength[copy] += 1
            reasons[copy].append(f"the same file as {s.ids[first[digest]]}")
    return Suspicion(strength, {row: "; ".join(texts) for row, texts in reasons.items()})
