import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.skeletons import SKELETONS
from pipeline.training.mpii import main
from pipeline.training.pose.data import people_by_image

JOINTS = SKELETONS["mpii16"].joints


def person(ids: list[int], **changes: object) -> dict:
    points = [{"id": i, "x": 100.0 + i, "y": 200.0 + i, "is_visible": i % 2} for i in ids]
    head = {"x1": 10.0, "y1": 20.0, "x2": 40.0, "y2": 60.0}
    return {"annopoints": {"point": points}, "objpos": {"x": 120.0, "y": 210.0}, "scale": 2.0, **head, **changes}


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    entries = [
        {"image": {"name": "a.jpg"}, "annorect": [person([0, 9]), person([3]), person([4], scale=np.zeros((0, 0)))]},
        {"image": {"name": "b.jpg"}, "annorect": person([6])},  # one person: MATLAB stores no list
        {"image": {"name": "for_testing.jpg"}, "annorect": person([1])},
        {"image": {"name": "no_people.jpg"}, "annorect": np.zeros((0, 0))},
        {"image": {"name": "no_joints.jpg"}, "annorect": {"x1": 1.0, "scale": 1.0}},
    ]
    path = tmp_path / "mpii.mat"
    # An object array: savemat makes a struct array only of entries with the same fields.
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    savemat(path, {"RELEASE": {"annolist": array, "img_train": [1, 1, 0, 1, 1]}})
    return path


def test_people_with_joints_of_training_images(mat: Path, tmp_path: Path, capsys) -> None:
    assert main([str(mat), str(tmp_path / "out.json")]) == 0
    assert "3 people in 2 images" in capsys.readouterr().out
    coco = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "b.jpg"]
    first = coco["annotations"][0]
    # MATLAB counts from 1.
    assert first["bbox"] == [-81.0, 9.0, 400.0, 400.0]
    assert first["head_box"] == [9.0, 19.0, 30.0, 40.0]
    people = people_by_image(coco, JOINTS, "out.json")
    (one, two), (three,) = people[1], people[2]
    assert [JOINTS[i] for i in np.flatnonzero(one.labelled)] == ["right_ankle", "head_top"]
    assert one.keypoints[9].tolist() == [108, 208]
    assert [JOINTS[i] for i in np.flatnonzero(two.labelled)] == ["left_hip"]
    assert [JOINTS[i] for i in np.flatnonzero(three.labelled)] == ["pelvis"]


def test_another_file_is_refused(tmp_path: Path, capsys) -> None:
    savemat(tmp_path / "x.mat", {"other": [1]})
    assert main([str(tmp_path / "x.mat"), str(tmp_path / "out.json")]) == 1
    assert "expected the variable RELEASE; the file has other" in capsys.readouterr().err
    (tmp_path / "text.mat").write_text("not a MATLAB file" * 20)
    assert main([str(tmp_path / "text.mat"), str(tmp_path / "out.json")]) == 1
    assert "text.mat: not a MATLAB file" in capsys.readouterr().err
    assert main([str(tmp_path / "x.mat")]) == 2
