"""However images are grouped and wherever they are asked, they say the same to the last bit."""

import json

import numpy as np
import pytest
from test_keypoints import SKELETON, made_up, scenes_of

from pipeline.evaluation import tally as module
from pipeline.evaluation.slices import Answers
from pipeline.evaluation.tally import Tally, tally
from pipeline.skeletons import SKELETONS

ANSWERS = (Answers("half", ("first", "second")),)


def equal(a: object, b: object) -> None:
    if isinstance(a, tuple):
        assert isinstance(b, tuple)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    elif hasattr(a, "__dataclass_fields__"):
        equal(vars(a), vars(b))
    else:
        np.testing.assert_array_equal(a, b)


def of_all(monkeypatch, images: int, spread=map) -> Tally:
    truth, poses, _ = made_up(5)
    scenes = scenes_of(truth, poses)
    scenes.answers["half"] = np.arange(len(scenes)) // 6
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", images)
    return tally(scenes, SKELETON, why=True, of_images=ANSWERS, spread=spread)


@pytest.mark.parametrize("images", [1, 5, 6])
def test_groups_of_images_joined_in_order_are_all_of_them(images: int, monkeypatch) -> None:
    equal(of_all(monkeypatch, images), of_all(monkeypatch, 100))


def test_ray_tasks_say_the_same(monkeypatch) -> None:
    from pipeline.config import FleetSettings
    from pipeline.fleet import connect, on_ray

    with connect(FleetSettings()):
        equal(of_all(monkeypatch, 2, on_ray), of_all(monkeypatch, 100))
        with pytest.raises(ValueError, match="Expecting value"):
            list(on_ray(json.loads, ["1", "no JSON"]))


def test_parts_of_a_whole_body() -> None:
    """A wholly right body and feet, a face that is off: only the face's AP suffers."""
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
    said = tally(scenes_of(truth, [{**entry, "keypoints": joints.ravel(), "score": 1}], skeleton), skeleton)
    matched = {part: int(matches.matched[0, 0]) for part, matches in said.parts.items()}
    assert list(matched) == ["body", "feet", "face", "hands"]
    assert (matched["body"], matched["face"]) == (2**10 - 1, 0)
