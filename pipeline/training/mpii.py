"""MPII Human Pose's annotations as COCO keypoints (Andriluka et al., 2D Human Pose Estimation, CVPR 2014).

uv run -m pipeline.training.mpii mpii_human_pose_v1_u12_1.mat mpii_train.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.io import loadmat

from pipeline import storage
from pipeline.coco.errors import AnnotationError
from pipeline.errors import UserError, first_line
from pipeline.skeletons import SKELETONS

_FIRST = 1.0  # MATLAB counts pixels from 1, COCO from 0
# MPII has a centre and a scale instead of boxes; a person of scale 1 is 200 pixels tall.
_PIXELS_PER_SCALE = 200.0


def convert(mat: Any, name: str) -> dict[str, Any]:
    """COCO keypoint annotations of MPII's training images.

    Each person with joints gets a square box from MPII's centre and scale, and `head_box` [x, y, width, height], whose
    diagonal is the unit of PCKh. MPII's test images have no joints and are left out.

    Args:
        mat: `RELEASE` of the file as scipy reads it, with records as objects and single elements unwrapped.
        name: the file, for error messages.

    Raises:
        AnnotationError: it is not such a file.
    """
    skeleton = SKELETONS["mpii16"]
    try:
        entries = list(zip(_list(mat.annolist), _list(mat.img_train), strict=True))
    except (AttributeError, ValueError):
        raise AnnotationError(f"{name}: RELEASE needs annolist and img_train of the same length") from None
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (entry, training) in enumerate(entries, 1):
        if not training:
            continue
        people = [_annotation(person, len(skeleton)) for person in _people(entry)]
        if people:
            images.append({"id": number, "file_name": str(entry.image.name)})
        for person in people:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **person})
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _people(entry: Any) -> Iterator[Any]:
    """The people of an image that have joints, a position, a scale and a head box."""
    for person in _list(getattr(entry, "annorect", None)):
        has_numbers = all(np.size(getattr(person, name, ())) == 1 for name in _NUMBERS)
        if has_numbers and all(hasattr(getattr(person, part, None), field) for part, field in _FIELDS):
            yield person


_FIELDS = (("annopoints", "point"), ("objpos", "x"))
_NUMBERS = ("scale", "x1", "y1", "x2", "y2")


def _annotation(person: Any, num_joints: int) -> dict[str, Any]:
    keypoints = np.zeros((num_joints, 3))
    for point in _list(person.annopoints.point):
        # The flag may be missing or empty; the joint is labelled nevertheless.
        visible = np.size(getattr(point, "is_visible", 1)) == 0 or int(getattr(point, "is_visible", 1))
        keypoints[int(point.id)] = (point.x - _FIRST, point.y - _FIRST, 2 if visible else 1)
    side = _PIXELS_PER_SCALE * float(person.scale)
    x, y = (float(centre) - _FIRST - side / 2 for centre in (person.objpos.x, person.objpos.y))
    head = [float(person.x1) - _FIRST, float(person.y1) - _FIRST]
    return {
        "bbox": [x, y, side, side],
        "area": side * side,
        "iscrowd": 0,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "head_box": [*head, float(person.x2 - person.x1), float(person.y2 - person.y1)],
    }


def _list(value: Any) -> list[Any]:
    """A value as a list: MATLAB stores a list of one as its element, and an empty list as nothing."""
    return [] if value is None else list(np.atleast_1d(value))


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source, target = argv
    try:
        path = storage.local_copy(source)
        try:
            content = loadmat(path, struct_as_record=False, squeeze_me=True)
        except (ValueError, NotImplementedError) as error:
            raise AnnotationError(
                f"{source}: not a MATLAB file of version 7 or earlier ({first_line(error)})"
            ) from None
        if "RELEASE" not in content:
            names = ", ".join(name for name in content if name[0] != "_")
            raise AnnotationError(f"{source}: expected the variable RELEASE; the file has {names}")
        coco = convert(content["RELEASE"], source)
    except (UserError, OSError) as error:
        print(f"mpii: {error}", file=sys.stderr)
        return 1
    storage.write_bytes(target, json.dumps(coco).encode())
    print(f"{target}: {len(coco['annotations'])} people in {len(coco['images'])} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
