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
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.cluster import Cluster, rows
from support.images import encode, gradient
from support.paths import DEMO, PEOPLE, PROJECT, SHARED, needs_models, needs_people
from support.s3 import S3_ENVIRONMENT, S3Server
from support.videos import decoded, write_clip

from jobs import annotate, evaluate, reduce
from pipeline import storage
from pipeline.images import decode_image
from pipeline.run import Run
from pipeline.run.sessions import read_sessions

STARTER = SHARED / "models" / "starter" / "fastpose_mobile_small_coco17.safetensors"
STARTER_AP = 0.108  # what its authors measured with true boxes, no flip test, no pose NMS, in another implementation
SHIPPED_BOX_AP = 0.437  # in bf16 or float32
SHIPPED_AP_FLIPPED = 0.592  # ours with flip test, in bf16 or float32


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
@pytest.mark.slow
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
    assert keypoint_ap(output) == pytest.approx(SHIPPED_AP_FLIPPED, abs=0.01)
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
        "--suppression.kind=none",
        "--draw=3",
    )
    assert keypoint_ap(output) > 0.45
    boxes = re.search(r"person boxes: AP ([\d.]+)  AP50 ([\d.]+)", output)
    assert boxes
    assert float(boxes[1]) > 0.3
    assert float(boxes[2]) > 0.65
    images, _, _ = rows(str(tmp_path / "run"))
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
        (["--input={tmp}/latin1.txt"], "latin1.txt is not UTF-8 text, or is damaged"),
        (["--input={tmp}/utf16.txt"], "none of the listed images exists"),
        (["--input=configs/demo/photos/**.png"], "configs/demo/photos/**.png is not a valid pattern"),
        (["--input={tmp}/null.json"], "null.json: images[0] has the file_name None; expected text"),
        (["--input={tmp}/ids.json"], "ids.json: images[0] has the image id None; expected a whole number or text"),
        (["--input={tmp}/x.rar"], "x.rar is neither an image (JPEG"),
        (["--input={tmp}/empty"], "empty: no files found"),
        (
            ["--input=configs/demo/photos", "--pose.weights={tmp}/page.pth"],
            "page.pth: this is an HTML page, not weights",
        ),
        (["--input=configs/demo/photos", "--pose.weights={tmp}/lfs.onnx"], "lfs.onnx: this is a Git LFS pointer"),
        (
            ["--input=configs/demo/photos", "--pose.weights=fastpose_r50"],
            "did you mean alphapose_fastpose_r50_coco17 or",
        ),
        (["--input=configs/demo/photos", "--pose.skeleton=halpe26"], "--pose.skeleton halpe26 has 26 joints, but the"),
        (
            ["--input=configs/demo/photos", "--annotations={tmp}/null.json"],
            "null.json: images[0] has the file_name None",
        ),
    ],
)
def test_wrong_settings_end_the_job_before_ray_starts(
    flags: list[str], message: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(annotate, "connect", None)  # calling it would fail
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and not a table PAR1")
    (tmp_path / "utf16.txt").write_bytes("a.jpg".encode("utf-16"))
    (tmp_path / "latin1.txt").write_bytes("\xe4.jpg".encode("latin-1"))
    (tmp_path / "null.json").write_text('{"images": [{"id": 1, "file_name": null}], "annotations": []}')
    (tmp_path / "ids.json").write_text('{"images": [{"id": null, "file_name": "a.jpg"}], "annotations": []}')
    (tmp_path / "x.rar").write_bytes(b"Rar!\x1a\x07\x00")
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Sign in</html>")
    (tmp_path / "lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    flags = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    assert annotate.main([*flags, f"--output={tmp_path / 'run'}"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("annotate: ")
    assert output.err.count("\n") == 1
    assert not (tmp_path / "run" / "run.json").exists(), "a mistake does not claim the directory"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "s3://bucket/photos: no credentials found"),
        pytest.param(
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            's3://bucket/photos: Could not connect to the endpoint URL: "http://127.0.0.1:9',
            marks=pytest.mark.slow,  # it is retried for a while
        ),
        ({**S3_ENVIRONMENT, "AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://bucket/photos: Forbidden"),
        (S3_ENVIRONMENT, "--input s3://nobucket/photos: "),
    ],
)
def test_storage_that_cannot_be_used_is_named_in_one_line(
    s3: S3Server, environment: dict, message: str, tmp_path: Path
) -> None:
    bucket = "nobucket" if "nobucket" in message else "bucket"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.faults.port}", "HOME": str(tmp_path)}
    job = subprocess.run(
        [sys.executable, "jobs/annotate.py", f"--input=s3://{bucket}/photos", f"--output={tmp_path / 'run'}"],
        cwd=PROJECT,
        env=clean | endpoint | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert job.returncode == 2
    assert message.removeprefix("--input ") in job.stderr
    assert len([line for line in job.stderr.splitlines() if line.startswith("annotate: ")]) == 1
    assert "Traceback" not in job.stderr


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
    environment["HOME"] = "/proc/sys"  # where nothing can be written
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
    assert "nanodet_g_person" in output
    assert "movenet_thunder_coco17.safetensors" in output
    assert "Traceback" not in output
    assert len(output.splitlines()) < 20, "Ray's own messages do not hide the progress"
    images, people, _ = rows(str(run))
    assert {row["image_id"]: row["num_people"] for row in images}["cat.jpg"] == 0
    assert [row["image_id"] for row in images if row["status"] != "ok"] == ["cut_short.jpg"]
    assert len(people) == 7
    pictures = sorted((run / "pictures").iterdir())
    assert len(pictures) == 6
    assert "Verdict" in (run / "report.html").read_text(), "the page comes with the pictures"
    sizes = {p.name: cv2.imread(str(p)).shape[:2] for p in pictures}
    assert (600, 1552) in sizes.values()
    assert not (run / "coco_results.json").exists(), "the demo has no COCO ids"
    assert (run / "run.json").exists()
    totals = json.loads((run / "totals.json").read_text())
    assert totals["complete"]
    assert totals["images"] == 7
    (session,) = read_sessions(Run.open(str(run)))
    assert session.images == 7
    assert 0 < session.seconds < 300
    assert session.peak_megabytes > 100


def test_a_worker_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    code, output = own_cluster(f"--output={tmp_path / 'demo'}", "--fleet.cpus_per_worker=999")
    assert code == 1
    assert "a worker needs 999 CPUs and 0 GPUs, but this machine has" in output


def test_a_video_by_the_command_of_the_readme(tmp_path: Path) -> None:
    """Frames, tracks, smoothed joints, angles, a drawn video and the page."""
    portrait = decode_image((DEMO / "photos" / "eileen_collins.jpg").read_bytes()).pixels[::2, ::2]
    frames = [np.ascontiguousarray(np.roll(portrait, i, axis=1)) for i in range(20)]
    write_clip(tmp_path / "clip.mp4", frames)
    run = tmp_path / "run"
    code, output = own_cluster(f"--input={tmp_path / 'clip.mp4'}", f"--output={run}", "--draw=1")
    assert code == 0, output
    tables = {
        name: pq.read_table(run / "tables" / name).to_pylist() for name in ("images", "tracks", "motion", "events")
    }
    assert [row["frame"] for row in tables["images"]] == list(range(20))
    ids = [row["track_id"] for row in tables["tracks"]]  # the network also takes something else for a person
    portrayed = [row for row in tables["tracks"] if row["track_id"] == max(set(ids), key=ids.count)]
    assert [row["frame"] for row in portrayed] == list(range(20))
    np.testing.assert_allclose(np.diff([row["keypoints_smooth"][0][0] for row in portrayed]), 1, atol=0.75)
    assert [row["track_id"] for row in tables["motion"]] == [row["track_id"] for row in tables["tracks"]]
    (drawn,) = (run / "videos").iterdir()
    assert len(decoded(drawn)) == 20
    page = (run / "report.html").read_text()
    assert f'src="videos/{drawn.name}"' in page
    assert page.index(">Videos</h2>") < page.index(">Pictures</h2>")
