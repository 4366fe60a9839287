"""Annotation files: streamed into columns, loaded, and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.coco import SKELETON, made_up

from pipeline import storage
from pipeline.coco.annotations import Annotations, load_annotations, person_category, read_annotations
from pipeline.coco.categories import person_entries
from pipeline.coco.errors import AnnotationError
from pipeline.skeletons import SKELETONS, Skeleton


def written(folder: Path, content: object) -> str:
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return str(path)


def assert_equal(a: Annotations, b: Annotations) -> None:
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.starts, b.starts)
    assert a.images == b.images
    assert (a.with_keypoints, a.person_id) == (b.with_keypoints, b.person_id)
    for name, column in a.people._asdict().items():
        np.testing.assert_array_equal(column, getattr(b.people, name), err_msg=name)


@pytest.mark.parametrize("skeleton", [SKELETON, None])
@pytest.mark.parametrize("seed", range(5))
def test_a_streamed_file_equals_its_content(seed: int, skeleton: Skeleton | None, tmp_path: Path) -> None:
    truth, _, _ = made_up(seed)
    truth["categories"].append({"id": 2, "name": "dog"})
    truth["annotations"][3]["category_id"] = 2
    uri = written(tmp_path, truth)
    streamed = read_annotations(uri, skeleton)
    assert_equal(streamed, read_annotations(truth, skeleton))
    assert len(streamed.people.areas) == len(truth["annotations"]) - 1, "the dog is left out"
    assert person_category(uri).id == person_category(truth).id == streamed.person_id == 1
    assert load_annotations(uri) == truth


def test_images_are_sorted_by_id_and_people_follow_their_image() -> None:
    images = [{"id": 9, "file_name": "c.jpg", "source": "x"}, {"id": 2, "file_name": "a.jpg", "coco_url": "http://x"}]
    boxes = {2: [1, 2, 3, 4], 9: [5, 6, 7, 8]}
    entries = [{"image_id": i, "bbox": boxes[i], "area": float(i)} for i in (9, 2, 9)]
    annotations = read_annotations({"images": images, "annotations": entries}, None)
    assert annotations.ids.tolist() == [2, 9]
    assert annotations.images == {"id": [2, 9], "file_name": ["a.jpg", "c.jpg"], "source": [None, "x"]}
    assert annotations.starts.tolist() == [0, 1, 3]
    assert annotations.people.boxes_xywh.tolist() == [boxes[2], boxes[9], boxes[9]]
    second = annotations.slice(1, 2)
    assert (second.ids.tolist(), second.starts.tolist(), second.people.areas.tolist()) == ([9], [0, 2], [9, 9])
    assert annotations.match_ids(["c.jpg"]).get("c.jpg") == 9


def test_the_person_category_may_have_any_id() -> None:
    truth, _, _ = made_up(0)
    truth["categories"] = [{"id": 0, "name": "person"}]
    truth["annotations"] = [{**entry, "category_id": 0} for entry in truth["annotations"]]
    annotations = read_annotations(truth, SKELETON)
    assert annotations.person_id == 0
    assert len(annotations.people.areas) == len(truth["annotations"])


def test_columns_of_a_whole_body_are_joined() -> None:
    skeleton = SKELETONS["wholebody133"]
    lengths = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    values = np.arange(3.0 * 133) + 1
    ends = np.cumsum([3 * n for n in lengths.values()])[:-1]
    columns = {name: part.tolist() for name, part in zip(lengths, np.split(values, ends), strict=True)}
    entry = {"image_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "num_keypoints": 17, **columns}
    truth = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [entry]}
    np.testing.assert_array_equal(read_annotations(truth, skeleton).people.keypoints.ravel(), values)
    np.testing.assert_array_equal(read_annotations(truth, SKELETON).people.keypoints.ravel(), values[:51])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"annotations\[2\] has 3 values in 'bbox', expected 4"),
        ({"keypoints": [1.0] * 6}, r"annotations\[2\] \(image_id \d+\) has 6 values in 'keypoints', expected 51"),
        ({"area": "large"}, r"annotations\[2\] has a value of the wrong type"),
        ({"area": ...}, r"annotations\[2\] lacks area"),
        ({"image_id": ...}, r"annotations\[2\] lacks image_id"),
        ({"bbox": ...}, r"annotations\[2\] lacks bbox"),
    ],
)
def test_the_file_and_the_wrong_annotation_are_named(change: dict, message: str, tmp_path: Path) -> None:
    truth, _, _ = made_up(1)
    entry = truth["annotations"][2] | change
    truth["annotations"][2] = {key: value for key, value in entry.items() if value is not ...}
    uri = written(tmp_path, truth)
    with pytest.raises(AnnotationError, match=f"{uri}: {message}"):
        read_annotations(uri, SKELETON)
    with pytest.raises(AnnotationError, match=f"the annotations: {message}"):
        read_annotations(truth, SKELETON)


@pytest.mark.parametrize("entry", [7, None, []])
def test_an_annotation_that_is_no_object_is_named(entry: object) -> None:
    truth, _, _ = made_up(1)
    truth["annotations"][2] = entry
    with pytest.raises(AnnotationError, match=r"annotations\[2\] has a value of the wrong type"):
        read_annotations(truth, SKELETON)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"file_name": "b.jpg"}, r"images\[1\] lacks id"),
        ("b.jpg", r"images\[1\] lacks id"),
        ({"id": None, "file_name": "b.jpg"}, r"images\[1\] has the image id None; expected a whole number or text"),
        ({"id": True, "file_name": "b.jpg"}, r"images\[1\] has the image id True"),
        ({"id": 2.5, "file_name": "b.jpg"}, r"images\[1\] has the image id 2.5"),
        ({"id": float("nan"), "file_name": "b.jpg"}, r"images\[1\] has the image id nan"),
        ({"id": 1, "file_name": "b.jpg"}, "two images have the id 1"),
    ],
)
def test_a_wrong_image_is_named(image: object, message: str, tmp_path: Path) -> None:
    uri = written(tmp_path, {"images": [{"id": 1, "file_name": "a.jpg"}, image], "annotations": []})
    with pytest.raises(AnnotationError, match=f"{uri}: {message}"):
        read_annotations(uri, None)


@pytest.mark.parametrize("image", [{"id": 5}, {"file_name": "b.jpg"}, "b.jpg"])
def test_loading_names_a_wrong_image_too(image: object, tmp_path: Path) -> None:
    uri = written(tmp_path, {"images": [{"id": 1, "file_name": "a.jpg"}, image]})
    with pytest.raises(AnnotationError, match=rf"{uri}: images\[1\] lacks id or file_name"):
        load_annotations(uri)


def test_files_that_are_not_annotations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    for content, message in (("{", "not valid JSON"), ("[]", "it has no `images`"), ("{}", "it has no `images`")):
        path.write_text(content)
        with pytest.raises(AnnotationError, match=f"{path}: .*{message}"):
            load_annotations(str(path))
        with pytest.raises(AnnotationError, match=f"{path}: .*{message}"):
            read_annotations(str(path), SKELETON)
    for read in (load_annotations, lambda uri: read_annotations(uri, None)):
        with pytest.raises(storage.MissingObject, match=r"gone\.json"):
            read(str(tmp_path / "gone.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": {"a": 1}}, "`images` is dict, expected a list"),
        ({"images": [], "annotations": {"a": 1}}, "`annotations` is dict, expected a list"),
        ({"images": [], "annotations": [7]}, r"annotations\[0\] is int, expected an object"),
        ({"images": [{"id": 1, "file_name": None}]}, r"images\[0\] has the file_name None; expected text"),
        ({"images": [{"id": 1, "file_name": ""}]}, r"images\[0\] has the file_name ''; expected text"),
        (
            {"images": [{"id": [], "file_name": "a"}]},
            r"images\[0\] has the image id \[\]; expected a whole number or text",
        ),
    ],
)
def test_loading_names_what_is_not_as_expected(content: object, message: str, tmp_path: Path) -> None:
    uri = written(tmp_path, content)
    with pytest.raises(AnnotationError, match=f"{uri}: {message}"):
        load_annotations(uri)
    with pytest.raises(AnnotationError, match="x: has images, but no `annotations`"):
        person_entries({"images": []}, "x")
