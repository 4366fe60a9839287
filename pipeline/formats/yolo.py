"""YOLO-pose labels."""

from __future__ import annotations

import zipfile

import numpy as np
import yaml

from pipeline import storage
from pipeline.formats.common import export_path, images_with_people, member_name, visible_joints
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.tables import table_skeleton


def write_yolo(run: Run) -> str:
    """A zip archive: `data.yaml`, and `labels/IMAGE.txt` with a line per person, empty for an image without people.

    A line is the class 0, the box's centre and size, and x y v of each joint, all relative to the image.
    """
    skeleton = table_skeleton(run.uri)
    uri = export_path(run, "yolo-pose.zip")
    description = {"kpt_shape": [len(skeleton), 3], "flip_idx": skeleton.mirror, "names": {0: "person"}}
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.yaml", yaml.safe_dump(description, default_flow_style=None))
        for image, people in images_with_people(run):
            lines = [_line(people, i, image["width"], image["height"]) for i in range(len(people))]
            archive.writestr(f"labels/{member_name(image['image_id'], '.txt')}", "".join(lines))
    return uri


def _line(people: People, i: int, width: int, height: int) -> str:
    size = np.array([width, height])
    first, last = people.boxes[i, :2] / size, people.boxes[i, 2:] / size
    joints = visible_joints(people, i)
    joints[:, :2] /= size
    values = [*(first + last) / 2, *(last - first), *joints.ravel()]
    return " ".join(["0", *(f"{value:.6g}" for value in values)]) + "\n"
