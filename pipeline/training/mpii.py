"""MPII Human Pose's annotations as COCO keypoints (Andriluka et al., 2D Human Pose Estimation, CVPR 2014).

uv run --with scipy -m pipeline.training.mpii mpii_human_pose_v1_u12_1.mat mpii_train.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.coco.errors import AnnotationError
from pipeline.skeletons import SKELETONS

_FIRST = 1.0  # MATLAB counts pixels from 1, COCO from 0
# MPII has no boxes, but a centre, and a scale that makes a person 200 pixels tall.
_PIXELS_PER_SCALE = 200.0


def convert(mat: Any, name: str) -> dict[str, Any]:
    """COCO keypoint annotations of MPII's training images.

    Each person with joints gets the square box around their centre that MPII's scale gives, and `head_box`
    [x, y, width, height], whose diagonal PCKh counts in. Images that MPII keeps for testing have no joints and are left
    out.

    Args:
        mat: `RELEASE` of the file as scipy reads it, with records as objects and single elements unwrapped.
        name: of the file, for error texts.

    Raises:
        AnnotationError: it is no such file.
    """
    skeleton = SKELETONS["mpii16"]
    try:
        entries = list(zip(_list(mat.annolist), _list(mat.img_train), strict=True))
    except (AttributeError, ValueError):
        raise AnnotationError(f"{name}: expected RELEASE with annolist and img_train of one length") from None
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
    """The persons of an image who have joints, a place, a scale and a head."""
    for person in _list(getattr(entry, "annorect", None)):
        whole = all(np.size(getattr(person, name, ())) == 1 for name in _NUMBERS)
        if whole and all(hasattr(getattr(person, part, None), field) for part, field in _NEEDED):
            yield person


_NEEDED = (("annopoints", "point"), ("objpos", "x"))
_NUMBERS = ("scale", "x1", "y1", "x2", "y2")


def _annotation(person: Any, num_joints: int) -> dict[str, Any]:
    keypoints = np.zeros((num_joints, 3))
    for point in _list(person.annopoints.point):
        # A joint may lack the flag, or have an empty one: then its place is known all the same.
        visible = np.size(getattr(point, "is_visible", 1)) == 0 or int(getattr(point, "is_visible", 1))
        keypoints[int(point.id)] = (point.x - _FIRST, point.y - _FIRST, 2 if visible else 1)
    side = _PIXELS_PER_SCALE * float(person.scale)
    x, y = (float(place) - _FIRST - side / 2 for place in (person.objpos.x, person.objpos.y))
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
    """MATLAB knows no difference between one and a list of one, nor between none and an empty list."""
    return [] if value is None else list(np.atleast_1d(value))


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        from scipy.io import loadmat
    except ImportError:
        print("mpii: MATLAB files need scipy: uv run --with scipy -m pipeline.training.mpii ...", file=sys.stderr)
        return 1
    source, target = argv
    try:
        content = loadmat(storage.local_copy(source), struct_as_record=False, squeeze_me=True)
        if "RELEASE" not in content:
            raise AnnotationError(f"{source}: expected a RELEASE, found {', '.join(k for k in content if k[0] != '_')}")
        coco = convert(content["RELEASE"], source)
    except (ValueError, OSError) as error:
        print(f"mpii: {error}", file=sys.stderr)
        return 1
    storage.write_bytes(target, json.dumps(coco).encode())
    print(f"{target}: {len(coco['annotations'])} people in {len(coco['images'])} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
