"""The examples of infra/edge, in environments without this project's packages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.paths import PROJECT

from jobs.export import main as export
from pipeline.annotator import Annotator
from pipeline.images import decode_image
from pipeline.settings.tree import Settings

EDGE = PROJECT / "infra" / "edge"
POSE = PROJECT / "weights" / "fastpose_lite0_coco17.safetensors"
PHOTO = PROJECT / "configs" / "demo" / "photos" / "eileen_collins.jpg"


def uv_run(*command: str) -> str:
    done = subprocess.run(["uv", "run", *command], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_standalone_example_finds_the_same_joints_without_torch(tmp_path: Path) -> None:
    assert export([f"--pose.weights={POSE}", "--detector.weights=nanodet_g_person", f"--output={tmp_path}"]) == 0
    files = (str(PHOTO), str(tmp_path / "nanodet_g_person.onnx"), str(tmp_path / f"{POSE.stem}.onnx"))
    printed = uv_run(str(EDGE / "keypoints.py"), *files)
    found = [json.loads(line) for line in printed.splitlines()]
    settings = Settings.model_validate(
        {"pose": {"weights": str(POSE)}, "compute": {"precision": "float32"}, "suppression": {"kind": "none"}}
    )
    annotator = Annotator.from_settings(settings)
    (people,) = annotator.annotate([decode_image(PHOTO.read_bytes()).pixels])
    assert len(found) == len(people) > 0
    np.testing.assert_allclose(found[0]["box"], people.boxes[0], atol=2)
    assert list(found[0]["keypoints"]) == list(annotator.poses.skeleton.joints)
    joints = np.array(list(found[0]["keypoints"].values()))
    sure = people.keypoint_scores[0] > 0.3
    apart = np.hypot(*(joints[sure, :2] - people.keypoints[0, sure]).T)
    assert sure.sum() >= 5
    assert np.median(apart) < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "suffix"), [(("--with", "executorch==1.5.1", "to_executorch.py"), "pte"), (("to_litert.py",), "tflite")]
)
def test_files_for_phones_compute_the_same(command: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    *options, script = command
    written = tmp_path / f"pose.{suffix}"
    assert "largest difference" in uv_run(*options, str(EDGE / script), str(POSE), str(written))
    assert written.stat().st_size > 20e6
