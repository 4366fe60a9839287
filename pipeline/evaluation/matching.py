"""Who of those found is who of those annotated, image by image: COCO's rules.

Lin et al., Microsoft COCO, ECCV 2014; https://cocodataset.org/#detection-eval and #keypoints-eval. Arithmetic is in
the order of pycocotools 2.0, so that numbers agree with it to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
# A similarity of exactly 1 has to meet a threshold of 1.
_MEETS = np.minimum(THRESHOLDS, 1 - 1e-10)
_BITS = (1 << np.arange(len(THRESHOLDS))).astype(np.uint16)


class Rules(NamedTuple):
    """What counts.

    Attributes:
        areas: names of ranges of people's areas, and their limits in square pixels.
        most: of an image, only so many of those found count, best first.
    """

    areas: Mapping[str, tuple[float, float]]
    most: int


_MEDIUM, _LARGE, _ANY = 32.0**2, 96.0**2, 1e5**2
KEYPOINT_RULES = Rules({"all": (0, _ANY), "medium": (_MEDIUM, _LARGE), "large": (_LARGE, _ANY)}, 20)
BOX_RULES = Rules({"all": (0, _ANY), "small": (0, _MEDIUM), "medium": (_MEDIUM, _LARGE), "large": (_LARGE, _ANY)}, 100)


class Annotated(NamedTuple):
    """The G annotated people of an image, in the annotations' order.

    Attributes:
        boxes: (G, 4) x y width height, pixels.
        areas: (G,) square pixels.
        crowd: (G,) bool: a region with more than one person, which any number of those found may match.
        ignored: (G,) bool: neither finding them nor missing them counts.
        keypoints: (G, K, 3) x y v; K is 0 for boxes.
        heads: (G,) length of the head segment, pixels; NaN where it isn't annotated.
    """

    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    keypoints: np.ndarray
    heads: np.ndarray


class Found(NamedTuple):
    """The D people found in an image, in the results' order.

    Attributes:
        boxes: (D, 4) x y width height, pixels.
        areas: (D,) square pixels.
        scores: (D,).
        keypoints: (D, K, 2) x y; K is 0 for boxes.
        keypoint_scores: (D, K).
    """

    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray


class Questions(NamedTuple):
    """Whom A numbers are about.

    Attributes:
        ignored: (A, G) bool: neither finding them nor missing them counts.
        aside: (A, D) bool: those found who don't count if they are nobody.
    """

    ignored: np.ndarray
    aside: np.ndarray


class Matches(NamedTuple):
    """What became of those found in some images, each image's best first, images in order.

    Attributes:
        scores: (N,).
        matched: (A, N) uint16, for each question: bit t is set where somebody matches at threshold t.
        ignored: (A, N) uint16: bit t is set where that counts neither way.
        people: (A,) how many annotated people there are to find.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    people: np.ndarray

    def of(self, questions: slice) -> Matches:
        """Of some of the questions."""
        return Matches(self.scores, self.matched[questions], self.ignored[questions], self.people[questions])


def keypoint_similarity(annotated: Annotated, found: Found, sigmas: np.ndarray) -> np.ndarray:
    """(D, G) object keypoint similarity.

    To somebody without labelled joints, how far joints lie outside twice their box counts.

    Args:
        sigmas: (K,) of the joints.
    """
    similarity = np.zeros((len(found.scores), len(annotated.areas)))
    variances = (sigmas * 2) ** 2
    for person, (box, area, joints) in enumerate(
        zip(annotated.boxes, annotated.areas, annotated.keypoints, strict=True)
    ):
        labelled = joints[:, 2] > 0
        if labelled.any():
            distance = found.keypoints - joints[:, :2]
        else:
            first, last = box[:2] - box[2:], box[:2] + box[2:] * 2
            distance = np.maximum(0, first - found.keypoints) + np.maximum(0, found.keypoints - last)
            labelled[:] = True
        squared = distance[..., 0] ** 2 + distance[..., 1] ** 2
        exponent = (squared / variances / (area + np.spacing(1)) / 2)[:, labelled]
        similarity[:, person] = np.exp(-exponent).sum(axis=1) / exponent.shape[1]
    return similarity


def box_similarity(annotated: Annotated, found: Found) -> np.ndarray:
    """(D, G) intersection over union; for a crowd, over the area of the box found."""
    a, b = found.boxes[:, None], annotated.boxes[None]
    sides = np.minimum(a[..., 2:] + a[..., :2], b[..., 2:] + b[..., :2]) - np.maximum(a[..., :2], b[..., :2])
    common = np.where((sides > 0).all(axis=2), sides[..., 0] * sides[..., 1], 0.0)
    own, theirs = a[..., 2] * a[..., 3], b[..., 2] * b[..., 3]
    union = np.where(annotated.crowd, own, own + theirs - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def by_area(annotated: Annotated, found: Found, rules: Rules) -> Questions:
    """A question for each range of areas."""
    ranges = np.array(list(rules.areas.values()))[:, :, None]
    outside = (annotated.areas < ranges[:, 0]) | (annotated.areas > ranges[:, 1])
    odd = (found.areas < ranges[:, 0]) | (found.areas > ranges[:, 1])
    return Questions(outside | annotated.ignored, odd)


def match(crowd: np.ndarray, scores: np.ndarray, similarity: np.ndarray, questions: Questions) -> Matches:
    """Match the people of an image, the best of those found choosing first.

    Args:
        crowd: (G,) of those annotated.
        scores: (D,) of those found, best first.
        similarity: (D, G).
        questions: asked all at once.
    """
    ignored, aside = questions
    shape = (len(ignored), len(THRESHOLDS), len(scores))
    matched, counts_not = np.zeros(shape, bool), np.zeros(shape, bool)
    if len(crowd):
        free = np.ones((len(ignored), len(THRESHOLDS), len(crowd)), bool)
        for d, similar in enumerate(similarity):
            if similar.max() >= THRESHOLDS[0]:
                _choose(similar, free, crowd, ignored, matched[..., d], counts_not[..., d])
    counts_not |= ~matched & aside[:, None]
    return Matches(scores, _pack(matched), _pack(counts_not), (~ignored).sum(axis=1))


def _choose(
    similar: np.ndarray,
    free: np.ndarray,
    crowd: np.ndarray,
    ignored: np.ndarray,
    matched: np.ndarray,
    counts_not: np.ndarray,
) -> None:
    """One of those found takes the most similar free person, of equal ones the last; those who count come first."""
    able = (similar >= _MEETS[:, None]) & (free | crowd)
    counting = able & ~ignored[:, None]
    pool = np.where(counting.any(axis=2, keepdims=True), counting, able)
    backwards = np.where(pool, similar, -1.0)[..., ::-1]
    chosen = len(similar) - 1 - backwards.argmax(axis=2)
    matched[:] = pool.any(axis=2)
    area, threshold = np.nonzero(matched)
    person = chosen[area, threshold]
    free[area, threshold, person] = False
    counts_not[area, threshold] = ignored[area, person]


def _pack(flags: np.ndarray) -> np.ndarray:
    """(A, T, D) bool as (A, D) bits."""
    return np.einsum("atd,t->ad", flags.astype(np.uint16), _BITS)


def unpack(bits: np.ndarray) -> np.ndarray:
    """(N,) bits as (T, N) bool."""
    return (bits & _BITS[:, None]) != 0


def join(parts: Sequence[Matches]) -> Matches:
    """Matches of several groups of images, at least one, in their order."""
    return Matches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.matched for part in parts], axis=1),
        np.concatenate([part.ignored for part in parts], axis=1),
        np.sum([part.people for part in parts], axis=0),
    )
