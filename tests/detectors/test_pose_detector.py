"""Exported networks that find boxes and joints at once: no pose network runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import SHARED
from torch import Tensor, nn

from pipeline.annotator import Annotator
from pipeline.errors import UserError
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS


class OnePose(nn.Module):
    """A YOLOv8-pose output with a person around the red pixels; no person if there are none.

    Joint k is k pixels right of and 2 k below the upper left corner, with the score k / 20.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        red = (x[:, 0] > 0.8) & (x[:, 1] < 0.2)
        out = torch.zeros(x.shape[0], 5 + 17 * self.values, 336)  # 16^2 + 8^2 + 4^2 cells
        out[:, 5] = 300.0  # coordinates, not probabilities
        for i in range(x.shape[0]):
            ys, xs = torch.where(red[i])
            if ys.numel() > 0:
                x1, x2, y1, y2 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
                out[i, 0, 3], out[i, 1, 3] = (x1 + x2) / 2, (y1 + y2) / 2
                out[i, 2, 3], out[i, 3, 3] = x2 - x1, y2 - y1
                out[i, 4, 3] = 0.8
                for k in range(17):
                    out[i, 5 + k * self.values, 3] = x1 + k
                    out[i, 6 + k * self.values, 3] = y1 + 2 * k
                    if self.values == 3:
                        out[i, 7 + k * self.values, 3] = k / 20
        return out


def weights(folder: Path, values: int = 3, **metadata: object) -> str:
    path = folder / "pose.torchscript"
    config = json.dumps({"names": "{0: 'person'}", **metadata})
    torch.jit.save(torch.jit.script(OnePose(values)), str(path), _extra_files={"config.txt": config})
    return str(path)


def settings(path: str, **sections: dict) -> Settings:
    detector = {"name": "yolo_pose", "weights": path, "input_size": 128}
    return Settings.model_validate({"detector": detector, "suppression": {"kind": "none"}, **sections})


@pytest.mark.parametrize(("values", "stated"), [(3, "[17, 3]"), (3, None), (2, "[17, 2]")])
def test_joints_are_those_of_the_network_in_image_pixels(values: int, stated: str | None, tmp_path: Path) -> None:
    metadata = {} if stated is None else {"kpt_shape": stated}
    annotator = Annotator.from_settings(settings(weights(tmp_path, values, **metadata)))
    assert annotator.poses.skeleton.name == "coco17"
    assert annotator.poses.networks == ()
    annotator.check()
    image = np.zeros((128, 256, 3), np.uint8)  # half as large in the input, 32 pixels from its top
    image[40:100, 60:120] = (255, 0, 0)
    red, black = annotator.annotate([image, np.zeros((64, 64, 3), np.uint8)])
    assert (len(red), len(black)) == (1, 0)
    np.testing.assert_allclose(red.boxes, [[60, 40, 120, 100]], atol=2)
    places = red.boxes[0, :2] + 2 * np.arange(17)[:, None] * np.array([1, 2])
    np.testing.assert_allclose(red.keypoints[0], places, atol=1e-3)
    expected = np.arange(17) / 20 if values == 3 else np.ones(17)
    np.testing.assert_allclose(red.keypoint_scores[0], expected, atol=1e-6)


def test_a_detector_without_joints_is_refused(tmp_path: Path) -> None:
    class Boxes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(x.shape[0], 5, 336)

    path = tmp_path / "boxes.torchscript"
    torch.jit.save(torch.jit.script(Boxes()), str(path))
    with pytest.raises(UserError, match=r"it is not a pose network: set --detector\.name yolo"):
        Annotator.from_settings(settings(str(path)))


def test_another_skeleton_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--pose\.skeleton halpe26 has 26 joints, but .* one with 17 joints"):
        Annotator.from_settings(settings(weights(tmp_path), pose={"skeleton": "halpe26"}))


def test_settings_of_pose_networks_have_no_effect(tmp_path: Path) -> None:
    unused = settings("x.onnx", pose={"flip_test": True, "skeleton": "coco17"}).unused()
    assert unused == {"pose.flip_test": "with --detector.name yolo_pose, which finds joints itself; leave it out"}
    assert settings("x.onnx").pose_networks() == ()


class MoveNet(nn.Module):
    """MoveNet's input, (1, H, W, 3) whole numbers, and output: one person around the red pixels.

    Joint k is in the upper left corner of the box, k hundredths of the input to the right; its score is k / 20.
    """

    def __init__(self, several: bool) -> None:
        super().__init__()
        self.several = several

    def forward(self, x: Tensor) -> Tensor:
        red = ((x[0, :, :, 0] > 200) & (x[0, :, :, 1] < 50)).float()
        rows, columns = red.amax(dim=1), red.amax(dim=0)
        places = torch.arange(128.0) / 128
        y1, x1 = 1 - (rows * (1 - places)).max(), 1 - (columns * (1 - places)).max()
        y2, x2 = (rows * (places + 1 / 128)).max(), (columns * (places + 1 / 128)).max()
        k = torch.arange(17.0)
        joints = torch.stack([y1.expand(17), x1 + k / 100, k / 20 * rows.max()], dim=1)
        if not self.several:
            return joints[None, None]
        person = torch.cat([joints.flatten(), torch.stack([y1, x1, y2, x2, 0.9 * rows.max()])])
        return torch.cat([torch.zeros(5, 56), person[None]])[None]


@pytest.mark.parametrize("several", [True, False])
def test_movenet(several: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "movenet.onnx")
    example = torch.zeros(1, 128, 128, 3, dtype=torch.int32)
    torch.onnx.export(MoveNet(several).eval(), (example,), path, dynamo=True, verbose=False)
    detector = {"name": "movenet", "weights": path, "confidence": 0.3}
    annotator = Annotator.from_settings(settings(path, detector=detector))
    assert annotator.poses.skeleton.name == "coco17"
    image = np.zeros((128, 256, 3), np.uint8)  # half as large in the input, 32 pixels from its top
    image[40:100, 60:120] = (255, 0, 0)
    red, black = annotator.annotate([image, np.zeros((64, 64, 3), np.uint8)])
    assert (len(red), len(black)) == (1, 0)
    right = 120 if several else 60 + 16 * 2.56  # the last joint
    np.testing.assert_allclose(red.boxes, [[60, 40, right, 100 if several else 40]], atol=2)
    places = red.boxes[0, :2] + 2.56 * np.arange(17)[:, None] * np.array([1, 0])
    np.testing.assert_allclose(red.keypoints[0], places, atol=0.01)
    np.testing.assert_allclose(red.keypoint_scores[0], np.arange(17) / 20, atol=1e-6)


def test_another_output_is_not_taken_for_movenet(tmp_path: Path) -> None:
    path = weights(tmp_path)
    detector = {"name": "movenet", "weights": path, "input_size": 128}
    with pytest.raises(UserError, match=r"as movenet: its output \[1, 56, 336\] is not that of MoveNet"):
        Annotator.from_settings(settings(path, detector=detector))


_CASES = SHARED / "cases" / "onnx"


@pytest.mark.skipif(not _CASES.is_dir(), reason="needs the files of ../shared/cases")
def test_an_onnx_export_of_yolov8_pose() -> None:
    annotator = Annotator.from_settings(
        Settings.model_validate({"detector": {"name": "yolo_pose", "weights": str(_CASES / "v8_pose_56.onnx")}})
    )
    (people,) = annotator.annotate([np.full((320, 320, 3), 90, np.uint8)])
    np.testing.assert_allclose(people.boxes, [[100, 80, 220, 300]], atol=1)
    assert people.keypoints.shape == (1, len(SKELETONS["coco17"]), 2)
