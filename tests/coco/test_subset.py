"""A subset of an annotation file."""

import copy

from support.coco import made_up

from pipeline.coco.subset import subset


def test_a_subset_has_the_annotations_of_its_images() -> None:
    truth, _, _ = made_up(0)
    unchanged = copy.deepcopy(truth)
    images = truth["images"][2:5]
    part = subset(truth, images)
    assert part["images"] == images
    assert part["categories"] == truth["categories"]
    ids = {image["id"] for image in images}
    assert part["annotations"] == [entry for entry in truth["annotations"] if entry["image_id"] in ids]
    assert part["annotations"]
    assert truth == unchanged


def test_a_subset_without_images_is_empty() -> None:
    truth, _, _ = made_up(0)
    part = subset(truth, [])
    assert (part["images"], part["annotations"]) == ([], [])


def test_a_list_of_images_without_annotations_has_subsets() -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    assert subset({"images": images}, images[1:]) == {"images": images[1:], "annotations": []}
