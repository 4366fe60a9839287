"""Each format is written from one small run and read back, with the format's own reader if one is installed."""

import contextlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from support.runs import judged_run

from jobs.reduce import main as reduce
from pipeline import storage
from pipeline.formats import FORMATS, export
from pipeline.formats.common import MemberNames
from pipeline.formats.openpose import openpose_joints
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.images import images_with_people
from pipeline.run.tables import Fold, ImageRow, encode_part, fold_parts, skeleton_metadata
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]
COUNTS = {"s0": [2, 0, 3], "s1": [0], "s2": [1, 2]}


def people(count: int, seed: int) -> People:
    r = np.random.default_rng(seed)
    corner = r.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corner, corner + r.uniform(20, 200, (count, 2))], axis=1)
    keypoints, scores = r.uniform(0, 400, (count, 17, 2)), r.uniform(0, 1, (count, 17))
    return People(boxes, r.random(count), keypoints, scores, r.random(count))


def reduced(folder: Path, people_by_id: dict[str, People]) -> Run:
    """A reduced run of one shard."""
    run = Run.create(Settings(output={"uri": str(folder / "one")}, detector={"name": "whole_image"}))
    rows = [ImageRow(name, f"/x/{name}", i + 1, "ab", 640, 480, 1) for i, name in enumerate(people_by_id)]
    metadata = {"shard": "s", "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
    data = encode_part(rows, list(people_by_id.values()), None, People.empty(17), metadata)
    storage.write_bytes(run.part_uri("s"), data)
    fold_parts(run.uri, Fold("t0.parquet", {"s": len(rows)}), run.fingerprint)
    return run


@pytest.fixture
def run(tmp_path: Path) -> tuple[Run, dict[str, People]]:
    run = Run.create(Settings(output={"uri": str(tmp_path / "run")}, detector={"name": "whole_image"}))
    expected = {}
    for shard, counts in COUNTS.items():
        detected = [people(count, seed) for seed, count in enumerate(counts)]
        rows = [ImageRow(f"{shard}/{i}.jpg", f"/x/{i}.jpg", i + 1, "ab", 640, 480, 1) for i in range(len(counts))]
        expected |= {row.image_id: p for row, p in zip(rows, detected, strict=True)}
        rows.append(ImageRow(f"{shard}/gone.jpg", "/x/gone.jpg", None, status="missing", error="no such file"))
        metadata = {"shard": shard, "fingerprint": run.fingerprint, "skeleton": skeleton_metadata(SKELETON)}
        data = encode_part(rows, [*detected, People.empty(17)], None, People.empty(17), metadata)
        storage.write_bytes(run.part_uri(shard), data)
    for name, shards in (("t0", ("s0", "s1")), ("t1", ("s2",))):
        counts = {shard: len(COUNTS[shard]) + 1 for shard in shards}
        fold_parts(run.uri, Fold(f"{name}.parquet", counts), run.fingerprint)
    return run, expected


def test_every_image_comes_with_its_own_people(run) -> None:
    people_by_id = {image["image_id"]: people for image, people in images_with_people(run[0])}
    assert list(people_by_id) == list(run[1])  # images that could not be read are left out
    for image_id, expected in run[1].items():
        assert len(people_by_id[image_id]) == len(expected)
        if len(expected):
            np.testing.assert_array_equal(people_by_id[image_id].keypoints, expected.keypoints)


def test_alphapose(run) -> None:
    entries = json.loads(storage.read_bytes(export(run[0], "alphapose")))
    assert [entry["image_id"] for entry in entries] == [name for name, p in run[1].items() for _ in range(len(p))]
    first, expected = entries[0], run[1]["s0/0.jpg"]
    x1, y1, x2, y2 = expected.boxes[0]
    np.testing.assert_allclose(first["box"], [x1, y1, x2 - x1, y2 - y1], atol=1e-3)
    np.testing.assert_allclose(np.reshape(first["keypoints"], (17, 3))[:, 2], expected.keypoint_scores[0], atol=1e-3)
    assert (first["category_id"], first["idx"]) == (1, [0])


@pytest.mark.parametrize(
    ("name", "people_key", "key"), [("openpose", "people", "pose_keypoints_2d"), ("cmu", "bodies", "joints")]
)
def test_openpose_and_cmu(name: str, people_key: str, key: str, run) -> None:
    with zipfile.ZipFile(export(run[0], name)) as archive:
        assert archive.namelist() == [f"{image[:-4]}_keypoints.json" for image in run[1]]
        contents = {n: json.loads(archive.read(n))[people_key] for n in archive.namelist()}
    assert contents["s0/1_keypoints.json"] == []
    joints = np.reshape(contents["s0/0_keypoints.json"][1][key], (18, 3))
    expected = run[1]["s0/0.jpg"]
    np.testing.assert_allclose(joints[0, :2], expected.keypoints[1, 0], atol=1e-3)
    np.testing.assert_allclose(joints[1, :2], expected.keypoints[1, 5:7].mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(joints[2, :2], expected.keypoints[1, 6], atol=1e-3)  # the right shoulder
    np.testing.assert_allclose(joints[1, 2], expected.keypoint_scores[1, 5:7].min(), atol=1e-3)


def test_openpose_accepts_every_skeleton_with_the_body_joints() -> None:
    for name, skeleton in SKELETONS.items():
        k = len(skeleton)
        one = People(np.zeros((1, 4)), np.ones(1), np.ones((1, k, 2)), np.ones((1, k)), np.ones(1))
        if name in ("hand21", "mpii16"):
            with pytest.raises(ValueError, match=f"{name} does not have it"):
                openpose_joints(one, skeleton)
        else:
            assert openpose_joints(one, skeleton).shape == (1, 18, 3)


def test_yolo(run) -> None:
    with zipfile.ZipFile(export(run[0], "yolo")) as archive:
        assert yaml.safe_load(archive.read("data.yaml"))["kpt_shape"] == [17, 3]
        assert archive.read("labels/s0/1.txt") == b""
        lines = archive.read("labels/s0/2.txt").decode().splitlines()
    expected = run[1]["s0/2.jpg"]
    values = np.array([line.split() for line in lines], float)
    assert values.shape == (3, 5 + 51)
    centre, size = values[:, 1:3] * [640, 480], values[:, 3:5] * [640, 480]
    np.testing.assert_allclose(
        np.concatenate([centre - size / 2, centre + size / 2], axis=1), expected.boxes, atol=0.01
    )
    joints = values[:, 5:].reshape(3, 17, 3)
    visible = expected.keypoint_scores >= 0.2
    np.testing.assert_array_equal(joints[..., 2], 2 * visible)
    np.testing.assert_allclose(joints[visible][:, :2] * [640, 480], expected.keypoints[visible], atol=0.01)
    assert not joints[~visible].any()


def test_cvat_is_a_coco_file_with_a_skeleton(run) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(export(run[0], "cvat"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == list(run[1])
    (category,) = coco.loadCats(coco.getCatIds())
    assert category["keypoints"] == list(SKELETON.joints)
    assert min(min(limb) for limb in category["skeleton"]) == 1
    last = coco.loadAnns(coco.getAnnIds(imgIds=[6]))
    assert len(last) == len(run[1]["s2/1.jpg"]) == 2
    joints = np.reshape(last[0]["keypoints"], (17, 3))
    visible = run[1]["s2/1.jpg"].keypoint_scores[0] >= 0.2
    assert last[0]["num_keypoints"] == visible.sum()
    np.testing.assert_allclose(joints[visible, :2], run[1]["s2/1.jpg"].keypoints[0][visible], atol=1e-3)


def test_label_studio(run) -> None:
    tasks = json.loads(storage.read_bytes(export(run[0], "label_studio")))
    assert [task["data"]["image"] for task in tasks] == list(run[1])
    assert tasks[1]["predictions"][0]["result"] == []
    box, *joints = tasks[0]["predictions"][0]["result"]
    expected = run[1]["s0/0.jpg"]
    assert box["value"]["x"] / 100 * 640 == pytest.approx(expected.boxes[0, 0], abs=0.01)
    assert box["value"]["height"] / 100 * 480 == pytest.approx(expected.boxes[0, 3] - expected.boxes[0, 1], abs=0.01)
    of_first = [j for j in joints if j.get("parentID") == "person0"]
    assert len(of_first) == (expected.keypoint_scores[0] >= 0.2).sum()
    ids = [entry["id"] for entry in tasks[0]["predictions"][0]["result"]]
    assert len(ids) == len(set(ids))


def test_fiftyone_samples_have_relative_positions_and_hidden_joints(run) -> None:
    folder = Path(export(run[0], "fiftyone"))
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    assert [sample["image_id"] for sample in samples] == list(run[1])
    for sample, people in zip(samples, run[1].values(), strict=True):
        width, height = sample["metadata"]["width"], sample["metadata"]["height"]
        assert len(sample["predictions"]["detections"]) == len(sample["poses"]["keypoints"]) == len(people)
        assert "truth" not in sample, "the run has no annotations"
        for i, keypoint in enumerate(sample["poses"]["keypoints"]):
            points = np.array(keypoint["points"]) * (width, height)
            clear = people.keypoint_scores[i] >= 0.2
            np.testing.assert_allclose(points[clear], people.keypoints[i][clear], atol=0.05)
            assert np.isnan(points[~clear]).all()
    assert json.loads((folder / "metadata.json").read_text())["info"]["default_skeleton"]["labels"][0] == "nose"


def test_coco_results_and_unknown_names(run) -> None:
    entries = json.loads(storage.read_bytes(export(run[0], "coco")))
    assert len(entries) == sum(len(p) for p in run[1].values())
    with pytest.raises(ValueError, match="--export is 'vott'; known formats: coco, alphapose"):
        export(run[0], "vott")
    of_images = {"coco", "alphapose", "openpose", "cmu", "yolo", "label_studio", "cvat", "fiftyone"}
    assert set(FORMATS) == of_images | {"mot", "posetrack", "cvat_video", "label_studio_video", "opensim"}


@pytest.mark.parametrize(
    ("content", "category"),
    [
        ({"categories": [{"id": 1, "name": "dog"}, {"id": 7, "name": "Person"}], "annotations": []}, 7),
        ({"annotations": [{"category_id": 3}]}, 3),
        (None, 1),  # the annotations have moved since the run
    ],
)
def test_coco_results_have_the_person_category_of_the_annotations(run, tmp_path: Path, content, category: int) -> None:
    path = tmp_path / "people.json"
    if content is not None:
        path.write_text(json.dumps(content))
    settings = run[0].settings.model_copy(update={"annotations": str(path)})
    entries = json.loads(storage.read_bytes(export(replace(run[0], settings=settings), "coco")))
    assert {entry["category_id"] for entry in entries} == {category}


def test_member_names_stay_inside_the_archive_and_are_unique() -> None:
    names = MemberNames()
    ids = [
        "../../etc/passwd.jpg",
        "/abs//x.png",
        "a/./b.c/d",
        "a.jpg",
        "a.png",
        "a.PNG",
        "b/a.jpg",
        "a_png.jpg",
        "/a.jpg",
    ]
    stems = [names.stem(image_id) for image_id in ids]
    assert stems == ["etc/passwd", "abs/x", "a/b.c/d", "a", "a_png", "a_PNG", "b/a", "a_png_jpg", "a_jpg"]


def test_images_that_differ_by_their_suffix_have_files_of_their_own(tmp_path: Path) -> None:
    run = reduced(tmp_path, {"a.jpg": people(1, 0), "a.png": people(2, 1)})
    with zipfile.ZipFile(export(run, "yolo")) as archive:
        assert len(archive.namelist()) == len(set(archive.namelist())) == 4
        assert [archive.read(f"labels/{stem}.txt").count(b"\n") for stem in ("a", "a_png")] == [1, 2]
        assert archive.read("images.csv").decode().splitlines() == [
            "image,image_id",
            "images/a.jpg,a.jpg",
            "images/a_png.png,a.png",
        ]
    for name, key in (("openpose", "people"), ("cmu", "bodies")):
        with zipfile.ZipFile(export(run, name)) as archive:
            counts = {n: len(json.loads(archive.read(n))[key]) for n in archive.namelist()}
        assert counts == {"a_keypoints.json": 1, "a_png_keypoints.json": 2}


def outside() -> People:
    """A person whose box and joints reach out of an image of 640 x 480: joints 0 to 3 are outside."""
    one = people(1, 0)
    keypoints = np.full((1, 17, 2), 100.0)
    keypoints[0, :4] = [(-1, 50), (50, -0.5), (641, 50), (50, 481)]
    keypoints[0, 4] = (640, 480)
    return People(np.array([[-20, -10, 700, 500.0]]), one.box_scores, keypoints, np.full((1, 17), 0.9), one.pose_scores)


def test_labels_of_yolo_are_never_outside_the_image(tmp_path: Path) -> None:
    """Ultralytics refuses a label file with a value below 0 or above 1."""
    run = reduced(tmp_path, {"a.jpg": outside()})
    with zipfile.ZipFile(export(run, "yolo")) as archive:
        values = np.array(archive.read("labels/a.txt").decode().split(), float)
        description = yaml.safe_load(archive.read("data.yaml"))
    assert ((values[1:5] >= 0) & (values[1:5] <= 1)).all()
    joints = values[5:].reshape(17, 3)
    assert ((joints[:, :2] >= 0) & (joints[:, :2] <= 1)).all()
    assert joints[:, 2].tolist() == [0] * 4 + [2] * 13
    assert {"train", "val", "names", "kpt_shape", "flip_idx"} <= set(description)


def test_regions_of_label_studio_and_cvat_are_never_outside_the_image(tmp_path: Path) -> None:
    run = reduced(tmp_path, {"a.jpg": outside()})
    ((task),) = json.loads(storage.read_bytes(export(run, "label_studio")))
    values = [entry["value"] for entry in task["predictions"][0]["result"]]
    assert len(values) == 1 + 13
    assert all(0 <= v["x"] <= 100 and 0 <= v["y"] <= 100 for v in values)
    assert (values[0]["x"] + values[0]["width"], values[0]["y"] + values[0]["height"]) == (100, 100)
    (entry,) = json.loads(storage.read_bytes(export(run, "cvat")))["annotations"]
    assert entry["bbox"] == [0, 0, 640, 480]
    assert entry["num_keypoints"] == 13
    assert entry["segmentation"] == []


def test_exports_reuse_the_tables_of_a_complete_run(tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", {"a.jpg": ([], [(20.0, 30.0)])})
    (table,) = (tmp_path / "run" / "tables" / "people").iterdir()
    written = table.stat().st_mtime_ns
    assert reduce([run.uri, "--export", "cvat", "--export", "fiftyone"]) == 0
    assert table.stat().st_mtime_ns == written
    assert {path.name for path in (tmp_path / "run" / "exports").iterdir()} == {
        "cvat-person_keypoints.json",
        "fiftyone",
    }
