"""COCO annotations as columns: less than a kilobyte a person."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ijson
import numpy as np

from pipeline import storage
from pipeline.evaluation.matching import Annotated
from pipeline.skeletons import WHOLE_BODY_COLUMNS, Skeleton

PERSON = 1
# Different in every image, asked by nobody, and long.
_OF_EACH_IMAGE = ("coco_url", "flickr_url", "date_captured")
_HEAD_SEGMENT = 0.6  # of the diagonal of a head's box (Andriluka et al., CVPR 2014)


@dataclass(frozen=True)
class Truth:
    """The images of an annotation file, by ascending id, and the people annotated in them.

    Attributes:
        ids: (I,).
        images: what the file says of its images in plain values, `file_name` among it; None where it doesn't.
        people: of all images, image after image.
        starts: (I + 1,) where the people of each image begin.
        with_keypoints: whether any annotation has some.
    """

    ids: np.ndarray
    images: Mapping[str, list[Any]]
    people: Annotated
    starts: np.ndarray
    with_keypoints: bool

    def part(self, first: int, end: int) -> Truth:
        """Images `first` to `end`, without it."""
        starts = self.starts[first : end + 1]
        people = Annotated(*(column[starts[0] : starts[-1]] for column in self.people))
        images = {key: values[first:end] for key, values in self.images.items()}
        return Truth(self.ids[first:end], images, people, starts - starts[0], self.with_keypoints)


def read_truth(source: str | Mapping[str, Any], skeleton: Skeleton | None) -> Truth:
    """The truth in an annotation file; streams.

    Args:
        source: URI of a COCO annotation file, or its content.
        skeleton: of the keypoints to compare; None to compare boxes.

    Raises:
        ValueError: it isn't one, or an entry cannot be used, named by its number.
    """
    name = source if isinstance(source, str) else "the annotations"
    ids, images = _images(entries(source, "images"), name)
    rank = np.argsort(ids, kind="stable")
    ids = ids[rank]
    if (doubled := np.flatnonzero(ids[1:] == ids[:-1])).size:
        raise ValueError(f"{name}: two images have the id {ids[doubled[0]]}")
    columns = _People(name, skeleton)
    for number, entry in enumerate(entries(source, "annotations")):
        try:
            if entry.get("category_id", PERSON) == PERSON:
                columns.add(number, entry)
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{name}: annotations[{number}] has a value of the wrong kind ({error})") from None
    people, image_ids = columns.finish()
    rows, starts = by_image(ids, image_ids)
    ordered = {key: [values[i] for i in rank] for key, values in images.items()}
    return Truth(ids, ordered, Annotated(*(column[rows] for column in people)), starts, columns.with_keypoints)


def entries(source: str | Mapping[str, Any], key: str) -> Iterator[Any]:
    """The entries of a list in a JSON object, one at a time.

    Raises:
        ValueError: it is no JSON.
    """
    if not isinstance(source, str):
        yield from source.get(key, ())
        return
    with storage.open_read(source) as stream:
        try:
            yield from ijson.items(stream, f"{key}.item" if key else "item", use_float=True)
        except ijson.JSONError as error:
            raise ValueError(f"{source}: not valid JSON ({str(error).splitlines()[0]})") from None


def by_image(ids: np.ndarray, image_ids: np.ndarray, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows image by image, and (I + 1,) where each image's begin; rows of other images are left out.

    Args:
        ids: (I,) of the images, ascending.
        image_ids: (N,) of the rows.
        order: (N,) rows of an image come by it, ascending, equal ones as they stand; by default as they stand.
    """
    rank = np.searchsorted(ids, image_ids)
    known = rank < len(ids)
    known[known] = ids[rank[known]] == image_ids[known]
    rank = np.where(known, rank, len(ids))
    rows = np.argsort(rank, kind="stable") if order is None else np.lexsort((order, rank))
    starts = np.searchsorted(rank[rows], np.arange(len(ids) + 1))
    return rows[: starts[-1]], starts


def _images(found: Iterable[Any], name: str) -> tuple[np.ndarray, dict[str, list[Any]]]:
    ids = array("q")
    columns: dict[str, list[Any]] = {}
    shared: dict[str, str] = {}
    for number, image in enumerate(found):
        if not isinstance(image, dict) or "id" not in image or "file_name" not in image:
            raise ValueError(f"{name}: images[{number}] lacks id or file_name")
        if not isinstance(image["id"], int):
            raise ValueError(f"{name}: images[{number}] has the id {image['id']!r}; expected a whole number")
        ids.append(image["id"])
        for key, value in image.items():
            if isinstance(value, str | int | float) and key not in _OF_EACH_IMAGE:
                column = columns.setdefault(key, [])
                column += [None] * (number - len(column))
                # Sources and licences repeat; a million copies of them needn't be kept.
                column.append(shared.setdefault(value, value) if isinstance(value, str) else value)
    if not ids:
        raise ValueError(f"{name}: not a COCO annotation file, or an empty one; it has no `images`")
    for column in columns.values():
        column += [None] * (len(ids) - len(column))
    return np.array(ids), columns


class _People:
    """Columns of annotated people as they come in."""

    def __init__(self, name: str, skeleton: Skeleton | None) -> None:
        self.with_keypoints = False
        self._name = name
        self._skeleton = skeleton
        self._joints = len(skeleton) if skeleton else 0
        self._whole_body = skeleton is not None and skeleton.name == "wholebody133"
        self._image_ids = array("q")
        self._numbers = array("d")  # box, area, head segment
        self._flags = bytearray()  # crowd, ignored
        self._keypoints = array("d")

    def add(self, number: int, entry: Mapping[str, Any]) -> None:
        for key in ("image_id", "bbox", "area"):
            if key not in entry:
                raise ValueError(f"{self._name}: annotations[{number}] lacks {key}")
        keypoints = [] if entry.get("keypoints") is None else list(entry["keypoints"])
        self.with_keypoints |= bool(keypoints)
        labelled = entry.get("num_keypoints")
        if self._whole_body and len(keypoints) < 3 * self._joints:
            keypoints += [value for column in WHOLE_BODY_COLUMNS for value in entry.get(column) or ()]
            labelled = None
        if labelled is None:
            labelled = sum(v > 0 for v in keypoints[2::3])
        if len(entry["bbox"]) != 4:
            raise ValueError(
                f"{self._name}: annotations[{number}] has {len(entry['bbox'])} values in 'bbox', expected 4"
            )
        if self._skeleton and keypoints and len(keypoints) != 3 * self._joints:
            raise ValueError(
                f"{self._name}: annotations[{number}] (image_id {entry['image_id']}) has {len(keypoints)} values in "
                f"'keypoints', expected {3 * self._joints} ({self._skeleton.name})"
            )
        crowd = bool(entry.get("iscrowd"))
        self._image_ids.append(entry["image_id"])
        self._numbers.extend(entry["bbox"])
        self._numbers.append(entry["area"])
        self._numbers.append(_head_segment(entry.get("head_box")))
        self._flags += bytes((crowd, crowd or (self._joints > 0 and labelled == 0)))
        if self._joints:
            # Annotations of boxes alone have no keypoints, and are nobody to find in a comparison of poses.
            self._keypoints.extend(keypoints or [0.0] * (3 * self._joints))

    def finish(self) -> tuple[Annotated, np.ndarray]:
        """The people, and (N,) the ids of their images."""
        numbers = np.array(self._numbers).reshape(-1, 6)
        flags = np.frombuffer(bytes(self._flags), bool).reshape(-1, 2)
        keypoints = np.array(self._keypoints).reshape(len(numbers), self._joints, 3)
        people = Annotated(numbers[:, :4], numbers[:, 4], flags[:, 0], flags[:, 1], keypoints, numbers[:, 5])
        return people, np.array(self._image_ids)


def _head_segment(box: Any) -> float:
    return _HEAD_SEGMENT * float(np.hypot(box[2], box[3])) if box else float("nan")
