"""Those found: from COCO results, or from the tables of a run, which are also written as COCO results."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.evaluation.matching import Found
from pipeline.evaluation.truth import PERSON, entries
from pipeline.people import People
from pipeline.run import Run
from pipeline.skeletons import Skeleton
from pipeline.sources import CocoIds
from pipeline.tables import read_table, to_people

_DECIMALS = 3  # of a pixel, in COCO results


class Results(NamedTuple):
    """People found.

    Attributes:
        image_ids: (N,) COCO ids.
        found: in the results' order.
        warnings: what is odd about them though COCO tolerates it.
    """

    image_ids: np.ndarray
    found: Found
    warnings: tuple[str, ...] = ()


def read_results(source: str | Iterable[Mapping[str, Any]], known: np.ndarray, skeleton: Skeleton | None) -> Results:
    """COCO results; streams.

    Args:
        source: URI of a results file, or its entries.
        known: (I,) ids of the annotated images, ascending.
        skeleton: of the keypoints; None for boxes.

    Raises:
        ValueError: an entry that cannot be evaluated, named by its number.
    """
    key, length = ("keypoints", 3 * len(skeleton)) if skeleton else ("bbox", 4)
    image_ids, scores, numbers = array("q"), array("d"), array("d")
    seen: set[int] = set()
    known_ids = set(known.tolist())
    twice = 0
    for number, entry in enumerate(entries_of(source) if isinstance(source, str) else source):
        try:
            values = _checked(number, entry, known_ids, key, length)
        except TypeError as error:
            raise ValueError(f"results entry {number} has a value of the wrong kind ({error})") from None
        digest = hash((entry["image_id"], entry["score"], *values))
        twice += digest in seen
        seen.add(digest)
        if entry.get("category_id", PERSON) == PERSON:
            image_ids.append(int(entry["image_id"]))
            scores.append(entry["score"])
            numbers.extend(values)
    warnings = (
        [f"{twice} results entries are there more than once; COCO counts each as a person found"] if twice else []
    )
    columns, score_column = np.array(numbers).reshape(-1, length), np.array(scores)
    if skeleton:
        poses = columns.reshape(-1, len(skeleton), 3)
        found = _of_poses(poses[..., :2], poses[..., 2], score_column)
    else:
        found = _of_boxes(columns, score_column)
    return Results(np.array(image_ids), found, tuple(warnings))


def entries_of(results: str) -> Iterator[Any]:
    """The entries of a results file; streams.

    Raises:
        ValueError: it is no JSON list.
    """
    with storage.open_read(results) as stream:
        first = stream.read(64).lstrip()[:1]
    if first != b"[":
        raise ValueError(
            f"{results}: expected a JSON list of COCO results; it begins with {first.decode(errors='replace')!r}"
        )
    return entries(results, "")


def _checked(number: int, entry: Any, known: set[int], key: str, length: int) -> list[float]:
    if not isinstance(entry, dict):
        raise ValueError(f"results entry {number} is {type(entry).__name__}, expected an object")
    where = f"results entry {number} (image_id {entry.get('image_id')})"
    if entry.get("image_id") not in known:
        raise ValueError(f"{where}: the annotations have no such image")
    values = entry.get(key)
    if values is None or len(values) != length:
        found = "no" if values is None else len(values)
        raise ValueError(f"{where}: {found} values in {key!r}, expected {length}")
    if "score" not in entry:
        raise ValueError(f"{where}: no score; average precision needs one for every entry")
    if not all(math.isfinite(v) for v in (*values, entry["score"])):
        raise ValueError(f"{where}: {key!r} or score is not finite")
    return values


def run_poses(run: Run, ids: CocoIds, skeleton: Skeleton) -> Results:
    """The people of a reduced run in images that have a COCO id, as `coco_results.json` would say."""
    found = list(_tables(run, ids))
    people = [People.empty(len(skeleton)), *(people for _, people in found)]
    return Results(_joined([numbers for numbers, _ in found], np.int64), found_people(people))


def found_people(people: Sequence[People]) -> Found:
    """People of several images or tables, at least one, as COCO results would tell them."""
    poses = np.concatenate([_poses(p) for p in people])
    scores = _joined([p.pose_scores for p in people], np.float64)
    return _of_poses(poses[..., :2], poses[..., 2], scores)


def run_boxes(run: Run, ids: CocoIds) -> Results:
    """The boxes of the same people, scored by the detector."""
    found = list(_tables(run, ids))
    corners = _joined([np.zeros((0, 4)), *(people.boxes for _, people in found)], np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    scores = _joined([people.box_scores for _, people in found], np.float64)
    return Results(_joined([numbers for numbers, _ in found], np.int64), _of_boxes(boxes, scores))


def write_coco_results(run: Run) -> str:
    """Write `coco_results.json` and return its URI; one table at a time in memory."""
    uri = run.path("coco_results.json")
    with storage.open_write(uri) as stream:
        stream.write(b"[")
        for number, entry in enumerate(_entries(run)):
            stream.write((b",\n" if number else b"\n") + json.dumps(entry).encode())
        stream.write(b"\n]\n")
    return uri


def _entries(run: Run) -> Iterator[dict[str, Any]]:
    for image_ids, people in _tables(run, None):
        for number, pose, score in zip(image_ids.tolist(), _poses(people), people.pose_scores.tolist(), strict=True):
            yield {
                "image_id": number,
                "category_id": PERSON,
                "keypoints": pose.ravel().tolist(),
                "score": score,
            }


def _tables(run: Run, ids: CocoIds | None) -> Iterator[tuple[np.ndarray, People]]:
    """COCO ids and people of each table that has any; by default with the ids that the run was told."""
    for table in read_table(run.uri, "people"):
        if ids is None:
            numbers = table["coco_id"].to_pylist()
        else:
            numbers = [ids.get(image_id) for image_id in table["image_id"].to_pylist()]
        known = np.array([number is not None for number in numbers], bool)
        if known.any():
            yield np.array([n for n in numbers if n is not None], np.int64), to_people(table)[known]


def _poses(people: People) -> np.ndarray:
    """(N, K, 3) x y score as they are written: more decimals than a keypoint has would only fill disks."""
    values = np.concatenate([people.keypoints, people.keypoint_scores[..., None]], axis=2)
    return np.round(values.astype(np.float64), _DECIMALS)


def _joined(columns: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(columns).astype(dtype) if columns else np.zeros(0, dtype)


def _of_poses(keypoints: np.ndarray, keypoint_scores: np.ndarray, scores: np.ndarray) -> Found:
    first, last = keypoints.min(axis=1), keypoints.max(axis=1)
    boxes = np.concatenate([first, last - first], axis=1)
    return Found(boxes, boxes[:, 2] * boxes[:, 3], scores, keypoints, keypoint_scores)


def _of_boxes(boxes: np.ndarray, scores: np.ndarray) -> Found:
    none = np.zeros((len(boxes), 0))
    return Found(boxes, boxes[:, 2] * boxes[:, 3], scores, np.zeros((len(boxes), 0, 2)), none)
