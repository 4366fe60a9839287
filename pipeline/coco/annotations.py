"""COCO annotation files: as plain content, or streamed into columns."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import ijson
import numpy as np

from pipeline import storage
from pipeline.coco.categories import PersonCategory
from pipeline.coco.columns import GroundTruth
from pipeline.coco.errors import AnnotationError
from pipeline.coco.ids import CocoIds, image_id, match_ids
from pipeline.coco.keypoints import WHOLE_BODY_JOINTS, joined_keypoints
from pipeline.skeletons import Skeleton

# Unique in every image and long: useless to group images by.
_DROPPED_IMAGE_FIELDS = ("coco_url", "flickr_url", "date_captured")
_UNKNOWN = -(1 << 63)  # number of an annotation's image that the file does not list
_HEAD_LENGTH = 0.6  # of the diagonal of the head's box (PCKh: Andriluka et al., CVPR 2014)


def load_annotations(uri: str) -> dict[str, Any]:
    """The content of a COCO annotation file, whose images all have an id and a name. It may lack `annotations`.

    Raises:
        AnnotationError: it is not an annotation file.
        storage.MissingObject: there is no such file.
    """
    content = load_json(uri)
    if not isinstance(content, dict) or "images" not in content:
        raise AnnotationError(f"{uri}: not a COCO annotation file; it has no `images`")
    for key in ("images", "annotations"):
        if not isinstance(content.get(key, []), list):
            raise AnnotationError(f"{uri}: `{key}` is {type(content[key]).__name__}, expected a list")
    for index, entry in enumerate(content.get("annotations", [])):
        if not isinstance(entry, dict):
            raise AnnotationError(f"{uri}: annotations[{index}] is {type(entry).__name__}, expected an object")
    names: dict[int | str, Any] = {}
    for index, image in enumerate(content["images"]):
        if not isinstance(image, dict) or "id" not in image or "file_name" not in image:
            raise AnnotationError(f"{uri}: images[{index}] lacks id or file_name")
        id_ = image_id(image["id"], f"{uri}: images[{index}]")
        if names.setdefault(id_, image["file_name"]) != image["file_name"]:
            raise AnnotationError(f"{uri}: two images have the id {id_}: {names[id_]} and {image['file_name']}")
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise AnnotationError(f"{uri}: images[{index}] has the file_name {image['file_name']!r}; expected text")
    return content


def load_json(uri: str) -> Any:
    """The content of a JSON file.

    Raises:
        AnnotationError: it is not JSON.
    """
    try:
        return json.loads(storage.read_bytes(uri))
    except storage.MissingObject:
        raise
    except ValueError as error:
        raise AnnotationError(f"{uri}: not valid JSON ({error})") from None


def person_category(source: str | Mapping[str, Any]) -> PersonCategory:
    """The person category of a file; streams.

    Args:
        source: URI of a COCO annotation file, or its content.

    Raises:
        AnnotationError: no category is a person, see `PersonCategory`.
    """
    return PersonCategory(entries(source, "categories"), source if isinstance(source, str) else "the annotations")


def person_id(source: str | Mapping[str, Any]) -> int | None:
    """The category id of people in a file; None if it has neither categories nor annotations. Streams.

    Raises:
        AnnotationError: no category is a person, see `PersonCategory`.
    """
    category = person_category(source)
    if category.id is None:
        for entry in entries(source, "annotations"):
            category.accepts(entry)
            break
    return category.id


@dataclass(frozen=True)
class Annotations:
    """The images of an annotation file, by ascending id, and the people annotated in them.

    Attributes:
        ids: (I,) image ids.
        images: scalar fields of the file's images, one list of I values each, `file_name` among them; None where an
            image lacks the field.
        people: of all images, image after image.
        starts: (I + 1,) where the people of each image start.
        with_keypoints: whether any annotation has keypoints.
        numbers: the number in `ids` of each image whose id is text; such ids get numbers that are not in the file.
        person_id: the category id of people; None if the file has neither categories nor annotations.
    """

    ids: np.ndarray
    images: Mapping[str, list[Any]]
    people: GroundTruth
    starts: np.ndarray
    with_keypoints: bool
    numbers: Mapping[str, int]
    person_id: int | None

    def number(self, value: Any, where: str) -> int | None:
        """The number in `ids` of an image id in another file; None if it is unknown.

        Args:
            where: the entry of that file, for error messages.

        Raises:
            AnnotationError: it is neither a whole number nor text.
        """
        number = image_id(value, where)
        return self.numbers.get(number) if isinstance(number, str) else number

    def slice(self, first: int, end: int) -> Annotations:
        """Images `first` up to, not including, `end`."""
        starts = self.starts[first : end + 1]
        people = self.people.rows(slice(starts[0], starts[-1]))
        images = {key: values[first:end] for key, values in self.images.items()}
        return replace(self, ids=self.ids[first:end], images=images, people=people, starts=starts - starts[0])

    def select(self, ids: Iterable[int]) -> Annotations:
        """The images with these ids."""
        kept = np.flatnonzero(np.isin(self.ids, list(ids)))
        counts = np.diff(self.starts)[kept]
        rows = [np.arange(self.starts[i], self.starts[i + 1]) for i in kept]
        people = self.people.rows(np.concatenate([np.zeros(0, int), *rows]))
        images = {key: [values[i] for i in kept] for key, values in self.images.items()}
        starts = np.concatenate([[0], np.cumsum(counts)])
        return replace(self, ids=self.ids[kept], images=images, people=people, starts=starts)

    def match_ids(self, keys: Iterable[str]) -> CocoIds[int]:
        """The numbers in `ids` of the images of a collection; see `pipeline.coco.ids.match_ids`.

        Raises:
            AnnotationError: no image has a `file_name`.
        """
        if "file_name" not in self.images:
            raise AnnotationError("the images of the annotations have no file_name, so they cannot be found in a run")
        named = zip(self.images["file_name"], self.ids.tolist(), strict=True)
        return match_ids(((name, number) for name, number in named if name is not None), keys)


def read_annotations(source: str | Mapping[str, Any], skeleton: Skeleton | None) -> Annotations:
    """Read an annotation file into columns; streams.

    Args:
        source: URI of a COCO annotation file, or its content.
        skeleton: of the keypoints to compare; None to compare boxes.

    Raises:
        AnnotationError: it is not an annotation file, or an entry cannot be used; the message has its number.
    """
    name = source if isinstance(source, str) else "the annotations"
    category = person_category(source)
    ids, images, numbers = _images(entries(source, "images"), name)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    people = _PeopleColumns(name, skeleton, numbers)
    for number, entry in enumerate(entries(source, "annotations")):
        try:
            if category.accepts(entry):
                people.add(number, entry)
        except (TypeError, AttributeError, OverflowError) as error:
            raise AnnotationError(f"{name}: annotations[{number}] has a value of the wrong type ({error})") from None
    ground_truth, image_ids = people.finish()
    rows, starts = group_by_image(ids, image_ids)
    ordered = {key: [values[i] for i in order] for key, values in images.items()}
    return Annotations(ids, ordered, ground_truth.rows(rows), starts, people.with_keypoints, numbers, category.id)


def entries(source: str | Mapping[str, Any], key: str) -> Iterator[Any]:
    """The entries of a list in a JSON object, one at a time. Numbers that are not finite are read, too.

    Args:
        source: URI of the file, or its content.
        key: of the list; "" if the file itself is the list.

    Raises:
        AnnotationError: it is not JSON.
    """
    if not isinstance(source, str):
        yield from _listed(source, key, "the annotations")
        return
    count = 0
    with storage.open_read(source) as stream:
        try:
            for entry in ijson.items(stream, f"{key}.item" if key else "item", use_float=True):
                yield entry
                count += 1
            return
        except ijson.JSONError:
            pass
    # Many programs write NaN, which is not JSON: read the whole file to name the entry, or the damage.
    content = load_json(source)
    yield from islice(_listed(content, key, source), count, None)


def _listed(content: Any, key: str, name: str) -> list[Any]:
    """The list under a key of an object, empty if it has none; the content itself if the key is empty."""
    if key and not isinstance(content, Mapping):
        raise AnnotationError(f"{name}: expected an object with `{key}`, not {type(content).__name__}")
    found = (content.get(key) or []) if key else content
    if not isinstance(found, list | tuple):
        raise AnnotationError(f"{name}: `{key}` is {type(found).__name__}, expected a list")
    return list(found)


def group_by_image(
    ids: np.ndarray, image_ids: np.ndarray, order: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers grouped by image.

    Args:
        ids: (I,) of the images, ascending.
        image_ids: (N,) of the rows; rows of other images are left out.
        order: (N,) sort keys of the rows within an image, ascending; equal ones, and by default all, keep their order.

    Returns:
        Row numbers, and (I + 1,) where those of each image start.
    """
    rank = np.searchsorted(ids, image_ids)
    known = rank < len(ids)
    known[known] = ids[rank[known]] == image_ids[known]
    rank = np.where(known, rank, len(ids))
    rows = np.argsort(rank, kind="stable") if order is None else np.lexsort((order, rank))
    starts = np.searchsorted(rank[rows], np.arange(len(ids) + 1))
    return rows[: starts[-1]], starts


def _images(listed: Iterable[Any], name: str) -> tuple[np.ndarray, dict[str, list[Any]], dict[str, int]]:
    """Ids, fields, and the numbers of ids that are text. An image that is listed twice counts once."""
    ids: dict[int | str, Any] = {}
    columns: dict[str, list[Any]] = {}
    shared: dict[str, str] = {}
    for number, image in enumerate(listed):
        where = f"{name}: images[{number}]"
        if not isinstance(image, dict) or "id" not in image:
            raise AnnotationError(f"{where} lacks id")
        id_ = image_id(image["id"], where)
        if id_ in ids:
            if ids[id_] != image.get("file_name"):
                raise AnnotationError(f"{name}: two images have the id {id_}")
            continue
        for key, value in image.items():
            if isinstance(value, str | int | float) and key not in _DROPPED_IMAGE_FIELDS:
                column = columns.setdefault(key, [])
                column += [None] * (len(ids) - len(column))
                # Sources and licences repeat: one copy of each text is enough for a million images.
                column.append(shared.setdefault(value, value) if isinstance(value, str) else value)
        ids[id_] = image.get("file_name")
    if not ids:
        raise AnnotationError(f"{name}: not a COCO annotation file, or an empty one; it has no `images`")
    for column in columns.values():
        column += [None] * (len(ids) - len(column))
    free = max((id_ for id_ in ids if isinstance(id_, int)), default=-1) + 1
    numbers = {id_: free + i for i, id_ in enumerate(id_ for id_ in ids if isinstance(id_, str))}
    return np.array([numbers[i] if isinstance(i, str) else i for i in ids], np.int64), columns, numbers


class _PeopleColumns:
    """Collects annotations into columns."""

    def __init__(self, name: str, skeleton: Skeleton | None, numbers: Mapping[str, int]) -> None:
        self.with_keypoints = False
        self._name = name
        self._skeleton = skeleton
        self._num_joints = len(skeleton) if skeleton else 0
        self._numbers_of_text = numbers
        self._image_ids = array("q")
        self._numbers = array("d")  # box, area, head length
        self._flags = bytearray()  # crowd, ignored
        self._keypoints = array("d")

    def add(self, number: int, entry: Mapping[str, Any]) -> None:
        where = f"{self._name}: annotations[{number}]"
        for key in ("image_id", "bbox", "area"):
            if key not in entry:
                raise AnnotationError(f"{where} lacks {key}")
        keypoints = joined_keypoints(entry, self._num_joints)
        if not all(map(math.isfinite, (*entry["bbox"], entry["area"], *keypoints))):
            raise AnnotationError(f"{where} (image_id {entry['image_id']}) has a number that is not finite")
        if entry["area"] < 0:
            raise AnnotationError(f"{where} (image_id {entry['image_id']}) has the area {entry['area']}")
        self.with_keypoints |= bool(entry.get("keypoints"))
        labelled = entry.get("num_keypoints")
        # COCO-WholeBody's `num_keypoints` counts the body's joints alone.
        if labelled is None or self._num_joints == WHOLE_BODY_JOINTS:
            labelled = sum(v > 0 for v in keypoints[2::3])
        if len(entry["bbox"]) != 4:
            raise AnnotationError(f"{where} has {len(entry['bbox'])} values in 'bbox', expected 4")
        if self._skeleton and keypoints and len(keypoints) != 3 * self._num_joints:
            raise AnnotationError(
                f"{where} (image_id {entry['image_id']}) has {len(keypoints)} values in 'keypoints', expected "
                f"{3 * self._num_joints} ({self._skeleton.name})"
            )
        crowd = bool(entry.get("iscrowd"))
        image = image_id(entry["image_id"], where)
        self._image_ids.append(self._numbers_of_text.get(image, _UNKNOWN) if isinstance(image, str) else image)
        self._numbers.extend(entry["bbox"])
        self._numbers.append(entry["area"])
        self._numbers.append(_head_length(entry.get("head_box")))
        self._flags += bytes((crowd, crowd or (self._num_joints > 0 and labelled == 0)))
        if self._num_joints:
            # Annotations with boxes alone have no keypoints; they are ignored when poses are compared.
            self._keypoints.extend(keypoints or [0.0] * (3 * self._num_joints))

    def finish(self) -> tuple[GroundTruth, np.ndarray]:
        """The people, and (N,) the ids of their images."""
        numbers = np.array(self._numbers).reshape(-1, 6)
        flags = np.frombuffer(bytes(self._flags), bool).reshape(-1, 2)
        keypoints = np.array(self._keypoints).reshape(len(numbers), self._num_joints, 3)
        people = GroundTruth(numbers[:, :4], numbers[:, 4], flags[:, 0], flags[:, 1], keypoints, numbers[:, 5])
        return people, np.array(self._image_ids)


def _head_length(box: Any) -> float:
    return _HEAD_LENGTH * float(np.hypot(box[2], box[3])) if box else float("nan")
