import json

import numpy as np
import pytest
from support.paths import DEMO

from pipeline.run.precomputed import Precomputed, boxes_by_image
from pipeline.settings.tree import Settings


def test_boxes_of_annotations_and_of_results() -> None:
    annotations = {
        "annotations": [
            {"image_id": 5, "category_id": 1, "iscrowd": 0, "bbox": [10, 20, 30, 40]},
            {"image_id": 5, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 99, 99]},
            {"image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 9, 9]},
        ]
    }
    boxes = boxes_by_image("x", annotations)[5]
    np.testing.assert_array_equal(boxes.xyxy, [[10, 20, 40, 60]])
    assert boxes.scores.tolist() == [1]
    results = boxes_by_image("x", [{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25}])
    assert results[5].scores.tolist() == [0.25]


def test_the_demos_boxes_name_their_images() -> None:
    settings = {"input": "x", "detector": {"name": "given", "boxes": str(DEMO / "boxes.json")}}
    given = Precomputed.load(Settings.model_validate(settings))
    coco_id = given.coco_id("group.jpg")
    boxes = given.boxes_of(coco_id)
    assert boxes is not None
    assert len(boxes) == 3
    nobody = given.boxes_of(None)
    assert nobody is not None
    assert len(nobody) == 0


def test_without_given_boxes_there_are_none() -> None:
    given = Precomputed.load(Settings.model_validate({"input": "x", "detector": {"name": "whole_image"}}))
    assert given.coco_id("a.jpg") is None
    assert given.boxes_of(3) is None


def test_boxes_that_nothing_ties_to_images_are_refused(tmp_path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]))
    detector = {"name": "given", "boxes": str(path)}
    with pytest.raises(ValueError, match="give annotations: they tie ids to file names"):
        Precomputed.load(Settings.model_validate({"input": "photos", "detector": detector}))
    (tmp_path / "info.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match="no `annotations` to evaluate against"):
        Precomputed.load(Settings.model_validate({"input": "photos", "annotations": str(tmp_path / "info.json")}))
    with pytest.raises(ValueError, match=r"set detector\.boxes, or annotations"):
        Precomputed.load(Settings.model_validate({"input": "photos", "detector": {"name": "given"}}))
    for content, message in (("{", "not valid JSON"), ("{}", "neither"), ('[{"bbox": [1]}]', "entry 0")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Precomputed.load(Settings.model_validate({"input": "photos", "detector": detector}))
