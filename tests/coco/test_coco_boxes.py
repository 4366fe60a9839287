"""Person boxes of annotations and of detection results."""

import numpy as np
import pytest

from pipeline.coco.boxes import box_xyxy, boxes_by_image
from pipeline.coco.categories import PersonCategory
from pipeline.coco.errors import AnnotationError

PEOPLE = PersonCategory([{"id": 1, "name": "person"}], "truth.json")


def test_boxes_of_annotations() -> None:
    annotations = [
        {"image_id": 5, "category_id": 1, "iscrowd": 0, "bbox": [10, 20, 30, 40]},
        {"image_id": 5, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 99, 99]},
        {"image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 9, 9]},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    boxes = boxes_by_image("x", {"annotations": annotations, "categories": categories})
    assert list(boxes) == [5]
    np.testing.assert_array_equal(boxes[5].xyxy, [[10, 20, 40, 60]])
    assert boxes[5].scores.tolist() == [1]


def test_boxes_of_results() -> None:
    results = [
        {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25},
        {"image_id": 6, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 5, "category_id": 1, "bbox": [5, 5, 5, 5], "score": 0.75},
    ]
    boxes = boxes_by_image("x", results)
    np.testing.assert_array_equal(boxes[5].xyxy, [[1, 2, 4, 6], [5, 5, 10, 10]])
    assert boxes[5].scores.tolist() == [0.25, 0.75]
    assert len(boxes[6]) == 1


def test_results_of_other_categories_are_left_out() -> None:
    results = [{"image_id": 5, "category_id": c, "bbox": [c, 0, 3, 4], "score": 0.25} for c in (1, 2, 3, 1)]
    boxes = boxes_by_image("x", results, PEOPLE)
    assert boxes[5].xyxy[:, 0].tolist() == [1, 1]


def test_results_without_a_person_name_both_categories() -> None:
    results = [{"image_id": 5, "category_id": c, "bbox": [0, 0, 3, 4], "score": 0.25} for c in (4, 0, 4)]
    message = "x: no box is of a person: category_id of the boxes is 0, 4, the annotations' person is 1"
    with pytest.raises(AnnotationError, match=message):
        boxes_by_image("x", results, PEOPLE)
    with pytest.raises(AnnotationError, match="uses category_id 4 and 0, but has no `categories`"):
        boxes_by_image("x", results)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "neither COCO detection results"),
        ("boxes", "neither COCO detection results"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]}], "entry 1 lacks image_id or a bbox"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], "entry 0 lacks image_id or a bbox of four numbers"),
        ([{"image_id": 1, "bbox": None}], "entry 0 lacks image_id or a bbox of four numbers"),
        ([7], "entry 0 lacks image_id or a bbox of four numbers"),
        ([{"image_id": 1, "bbox": [1, 2, 3, float("nan")]}], "image 1 has a box or score that is not a finite number"),
        (
            [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": float("inf")}],
            "image 1 has a box or score that is not a finite number",
        ),
    ],
)
def test_boxes_that_cannot_be_used_are_named(content: object, message: str) -> None:
    with pytest.raises(AnnotationError, match=f"^boxes.json: {message}"):
        boxes_by_image("boxes.json", content)


def test_a_box_of_an_annotation_has_corners() -> None:
    box = box_xyxy({"id": 3, "bbox": [10, 20, 30, 40]}, "a.json")
    assert box is not None
    assert (box.tolist(), box.dtype) == ([10, 20, 40, 60], np.float32)
    assert box_xyxy({"id": 3, "bbox": [10, 20, 0.5, 40]}, "a.json") is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": 3, "bbox": [1, 2, 3]}, r"annotation 3 has the box \[1, 2, 3\]; expected \[x, y, width, height\]"),
        ({"id": 3}, "annotation 3 has the box None"),
        ({"id": 3, "bbox": [1, 2, 3, "wide"]}, "annotation 3 has the box"),
        ({"id": 3, "bbox": [1, 2, float("nan"), 4]}, "annotation 3 has a box with a value that is not finite"),
    ],
)
def test_a_wrong_box_of_an_annotation_is_named(entry: dict, message: str) -> None:
    with pytest.raises(AnnotationError, match=f"^a.json: {message}"):
        box_xyxy(entry, "a.json")
