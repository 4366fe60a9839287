"""The commands as a user runs them, on the demo and on real photographs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import pytest
from support.cluster import Cluster, rows
from support.images import encode, gradient
from support.paths import PEOPLE, PROJECT, SHARED, needs_models, needs_people

from jobs import annotate, evaluate, reduce
from pipeline import storage

STARTER = SHARED / "models" / "starter" / "fastpose_mobile_small_coco17.safetensors"
STARTER_AP = 0.108  # what its authors measured with true boxes, no flip test, no pose NMS, in another implementation
SHIPPED_BOX_AP = 0.342  # in bf16 or float32
SHIPPED_AP_FLIPPED = 0.412  # ours with flip test, in bf16 or float32


@pytest.fixture(scope="module")
def val_tars(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> str:
    """The 120 photographs as three WebDataset tars on S3."""
    names = [image["file_name"] for image in json.loads((PEOPLE / "val.json").read_text())["images"]]
    folder = tmp_path_factory.mktemp("tars")
    for i in range(3):
        with tarfile.open(folder / f"val-{i}.tar", "w") as archive:
            for name in names[i * 40 : (i + 1) * 40]:
                archive.add(PEOPLE / "images" / name, name)
        storage.write_bytes(f"{s3_server}/val/val-{i}.tar", (folder / f"val-{i}.tar").read_bytes())
    return f"{s3_server}/val"


def keypoint_ap(output: str) -> float:
    match = re.search(r"keypoints: AP ([\d.]+)", output)
    assert match, output
    assert "120 of 120 annotated images are in the run" in output
    return float(match[1])


@pytest.mark.slow
@needs_people
@needs_models
def test_real_photographs_with_true_boxes_from_files_and_from_s3(
    cluster: Cluster, val_tars: str, tmp_path: Path
) -> None:
    cluster.behave()
    # Under its own name it would be taken for a file of the catalogue, which has another digest.
    starter = shutil.copy(STARTER, tmp_path / "starter.safetensors")
    common = [
        f"--annotations={PEOPLE / 'val.json'}",
        "--detector.name=given",
        f"--pose.weights={starter}",
        "--suppression.kind=none",
        "--compute.precision=float32",
    ]
    local = tmp_path / "local"
    files = [f"--input={PEOPLE / 'val.json'}", f"--input.image_root={PEOPLE / 'images'}", "--input.shard_size=50"]
    output = cluster.run("annotate", *files, f"--output={local}", *common)
    assert keypoint_ap(output) == pytest.approx(STARTER_AP, abs=0.005)
    assert json.loads((local / "metrics.json").read_text())["keypoints"]["ap50"] == pytest.approx(0.287, abs=0.005)

    remote = f"{val_tars}-run"
    output = cluster.run("annotate", f"--input={val_tars}", f"--output={remote}", *common)
    assert keypoint_ap(output) == pytest.approx(STARTER_AP, abs=0.005)
    on_files, from_tars = (
        {row["coco_id"]: (row["sha256"], row["num_people"]) for row in rows(uri)[0]} for uri in (str(local), remote)
    )
    assert len(on_files) == 120
    assert from_tars == on_files
    poses = [sorted((row["coco_id"], row["keypoints"]) for row in rows(uri)[1]) for uri in (str(local), remote)]
    assert poses[0] == poses[1], "the way to an image does not change its people"
    output = cluster.run("evaluate", remote, "--errors")
    assert "keypoints: AP 0.10" in output
    assert "joints of matched people: good" in output
    assert json.loads(storage.read_bytes(f"{remote}/errors.json"))["missed"] > 0


@needs_people
def test_the_shipped_weights_score_as_documented(cluster: Cluster, tmp_path: Path) -> None:
    cluster.behave()
    output = cluster.run(
        "annotate",
        f"--input={PEOPLE / 'val.json'}",
        f"--input.image_root={PEOPLE / 'images'}",
        f"--output={tmp_path / 'run'}",
        f"--annotations={PEOPLE / 'val.json'}",
        "--detector.name=given",
        "--suppression.kind=none",
        "--pose.flip_test",
    )
    assert keypoint_ap(output) == pytest.approx(SHIPPED_AP_FLIPPED, abs=0.005)
    assert "evaluated with given boxes, flip test" in output


@pytest.mark.slow
@needs_people
def test_the_shipped_detector_scores_as_documented(cluster: Cluster, tmp_path: Path) -> None:
    cluster.behave()
    output = cluster.run(
        "annotate",
        f"--input={PEOPLE / 'val.json'}",
        f"--input.image_root={PEOPLE / 'images'}",
        f"--output={tmp_path / 'run'}",
        f"--annotations={PEOPLE / 'val.json'}",
        "--detector.confidence=0.1",
        "--detector.nms_iou=0.5",
        "--suppression.kind=none",
    )
    match = re.search(r"person boxes: AP ([\d.]+)", output)
    assert match, output
    assert float(match[1]) == pytest.approx(SHIPPED_BOX_AP, abs=0.005)


@pytest.mark.slow
@needs_people
@needs_models
def test_real_photographs_with_a_real_detector(cluster: Cluster, tmp_path: Path) -> None:
    cluster.behave()
    model = SHARED / "models" / "yolo-fastest-1.1-xl"
    output = cluster.run(
        "annotate",
        f"--input={PEOPLE / 'val.json'}",
        f"--input.image_root={PEOPLE / 'images'}",
        f"--output={tmp_path / 'run'}",
        f"--annotations={PEOPLE / 'val.json'}",
        "--detector.name=darknet",
        f"--detector.cfg={model}.cfg",
        f"--detector.weights={model}.weights",
        "--detector.confidence=0.05",
        "--detector.input_size=608",
        "--draw=3",
    )
    assert keypoint_ap(output) > 0.3
    boxes = re.search(r"person boxes: AP ([\d.]+)  AP50 ([\d.]+)", output)
    assert boxes
    assert float(boxes[1]) > 0.23
    assert float(boxes[2]) > 0.50
    images, _ = rows(str(tmp_path / "run"))
    assert len(images) == 120
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 3


def test_a_folder_of_anything(cluster: Cluster, tmp_path: Path) -> None:
    cluster.behave()
    photos = tmp_path / "my photos"
    (photos / "sub").mkdir(parents=True)
    (photos / "a.jpg").write_bytes(encode(gradient()))
    (photos / "sub" / "b.png").write_bytes(encode(gradient(), "PNG"))
    (photos / "notes.txt").write_text("hello")
    (photos / "broken.jpg").write_bytes(encode(gradient())[:300])
    output = cluster.run("annotate", f"--input={photos}", f"--output={tmp_path / 'run'}", "--detector.name=whole_image")
    assert "4 images (2 ok, 2 unreadable)" in output
    assert "whole image" in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input=nowhere"], "nowhere: no such folder"),
        (["--input=pyproject.toml", "--detector.name=given"], "--detector.name given needs --detector.boxes or"),
        (["--input=configs/demo/photos", "--pose.weights=gone.pth"], "gone.pth: no such file"),
        (["--input=configs/demo/photos", "--detector.name=yolov8n"], "--detector.name yolov8n: no such detector"),
        (["--input=tests/support/data/demo_boxes.json", "--detector.name=whole_image"], "set --input.image_root"),
        (["--input={tmp}/damaged.parquet"], "damaged.parquet is not a Parquet file, or is damaged"),
        (["--input={tmp}/utf16.txt"], "utf16.txt is not UTF-8 text, or is damaged"),
        (["--input=configs/demo/photos/**.png"], "configs/demo/photos/**.png is not a valid pattern"),
    ],
)
def test_wrong_settings_end_the_job_before_ray_starts(
    flags: list[str], message: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(annotate, "connect", None)  # calling it would fail
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and not a table PAR1")
    (tmp_path / "utf16.txt").write_bytes("a.jpg".encode("utf-16"))
    flags = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    assert annotate.main([*flags, f"--output={tmp_path / 'run'}"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("annotate: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("job", [reduce, evaluate])
def test_reduce_and_evaluate_need_a_run_directory(job, tmp_path: Path, capsys) -> None:
    assert job.main([str(tmp_path)]) == 2
    assert "has no run.json" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_named(cluster: Cluster, tmp_path: Path) -> None:
    flags = [f"--output={tmp_path / 'run'}", "--fleet.address=127.0.0.1:1"]
    output = cluster.run("annotate", *flags, code=1)
    assert "no Ray cluster at 127.0.0.1:1" in output


def own_cluster(*flags: str) -> tuple[int, str]:
    """A job with no cluster around, as on a laptop."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    job = subprocess.run(
        [sys.executable, "jobs/annotate.py", *flags],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return job.returncode, job.stdout


def test_the_demo_on_a_cluster_that_the_job_starts(tmp_path: Path) -> None:
    # Without --input the demo is annotated, without RAY_ADDRESS a local cluster is started.
    run = tmp_path / "demo"
    code, output = own_cluster(f"--output={run}")
    assert code == 0, output
    assert "7 images (6 ok, 1 unreadable), 7 people" in output
    assert "person_small" in output
    assert "fastpose_lite0_coco17.safetensors" in output
    assert "Traceback" not in output
    assert len(output.splitlines()) < 20, "Ray's own messages do not hide the progress"
    images, people = rows(str(run))
    assert {row["image_id"]: row["num_people"] for row in images}["cat.jpg"] == 0
    assert [row["image_id"] for row in images if row["status"] != "ok"] == ["cut_short.jpg"]
    assert len(people) == 7
    pictures = sorted((run / "pictures").iterdir())
    assert len(pictures) == 6
    sizes = {p.name: cv2.imread(str(p)).shape[:2] for p in pictures}
    assert (600, 1552) in sizes.values()
    assert not (run / "coco_results.json").exists(), "the demo has no COCO ids"
    assert (run / "run.json").exists()
    totals = json.loads((run / "totals.json").read_text())
    assert totals["complete"]
    assert totals["images"] == 7


def test_a_worker_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    code, output = own_cluster(f"--output={tmp_path / 'demo'}", "--fleet.cpus_per_worker=999")
    assert code == 1
    assert "a worker needs 999 CPUs and 0 GPUs, but this machine has" in output
