"""Label Studio tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pipeline import storage
from pipeline.formats.common import (
    box_inside,
    export_path,
    is_visible,
    rounded,
    write_json_list,
    xywh,
)
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.run.tables import table_skeleton


def write_label_studio(run: Run, uri: str | None = None, names: Mapping[str, str] | None = None) -> str:
    """Tasks with pre-annotations: a rectangle per person and a point per visible joint, in percent of the image.

    They fit the labelling interface of `labelling_configuration`. The image is the id in the collection; replace it
    with a URL of your own server.

    Args:
        uri: of the file; by default in `exports/`.
        names: see `images_with_people`; what tasks have as image.
    """
    skeleton = table_skeleton(run.uri)

    def tasks() -> Iterator[dict[str, Any]]:
        for image, people in images_with_people(run, names):
            result = [entry for i in range(len(people)) for entry in _regions(image, people, i, skeleton.joints)]
            yield {"data": {"image": image["image_id"]}, "predictions": [{"result": result}]}

    uri = uri or export_path(run, "label-studio.json")
    with storage.open_write(uri) as stream:
        write_json_list(stream, tasks())
    return uri


def labelling_configuration(joints: Sequence[str]) -> str:
    """The XML of Label Studio's labelling interface for the tasks: rectangles for people, and a point for each joint.

    `model_index` connects the joints of a person for Label Studio's YOLO backends and exports.
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "RectangleLabels", name="person", toName="image")
    ElementTree.SubElement(view[0], "Label", value="person", model_index="0")
    ElementTree.SubElement(view, "KeyPointLabels", name="joint", toName="image")
    for index, joint in enumerate(joints):
        ElementTree.SubElement(view[1], "Label", value=joint, model_index=str(index))
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _regions(image: dict[str, Any], people: People, i: int, joints: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    width, height = image["width"], image["height"]
    shared = {"to_name": "image", "original_width": width, "original_height": height}
    percent = 100 / np.array([width, height] * 2)
    x, y, w, h = rounded(np.array(xywh(box_inside(people, i, width, height))) * percent)
    yield {
        **shared,
        "id": f"person{i}",
        "from_name": "person",
        "type": "rectanglelabels",
        "value": {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": ["person"]},
        "score": float(people.pose_scores[i]),
    }
    for joint in np.flatnonzero(is_visible(people, i, width, height)):
        x, y = rounded(people.keypoints[i, joint] * percent[:2])
        yield {
            **shared,
            "id": f"person{i}_{joints[joint]}",
            "parentID": f"person{i}",
            "from_name": "joint",
            "type": "keypointlabels",
            "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": [joints[joint]]},
            "score": float(people.keypoint_scores[i, joint]),
        }
