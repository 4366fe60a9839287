import json

import pytest
from support.paths import DEMO_BOXES

from pipeline.coco.errors import AnnotationError
from pipeline.run.precomputed import CocoFiles
from pipeline.settings.tree import Settings


def test_boxes_of_the_demo_name_their_images() -> None:
    settings = {"input": "x", "detector": {"name": "given", "boxes": str(DEMO_BOXES)}}
    precomputed = CocoFiles.load(Settings.model_validate(settings)).match(["group.jpg", "cat.jpg"])
    assert precomputed.coco_id("group.jpg") is not None
    boxes = precomputed.boxes_of("group.jpg")
    assert boxes is not None
    assert len(boxes) == 3
    unknown = precomputed.boxes_of("cat.jpg")
    assert unknown is not None
    assert len(unknown) == 0


def test_without_given_boxes_precomputed_is_empty() -> None:
    files = CocoFiles.load(Settings.model_validate({"input": "x", "detector": {"name": "whole_image"}}))
    precomputed = files.match(["a.jpg"])
    assert precomputed.coco_id("a.jpg") is None
    assert precomputed.boxes_of("a.jpg") is None


def test_boxes_without_image_names_are_refused(tmp_path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]))
    detector = {"name": "given", "boxes": str(path)}
    with pytest.raises(ValueError, match="has image ids but no image names; set --annotations"):
        CocoFiles.load(Settings.model_validate({"input": "photos", "detector": detector}))
    (tmp_path / "info.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match="no `annotations` to evaluate against"):
        CocoFiles.load(Settings.model_validate({"input": "photos", "annotations": str(tmp_path / "info.json")}))
    with pytest.raises(ValueError, match=r"needs --detector\.boxes or --annotations"):
        CocoFiles.load(Settings.model_validate({"input": "photos", "detector": {"name": "given"}}))


def test_files_of_boxes_that_cannot_be_used_are_named(tmp_path) -> None:
    truth, path = tmp_path / "truth.json", tmp_path / "boxes.json"
    truth.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}))
    settings = {"input": "x", "annotations": str(truth), "detector": {"name": "given", "boxes": str(path)}}
    for content, message in (("{", "not valid JSON"), ("{}", "neither"), ('[{"bbox": [1]}]', "entry 0")):
        path.write_text(content)
        with pytest.raises(AnnotationError, match=f"{path}.*{message}"):
            CocoFiles.load(Settings.model_validate(settings))


def test_boxes_of_another_category_than_the_annotations_person_are_refused(tmp_path) -> None:
    truth, path = tmp_path / "truth.json", tmp_path / "boxes.json"
    image = {"id": 1, "file_name": "a.jpg"}
    categories = [{"id": 1, "name": "person"}, {"id": 7, "name": "train"}]
    truth.write_text(json.dumps({"images": [image], "annotations": [], "categories": categories}))
    settings = {"input": "x", "annotations": str(truth), "detector": {"name": "given", "boxes": str(path)}}
    box = {"image_id": 1, "bbox": [0, 0, 9, 9], "score": 1}
    path.write_text(json.dumps([{**box, "category_id": 0}]))
    with pytest.raises(AnnotationError, match="category_id of the boxes is 0, the annotations' person is 1"):
        CocoFiles.load(Settings.model_validate(settings))
    path.write_text(json.dumps([{**box, "category_id": 7}, {**box, "category_id": 1}]))
    boxes = CocoFiles.load(Settings.model_validate(settings)).match(["a.jpg"]).boxes_of("a.jpg")
    assert boxes is not None
    assert len(boxes) == 1, "boxes of other categories are left out"


def test_files_that_would_give_an_image_the_people_of_another_are_refused(tmp_path) -> None:
    path = tmp_path / "people.JSON"
    for images, message in (
        ([("a.jpg", 1), ("b.jpg", 1)], r"two images have the id 1: a\.jpg and b\.jpg"),
        ([("a.jpg", 1), ("./a.jpg", 2)], r"list the image \./a\.jpg twice, with the ids 1 and 2"),
    ):
        entries = [{"id": number, "file_name": name} for name, number in images]
        path.write_text(json.dumps({"images": entries, "annotations": []}))
        with pytest.raises(AnnotationError, match=message):
            CocoFiles.load(Settings.model_validate({"input": str(path), "detector": {"name": "whole_image"}}))
