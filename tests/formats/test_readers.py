"""Exports are read by the programs of their users, each in an environment of its own: their dependencies conflict."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from formats.test_formats import outside, people, reduced

from pipeline.formats import export
from pipeline.people import People
from pipeline.run import Run

pytestmark = [
    pytest.mark.slow,  # each installs a package
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
]

PEOPLE = {"0001.jpg": people(2, 0), "0002.jpg": People.empty(17), "0003.jpg": outside()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return reduced(tmp_path, PEOPLE)


def by(package: str, script: str, *arguments: str) -> object:
    """What a script prints as JSON on its last line, run where only this package is installed."""
    command = [
        "uv",
        "run",
        "--isolated",
        "--no-project",
        "--quiet",
        "--python",
        "3.11",
        "--with",
        package,
        "python",
        "-c",
    ]
    done = subprocess.run([*command, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pose_format_reads_openpose(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(export(run, "openpose")) as archive:
        archive.extractall(tmp_path / "frames")
    script = """
import json, sys
from pose_format.utils.openpose import load_openpose_directory
pose = load_openpose_directory(sys.argv[1], fps=1, width=640, height=480)
print(json.dumps([pose.body.data.filled(0).tolist(), pose.body.confidence.tolist()]))
"""
    data, confidence = (np.array(v) for v in by("pose-format==0.15.0", script, str(tmp_path / "frames")))
    # It counts frames from 0, and fills missing ones. The first joints of OpenPose's layouts are the same.
    first = PEOPLE["0001.jpg"]
    np.testing.assert_allclose(data[1, :2, 0], first.keypoints[:, 0], atol=1e-3)
    np.testing.assert_allclose(data[1, :2, 2], first.keypoints[:, 6], atol=1e-3)
    np.testing.assert_allclose(confidence[1, :2, 0], first.keypoint_scores[:, 0], atol=1e-3)
    assert not confidence[2].any()
    assert confidence[3, 0].any()
    assert not confidence[3, 1].any()


def test_the_label_studio_sdk_accepts_the_tasks(run: Run) -> None:
    script = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
joints = sys.argv[2].split(",")
labels = "".join(f'<Label value="{joint}"/>' for joint in joints)
interface = LabelInterface(
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="person" toName="image"><Label value="person"/></RectangleLabels>'
    f'<KeyPointLabels name="joint" toName="image">{labels}</KeyPointLabels></View>'
)
tasks = json.load(open(sys.argv[1]))
errors = [interface.validate_prediction(p, return_errors=True) for t in tasks for p in t["predictions"]]
print(json.dumps([len(tasks), errors]))
"""
    from pipeline.skeletons import SKELETONS

    joints = ",".join(SKELETONS["coco17"].joints)
    count, errors = by("label-studio-sdk==2.0.19", script, export(run, "label_studio"), joints)
    assert count == len(PEOPLE)
    assert errors == [[]] * len(PEOPLE)


def test_datumaro_reads_the_file_for_cvat(run: Run, tmp_path: Path) -> None:
    """CVAT imports COCO files with datumaro."""
    for folder in ("annotations", "images"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    shutil.copy(export(run, "cvat"), tmp_path / "set" / "annotations" / "person_keypoints_default.json")
    script = """
import json, sys
from datumaro.components.dataset import Dataset
items = Dataset.import_from(sys.argv[1], "coco_person_keypoints")
print(json.dumps({
    item.id: [[list(map(float, a.points)), [int(v) for v in a.visibility]]
              for a in item.annotations if type(a).__name__ == "Points"]
    for item in items
}))
"""
    items = by("datumaro==1.13.12", script, str(tmp_path / "set"))
    assert {name: len(points) for name, points in items.items()} == {"0001": 2, "0002": 0, "0003": 1}
    first = PEOPLE["0001.jpg"]
    visible = first.keypoint_scores >= 0.2
    read = sorted(items["0001"], key=lambda person: np.abs(np.reshape(person[0], (17, 2)) - first.keypoints[0]).sum())
    for i, (points, visibility) in enumerate(read):
        np.testing.assert_array_equal(np.array(visibility) > 0, visible[i])
        np.testing.assert_allclose(np.reshape(points, (17, 2))[visible[i]], first.keypoints[i][visible[i]], atol=0.01)
