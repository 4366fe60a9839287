"""Annotated people, cut out of their images once, so that epochs do not read the images again.

A crop covers everything that augmentation can show except the farthest corners, at no higher resolution than the
network's input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.coco.boxes import box_xyxy
from pipeline.coco.categories import PersonCategory, person_entries
from pipeline.coco.errors import AnnotationError
from pipeline.coco.keypoints import has_whole_body_columns, joined_keypoints
from pipeline.jpeg import encode_jpeg
from pipeline.skeletons import SKELETONS
from pipeline.training import jpegs

# Share of the longer side of a box that rotation by 45 degrees, scaling and jitter can bring into a crop.
_MARGIN = 0.55
_ARRAYS = ("boxes", "keypoints", "labelled", "weights")


@dataclass(frozen=True)
class AnnotatedPerson:
    """One person of an annotation file.

    Attributes:
        id: id of the annotation.
        box: (4,) x1 y1 x2 y2 in image pixels.
        keypoints: (K, 2) x y in image pixels, in the order of the skeleton that is trained.
        labelled: (K,) bool.
    """

    id: int
    box: np.ndarray
    keypoints: np.ndarray
    labelled: np.ndarray


def joint_map(from_joints: Sequence[str], to_joints: Sequence[str], name: str) -> np.ndarray:
    """(len(to_joints),) index of each joint of `to_joints` in `from_joints`, by name; -1 if it is missing there.

    Args:
        name: the file, for error messages.

    Raises:
        AnnotationError: they share no joint.
    """
    indices = np.array([from_joints.index(joint) if joint in from_joints else -1 for joint in to_joints])
    if (indices < 0).all():
        raise AnnotationError(
            f"{name}: none of its joints ({', '.join(from_joints[:4])}, ...) is a joint of the trained skeleton "
            f"({', '.join(to_joints[:4])}, ...)"
        )
    return indices


def entries_with_joints(
    annotations: Mapping[str, Any], joints: Sequence[str], name: str, file_joints: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The keypoint annotations of a file, converted to the joints of a skeleton.

    Args:
        annotations: a loaded COCO keypoint file, with or without COCO-WholeBody's columns of feet, face and hands.
        joints: joint names of the skeleton.
        name: the file, for error messages.
        file_joints: joint names of the file; by default those of its person category, else `joints`.

    Returns:
        The entries with `keypoints` as (K, 3) float32 x y v, in the order of `joints`; v is 0 if the file does not have
        the joint. Entries without keypoints are left out.

    Raises:
        AnnotationError: an entry is not a keypoint annotation.
    """
    entries = [entry for entry in person_entries(annotations, name) if entry.get("keypoints") is not None]
    whole_body = any(map(has_whole_body_columns, entries))
    if file_joints is None:
        person = PersonCategory(annotations.get("categories") or (), name).id
        named = [
            c["keypoints"] for c in annotations.get("categories") or () if c["id"] == person and c.get("keypoints")
        ]
        file_joints = SKELETONS["wholebody133"].joints if whole_body else named[0] if named else joints
    indices = joint_map(list(file_joints), list(joints), name)
    converted = []
    for entry in entries:
        values = joined_keypoints(entry, len(file_joints))
        try:
            array = np.asarray(values, np.float32)
        except (TypeError, ValueError):
            raise AnnotationError(f"{name}: annotation {entry.get('id')} has keypoints that are not numbers") from None
        if array.shape != (3 * len(file_joints),):
            raise AnnotationError(
                f"{name}: annotation {entry.get('id')} has {array.size} keypoint values; "
                f"{len(file_joints)} joints need {3 * len(file_joints)}"
            )
        array = array.reshape(-1, 3)[indices]
        array[indices < 0] = 0
        if not np.isfinite(array[array[:, 2] != 0]).all():
            raise AnnotationError(f"{name}: annotation {entry.get('id')} has a keypoint that is not finite")
        converted.append({**entry, "keypoints": array})
    return converted


def people_by_image(
    annotations: Mapping[str, Any],
    joints: Sequence[str],
    name: str,
    min_joints: int = 1,
    file_joints: Sequence[str] | None = None,
) -> dict[int, list[AnnotatedPerson]]:
    """The people that can be trained on, by image id.

    Crowds, people without a box, and people with fewer than `min_joints` labelled joints are left out. A joint with
    v = 0 is unlabelled, hidden or not. For the other arguments see `entries_with_joints`.

    Raises:
        AnnotationError: an entry cannot be used.
    """
    people: dict[int, list[AnnotatedPerson]] = {}
    for entry in entries_with_joints(annotations, joints, name, file_joints):
        if entry.get("iscrowd"):
            continue
        values = entry["keypoints"]
        labelled = values[:, 2] > 0
        box = box_xyxy(entry, name)
        if box is None or labelled.sum() < min_joints:
            continue
        if not isinstance(entry.get("id"), int) or not isinstance(entry.get("image_id"), int):
            raise AnnotationError(f"{name}: annotation {entry.get('id')} needs integers as id and image_id")
        person = AnnotatedPerson(entry["id"], box, values[:, :2] * labelled[:, None], labelled)
        people.setdefault(entry["image_id"], []).append(person)
    return people


@dataclass(frozen=True)
class PeopleSet:
    """People cut out of their images; row i of each attribute is person i.

    Attributes:
        jpegs: encoded crops.
        boxes: (N, 4) float32 x1 y1 x2 y2, in pixels of the crop.
        keypoints: (N, K, 2) float32 x y, in pixels of the crop.
        labelled: (N, K) bool.
        weights: (N,) float32, how often a person is drawn, relative to the others.
    """

    jpegs: list[bytes]
    boxes: np.ndarray
    keypoints: np.ndarray
    labelled: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.jpegs)

    def pixels(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return jpegs.decode(self.jpegs[row])

    def to_bytes(self, made_for: str = "") -> bytes:
        """Everything as one .npz; see `jpegs.to_npz`."""
        return jpegs.to_npz(self.jpegs, made_for, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def from_bytes(cls, content: bytes) -> PeopleSet:
        encoded, arrays = jpegs.from_npz(content)
        return cls(encoded, **arrays)

    @classmethod
    def join(cls, sets: Sequence[PeopleSet]) -> PeopleSet:
        """All people of several sets, in order."""
        arrays = (np.concatenate([getattr(s, name) for s in sets]) for name in _ARRAYS)
        return cls([jpeg for s in sets for jpeg in s.jpegs], *arrays)

    def rows(self, chosen: Sequence[int] | np.ndarray) -> PeopleSet:
        """The people of these rows."""
        index = np.asarray(chosen, int)
        arrays = (getattr(self, name)[index] for name in _ARRAYS)
        return PeopleSet([self.jpegs[i] for i in index], *arrays)


def cut_people(
    images: Iterable[tuple[np.ndarray, Sequence[AnnotatedPerson], float]], input_size: tuple[int, int]
) -> PeopleSet:
    """Cut people out of their images.

    Args:
        images: pixels (H, W, 3) uint8 RGB, people and weight of each image.
        input_size: height and width of the network's input, pixels; larger people are shrunk to it, smaller ones are
            not enlarged.

    Raises:
        AnnotationError: no person.
    """
    cuts = [cut for pixels, people, weight in images for cut in _cut(pixels, people, weight, input_size)]
    if not cuts:
        raise AnnotationError("--sets: no people to train on; no annotation has a box and labelled joints")
    encoded, boxes, keypoints, labelled, weights = zip(*cuts, strict=True)
    return PeopleSet(
        list(encoded), np.stack(boxes), np.stack(keypoints), np.stack(labelled), np.array(weights, np.float32)
    )


def _cut(
    pixels: np.ndarray, people: Sequence[AnnotatedPerson], weight: float, input_size: tuple[int, int]
) -> Iterator[tuple[bytes, np.ndarray, np.ndarray, np.ndarray, float]]:
    height, width = pixels.shape[:2]
    for person in people:
        x1, y1, x2, y2 = person.box
        margin = _MARGIN * max((x2 - x1) * input_size[0] / input_size[1], y2 - y1)
        left, top = int(np.clip(x1 - margin, 0, width - 1)), int(np.clip(y1 - margin, 0, height - 1))
        right, bottom = (
            int(np.clip(np.ceil(x2 + margin), left + 1, width)),
            int(np.clip(np.ceil(y2 + margin), top + 1, height)),
        )
        crop = pixels[top:bottom, left:right]
        shrink = min(1.0, input_size[0] / max(y2 - y1, (x2 - x1) * input_size[0] / input_size[1]))
        if shrink < 1:
            sides = (max(1, round(crop.shape[1] * shrink)), max(1, round(crop.shape[0] * shrink)))
            crop = cv2.resize(crop, sides, interpolation=cv2.INTER_AREA)
        ratio = np.array([crop.shape[1] / (right - left), crop.shape[0] / (bottom - top)], np.float32)
        # Whole numbers are pixel centres; shrinking maps pixel edges to pixel edges.
        corner = np.array([left, top], np.float32) - (1 - 1 / ratio) / 2
        box = ((person.box.reshape(2, 2) - corner) * ratio).reshape(4)
        keypoints = (person.keypoints - corner) * ratio * person.labelled[:, None]
        yield encode_jpeg(crop), box.astype(np.float32), keypoints.astype(np.float32), person.labelled, weight
