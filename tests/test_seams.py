"""The public names and signatures that other projects use."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from support.paths import SHARED, needs_models

from pipeline.annotator import Annotator
from pipeline.detectors.darknet import Darknet, DarknetError
from pipeline.evaluation import Metrics, evaluate_keypoints
from pipeline.people import People
from pipeline.pose import build_pose_model
from pipeline.pose.crop import crop_boxes
from pipeline.pose.heatmap import decode_argmax, decode_integral
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.suppression import PoseNMS, pose_nms


def test_pose_networks_crops_and_decoding() -> None:
    model = build_pose_model("fastpose_mobile_small", num_joints=17).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 256, 192)).shape == (1, 17, 64, 48)
    matrices, cropped = crop_boxes(np.array([[10.0, 10, 60, 90]]), (256, 192))
    assert (matrices.shape, cropped.shape) == ((1, 2, 3), (1, 4))
    maps = np.zeros((1, 17, 64, 48), np.float32)
    for keypoints, scores in (decode_argmax(maps, cropped), decode_integral(maps, cropped, norm="softmax")):
        assert (keypoints.shape, scores.shape) == ((1, 17, 2), (1, 17))


def test_suppression() -> None:
    people, merged = pose_nms(People.empty(17))
    assert (len(people), merged) == (0, [])
    assert inspect.signature(pose_nms).parameters["settings"].default == PoseNMS()
    assert "images" in inspect.signature(Annotator.annotate).parameters


def test_evaluation() -> None:
    truth = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}
    metrics = evaluate_keypoints([], truth, SKELETONS["coco17"])
    assert isinstance(metrics, Metrics)
    for name in ("ap", "ap50", "ap75", "ap_m", "ap_l", "ar", "ar50", "ar75", "ar_m", "ar_l"):
        assert getattr(metrics, name) == -1
    assert all(isinstance(skeleton, Skeleton) for skeleton in SKELETONS.values())


@needs_models
def test_darknet_is_loaded_from_files() -> None:
    models = SHARED / "models"
    network = Darknet.from_files(models / "yolo-fastest-1.1-xl.cfg", models / "yolo-fastest-1.1-xl.weights").eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 3 * (3 * 3 + 6 * 6), 85)


def test_darknet_files_that_do_not_fit_are_refused(tmp_path) -> None:
    (tmp_path / "a.cfg").write_text(
        "[net]\nwidth=32\n[convolutional]\nfilters=18\nsize=1\n[yolo]\nanchors=1,1\nclasses=1"
    )
    (tmp_path / "a.weights").write_bytes(bytes(24))
    with pytest.raises(DarknetError, match=r"a\.cfg with .*a\.weights"):
        Darknet.from_files(tmp_path / "a.cfg", tmp_path / "a.weights")
