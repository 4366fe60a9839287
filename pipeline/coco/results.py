"""COCO results files: people or boxes detected by any tool."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.coco.annotations import Annotations, entries
from pipeline.coco.columns import Detections
from pipeline.coco.errors import AnnotationError
from pipeline.coco.keypoints import joined_keypoints
from pipeline.skeletons import Skeleton


class Results(NamedTuple):
    """Detected people.

    Attributes:
        image_ids: (N,) COCO ids.
        detections: of the N people, in the order of the results.
        warnings: oddities that COCO's evaluation tolerates.
    """

    image_ids: np.ndarray
    detections: Detections
    warnings: tuple[str, ...] = ()


def read_results(
    source: str | Iterable[Mapping[str, Any]], annotations: Annotations, skeleton: Skeleton | None
) -> Results:
    """Read the people of COCO results; streams.

    The area of a pose, by which small and large people are evaluated apart, is that of its `bbox` if the first entry
    has one, else that of the extent of its joints, as in pycocotools.

    Args:
        source: URI of a results file, or its entries.
        annotations: that the results belong to; their person category and image ids count.
        skeleton: of the keypoints; None for boxes. Columns of COCO-WholeBody are joined.

    Raises:
        AnnotationError: an entry that cannot be evaluated (the message has its number), or no entry is of a person.
    """
    known_ids = set(annotations.ids.tolist())
    columns = _Columns(skeleton)
    others: set[Any] = set()
    seen: set[int] = set()
    repeated = 0
    file = f"{source}: " if isinstance(source, str) else ""
    for number, entry in enumerate(result_entries(source) if isinstance(source, str) else source):
        where = f"{file}results entry {number}"
        try:
            image, values = _checked(entry, where, annotations, known_ids, skeleton)
            category = entry.get("category_id")
            digest = hash((image, entry["score"], *values))
            if None not in (category, annotations.person_id) and category != annotations.person_id:
                others.add(category)
            else:
                columns.add(image, entry, values)
        except TypeError as error:
            raise AnnotationError(f"{where} has a value of the wrong type ({error})") from None
        repeated += digest in seen
        seen.add(digest)
    if others and not columns.image_ids:
        raise AnnotationError(
            f"{file}no result is of a person: category_id of the results is {', '.join(sorted(map(str, others)))}, the "
            f"annotations' person is {annotations.person_id}"
        )
    warnings = (f"{repeated} results entries occur more than once; COCO counts each one",) if repeated else ()
    return Results(np.array(columns.image_ids, np.int64), columns.detections(), warnings)


class _Columns:
    """Collects results into columns."""

    def __init__(self, skeleton: Skeleton | None) -> None:
        self.image_ids = array("q")
        self._skeleton = skeleton
        self._scores, self._values, self._boxes = array("d"), array("d"), array("d")
        self._by_box = False

    def add(self, image: int, entry: Mapping[str, Any], values: list[float]) -> None:
        if not self.image_ids:
            self._by_box = self._skeleton is not None and bool(entry.get("bbox"))
        self.image_ids.append(image)
        self._scores.append(entry["score"])
        self._values.extend(values)
        if self._by_box:
            x, y, width, height = entry.get("bbox") or _extent(values)
            self._boxes.extend((x, y, width, height))

    def detections(self) -> Detections:
        scores = np.array(self._scores)
        if self._skeleton is None:
            return Detections.from_boxes(np.array(self._values).reshape(-1, 4), scores)
        poses = np.array(self._values).reshape(-1, len(self._skeleton), 3)
        detections = Detections.from_poses(poses[..., :2], poses[..., 2], scores)
        if not self._by_box:
            return detections
        boxes_xywh = np.array(self._boxes).reshape(-1, 4)
        return detections._replace(boxes_xywh=boxes_xywh, areas=boxes_xywh[:, 2] * boxes_xywh[:, 3])


def _extent(values: list[float]) -> tuple[float, float, float, float]:
    """x y width height of joints x y score, one after another."""
    xs, ys = values[::3], values[1::3]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def result_entries(uri: str) -> Iterator[Any]:
    """The entries of a results file; streams.

    Raises:
        AnnotationError: it is not a JSON list.
    """
    with storage.open_read(uri) as stream:
        first = stream.read(64).lstrip()[:1]
    if first != b"[":
        raise AnnotationError(
            f"{uri}: expected a JSON list of COCO results; it starts with {first.decode(errors='replace')!r}"
        )
    return entries(uri, "")


def _checked(
    entry: Any, where: str, annotations: Annotations, known: set[int], skeleton: Skeleton | None
) -> tuple[int, list[float]]:
    """The number of an entry's image, and its joints x y score or its box."""
    if not isinstance(entry, dict):
        raise AnnotationError(f"{where} is {type(entry).__name__}, expected an object")
    image = annotations.number(entry.get("image_id"), where)
    where += f" (image_id {entry['image_id']})"
    if image is None or image not in known:
        raise AnnotationError(f"{where}: the annotations have no such image")
    key, length = ("keypoints", 3 * len(skeleton)) if skeleton else ("bbox", 4)
    values = joined_keypoints(entry, len(skeleton)) if skeleton else entry.get(key)
    if not values or len(values) != length:
        raise AnnotationError(f"{where}: {len(values) if values else 'no'} values in {key!r}, expected {length}")
    if "score" not in entry:
        raise AnnotationError(f"{where}: no score; average precision needs one for every entry")
    if not math.isfinite(entry["score"]):
        raise AnnotationError(f"{where}: score is not finite")
    if not all(map(math.isfinite, values)):
        raise AnnotationError(f"{where}: {key!r} has a number that is not finite")
    return image, values
