"""YOLO-pose labels."""

from __future__ import annotations

import csv
import io
import zipfile

import numpy as np
import yaml

from pipeline import storage
from pipeline.coco.categories import PERSON
from pipeline.formats.common import MemberNames, box_inside, export_path, visible_joints
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.run.tables import table_skeleton


def write_yolo(run: Run) -> str:
    """A zip archive: `data.yaml`, `labels/IMAGE.txt` with a line per person, and `images.csv`.

    A line is the class 0, the box's centre and size, and x y v of each joint, all relative to the image and in 0..1.
    An image without people has an empty file. The images belong into the folder `images` beside `labels`, under the
    names in `images.csv`: a training program finds the labels of `images/a.jpg` in `labels/a.txt`.
    """
    skeleton = table_skeleton(run.uri)
    uri = export_path(run, "yolo-pose.zip")
    description = {
        "train": "images",
        "val": "images",
        "kpt_shape": [len(skeleton), 3],
        "flip_idx": skeleton.mirror,
        "names": {0: PERSON},
    }
    names = MemberNames()
    listing = io.StringIO()
    table = csv.writer(listing, lineterminator="\n")
    table.writerow(["image", "image_id"])
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.yaml", yaml.safe_dump(description, default_flow_style=None, sort_keys=False))
        for image, people in images_with_people(run):
            stem = names.stem(image["image_id"])
            lines = [_line(people, i, image["width"], image["height"]) for i in range(len(people))]
            archive.writestr(f"labels/{stem}.txt", "".join(lines))
            table.writerow([f"images/{stem}{storage.suffix(image['image_id'])}", image["image_id"]])
        archive.writestr("images.csv", listing.getvalue())
    return uri


def _line(people: People, i: int, width: int, height: int) -> str:
    size = np.array([width, height])
    box = box_inside(people, i, width, height).astype(float)
    first, last = box[:2] / size, box[2:] / size
    joints = visible_joints(people, i, width, height)
    joints[:, :2] /= size
    values = [*(first + last) / 2, *(last - first), *joints.ravel()]
    return " ".join(["0", *(f"{value:.6g}" for value in values)]) + "\n"
