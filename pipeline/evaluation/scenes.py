"""Who is annotated and who was found, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.matching import Annotated, Found
from pipeline.evaluation.truth import Truth, by_image


class Scene(NamedTuple):
    """An image: who is annotated, and who was found, best first."""

    annotated: Annotated
    found: Found


@dataclass(frozen=True)
class Scenes:
    """Images in a row, as columns over all their people.

    Attributes:
        ids: (I,) of the images, ascending.
        annotated, found: people of all images, image after image; in each, those found best first.
        annotated_starts, found_starts: (I + 1,) where the people of each image begin.
        answers: by question about images, (I,) the number of each one's answer; see `pipeline.evaluation.slices`.
    """

    ids: np.ndarray
    annotated: Annotated
    annotated_starts: np.ndarray
    found: Found
    found_starts: np.ndarray
    answers: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Scene]:
        a, f = self.annotated_starts, self.found_starts
        for i in range(len(self)):
            annotated = Annotated(*(column[a[i] : a[i + 1]] for column in self.annotated))
            yield Scene(annotated, Found(*(column[f[i] : f[i + 1]] for column in self.found)))

    def groups(self, images: int) -> Iterator[Scenes]:
        """So many images at a time, in their order."""
        for start in range(0, len(self), images):
            end = min(start + images, len(self))
            a, f = self.annotated_starts[start : end + 1], self.found_starts[start : end + 1]
            yield Scenes(
                self.ids[start:end],
                Annotated(*(column[a[0] : a[-1]] for column in self.annotated)),
                a - a[0],
                Found(*(column[f[0] : f[-1]] for column in self.found)),
                f - f[0],
                {question: numbers[start:end] for question, numbers in self.answers.items()},
            )


def pair(
    truth: Truth, image_ids: np.ndarray, found: Found, most: int, answers: Mapping[str, np.ndarray] | None = None
) -> Scenes:
    """Put those found beside those annotated.

    Args:
        truth: all images; people found in others are left out.
        image_ids: (N,) of those found.
        found: in any order; of equal scores in an image, the first comes first.
        most: of an image, only so many of those found count.
        answers: see `Scenes`.
    """
    rows, starts = by_image(truth.ids, image_ids, -found.scores)
    place = np.arange(len(rows)) - np.repeat(starts[:-1], np.diff(starts))
    rows = rows[place < most]
    starts = np.concatenate([[0], np.cumsum(np.minimum(np.diff(starts), most))])
    found = Found(*(column[rows] for column in found))
    return Scenes(truth.ids, truth.people, truth.starts, found, starts, answers or {})
