import numpy as np
import pytest
from support.images import gradient

from pipeline.coco.annotations import AnnotationError
from pipeline.training.detector.data import BoxLabels, ImageSet, labels_by_image, shrink_images


def file_of(*annotations: dict, **image: object) -> dict:
    return {
        "images": [{"id": 1, "file_name": "1.jpg", **image}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1, **a} for a in annotations],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }


def test_people_crowds_and_empty_images() -> None:
    labels = labels_by_image(
        file_of(
            {"id": 1, "bbox": [1, 2, 10, 20]},
            {"id": 2, "bbox": [5, 5, 30, 30], "iscrowd": 1},
            {"id": 3, "bbox": [0, 0, 9, 9], "category_id": 3},
            {"id": 4, "bbox": [4, 4, 0.5, 9]},
        ),
        "a.json",
    )
    assert labels[1].boxes.tolist() == [[1, 2, 11, 22]]
    assert labels[1].ignored.tolist() == [[5, 5, 35, 35]]
    assert labels[2].boxes.shape == labels[2].ignored.shape == (0, 4)


def test_images_with_incomplete_boxes_are_left_out_by_default() -> None:
    annotations = file_of({"id": 1, "bbox": [1, 2, 10, 20]}, dense_boxes=False, width=60, height=40)
    assert list(labels_by_image(annotations, "a.json")) == [2]
    labels = labels_by_image(annotations, "a.json", incomplete=True)[1]  # for training with a teacher
    assert labels.boxes.tolist() == [[1, 2, 11, 22]]
    assert labels.ignored.tolist() == [[0, 0, 60, 40]]


def test_a_wrong_box_is_named() -> None:
    with pytest.raises(AnnotationError, match=r"a\.json: annotation 9 has the box None; expected \[x, y, width"):
        labels_by_image(file_of({"id": 9}), "a.json")


def test_images_are_shrunk_stored_and_joined() -> None:
    boxes = np.float32([[100, 100, 300, 500]])
    images = shrink_images(
        [
            (gradient(600, 800), BoxLabels(boxes, boxes[:0]), 2.0),
            (gradient(100, 90), BoxLabels(boxes[:0], np.float32([[1, 2, 3, 4]])), 1.0),
        ],
        400,
    )
    assert images.pixels(0).shape == (300, 400, 3)
    assert images.pixels(1).shape == (100, 90, 3)  # never enlarged
    np.testing.assert_allclose(images.people[0].boxes, boxes / 2)
    both = ImageSet.from_bytes(ImageSet.join([images, images]).to_bytes())
    assert both.jpegs == images.jpegs * 2
    assert both.weights.tolist() == [2, 1, 2, 1]
    for actual, expected in zip(both.people, images.people * 2, strict=True):
        np.testing.assert_array_equal(actual.boxes, expected.boxes)
        np.testing.assert_array_equal(actual.ignored, expected.ignored)
    with pytest.raises(AnnotationError, match="no image has complete boxes"):
        shrink_images([], 400)
