"""Metrics are the same to the last bit for any size of chunks, computed here or on Ray."""

import json

import numpy as np
import pytest
from support.coco import SKELETON, eval_images_of, made_up

from pipeline.evaluation import partial as module
from pipeline.evaluation.groups import Grouping
from pipeline.evaluation.partial import PartialMetrics, measure
from pipeline.skeletons import SKELETONS

GROUPINGS = (Grouping("half", ("first", "second")),)


def assert_equal(a: object, b: object) -> None:
    if isinstance(a, tuple):
        assert isinstance(b, tuple)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif hasattr(a, "__dataclass_fields__"):
        assert_equal(vars(a), vars(b))
    else:
        np.testing.assert_array_equal(a, b)


def of_all(monkeypatch, chunk: int, map_chunks=map) -> PartialMetrics:
    truth, poses, _ = made_up(5)
    images = eval_images_of(truth, poses)
    images.labels["half"] = np.arange(len(images)) // 6
    monkeypatch.setattr(module, "_CHUNK_SIZE", chunk)
    return measure(images, SKELETON, analyse=True, image_groupings=GROUPINGS, map_chunks=map_chunks)


@pytest.mark.parametrize("chunk", [1, 5, 6])
def test_joined_chunks_equal_all_images(chunk: int, monkeypatch) -> None:
    assert_equal(of_all(monkeypatch, chunk), of_all(monkeypatch, 100))


def test_ray_tasks_compute_the_same(monkeypatch) -> None:
    from pipeline.fleet import connect, map_on_ray
    from pipeline.settings.tree import FleetSettings

    with connect(FleetSettings()):
        assert_equal(of_all(monkeypatch, 2, map_on_ray), of_all(monkeypatch, 100))
        with pytest.raises(ValueError, match="Expecting value"):
            list(map_on_ray(json.loads, ["1", "not JSON"]))


def test_parts_of_a_whole_body_are_evaluated_alone() -> None:
    """Body and feet are exact, the face is shifted: only the AP of the face falls."""
    skeleton = SKELETONS["halpe136"]
    r = np.random.default_rng(0)
    joints = np.column_stack([r.random((136, 2)) * 300, np.full(136, 2.0)])
    entry = {"image_id": 1, "category_id": 1}
    box = {"bbox": [0, 0, 300, 300], "area": 90000, "iscrowd": 0, "num_keypoints": 136}
    truth = {
        "images": [{"id": 1, "file_name": "a"}],
        "annotations": [{**entry, **box, "keypoints": joints.ravel().tolist()}],
    }
    joints[skeleton.parts["face"], 0] += 50
    measured = measure(eval_images_of(truth, [{**entry, "keypoints": joints.ravel(), "score": 1}], skeleton), skeleton)
    matched = {part: int(matches.matched[0, 0]) for part, matches in measured.parts.items()}
    assert list(matched) == ["body", "feet", "face", "left_hand", "right_hand"]
    assert (matched["body"], matched["face"]) == (2**10 - 1, 0)
