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

    Args:
        source: URI of a results file, or its entries.
        annotations: that the results belong to; their person category and image ids count.
        skeleton: of the keypoints; None for boxes.

    Raises:
        AnnotationError: an entry that cannot be evaluated (the message has its number), or no entry is of a person.
    """
    key, length = ("keypoints", 3 * len(skeleton)) if skeleton else ("bbox", 4)
    image_ids, scores, numbers = array("q"), array("d"), array("d")
    known_ids = set(annotations.ids.tolist())
    seen: set[int] = set()
    categories: set[Any] = set()
    repeated = 0
    for number, entry in enumerate(result_entries(source) if isinstance(source, str) else source):
        try:
            values = _checked(number, entry, known_ids, key, length)
            category = entry.get("category_id")
            digest = hash((entry["image_id"], entry["score"], *values))
        except TypeError as error:
            raise AnnotationError(f"results entry {number} has a value of the wrong type ({error})") from None
        repeated += digest in seen
        seen.add(digest)
        if None in (category, annotations.person_id) or category == annotations.person_id:
            image_ids.append(int(entry["image_id"]))
            scores.append(entry["score"])
            numbers.extend(values)
        else:
            categories.add(category)
    if categories and not image_ids:
        raise AnnotationError(
            f"no result is of a person: category_id of the results is {', '.join(sorted(map(str, categories)))}, the "
            f"annotations' person is {annotations.person_id}"
        )
    warnings = (f"{repeated} results entries occur more than once; COCO counts each one",) if repeated else ()
    columns, score_column = np.array(numbers).reshape(-1, length), np.array(scores)
    if skeleton:
        poses = columns.reshape(-1, len(skeleton), 3)
        detections = Detections.from_poses(poses[..., :2], poses[..., 2], score_column)
    else:
        detections = Detections.from_boxes(columns, score_column)
    return Results(np.array(image_ids, np.int64), detections, warnings)


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


def _checked(number: int, entry: Any, known: set[int], key: str, length: int) -> list[float]:
    if not isinstance(entry, dict):
        raise AnnotationError(f"results entry {number} is {type(entry).__name__}, expected an object")
    where = f"results entry {number} (image_id {entry.get('image_id')})"
    if entry.get("image_id") not in known:
        raise AnnotationError(f"{where}: the annotations have no such image")
    values = entry.get(key)
    if values is None or len(values) != length:
        count = "no" if values is None else len(values)
        raise AnnotationError(f"{where}: {count} values in {key!r}, expected {length}")
    if "score" not in entry:
        raise AnnotationError(f"{where}: no score; average precision needs one for every entry")
    if not all(math.isfinite(v) for v in (*values, entry["score"])):
        raise AnnotationError(f"{where}: {key!r} or score is not finite")
    return values
