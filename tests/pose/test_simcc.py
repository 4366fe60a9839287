"""Exported networks that classify each joint along each axis (SimCC), as MMPose's exporter names their outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import UserError
from pipeline.pose.estimator import PoseEstimator
from pipeline.pose.heatmap import decode_simcc
from pipeline.runtime.device import Compute
from pipeline.settings.tree import PoseSettings
from pipeline.skeletons import SKELETONS

HEIGHT, WIDTH, JOINTS, SPLIT = 64, 48, 17, 2
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def projections(path: Path, names: tuple[str, str] = ("simcc_x", "simcc_y"), columns: int = WIDTH * SPLIT) -> str:
    """A network whose joint k has its x bins as bright as the columns of the crop, and its y bins as the rows; joint k
    reads colour k modulo 3. Each pixel has two bins."""
    colours = np.eye(3, dtype=np.float32)[np.arange(JOINTS) % 3].reshape(JOINTS, 3, 1, 1)
    axis_x, axis_y = np.array([2], np.int64), np.array([3], np.int64)
    constants = {"colours": colours, "rows": axis_x, "columns": axis_y}
    nodes = [helper.make_node("Conv", ["images", "colours"], ["picked"])]
    for name, over, side in ((names[0], "rows", columns), (names[1], "columns", HEIGHT * SPLIT)):
        constants[f"sizes_{name}"] = np.array([1, 1, side], np.int64)
        scale = np.array([1, 1, side / (WIDTH if over == "rows" else HEIGHT)], np.float32)
        constants[f"scale_{name}"] = scale
        nodes.append(helper.make_node("ReduceMax", ["picked", over], [f"line_{name}"], keepdims=0))
        nodes.append(
            helper.make_node(
                "Resize",
                [f"line_{name}", "", f"scale_{name}"],
                [name],
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        )
    kind = TensorProto.FLOAT
    outputs = [
        helper.make_tensor_value_info(name, kind, ["batch", JOINTS, side])
        for name, side in zip(names, (columns, HEIGHT * SPLIT), strict=True)
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "projections",
        [helper.make_tensor_value_info("images", kind, ["batch", 3, HEIGHT, WIDTH])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return str(path)


def spots() -> np.ndarray:
    """A crop with one bright pixel in each colour: at x 10 y 20, x 30 y 5, x 40 y 50."""
    crop = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    for colour, (x, y) in enumerate(((10, 20), (30, 5), (40, 50))):
        crop[0, y, x, colour] = 255
    return crop


BOX = np.array([[100, 200, 100 + 2 * WIDTH, 200 + 2 * HEIGHT]], np.float32)  # two image pixels for one of the crop


@pytest.mark.parametrize("runtime", ["auto", "openvino"])
def test_joints_are_found_at_the_best_bins(runtime: str, tmp_path: Path) -> None:
    settings = PoseSettings(weights=projections(tmp_path / "rtm.onnx"), pixels="imagenet", batch=1)
    poses = PoseEstimator.from_settings(settings, Compute.resolve("cpu", "float32", runtime))  # type: ignore[arg-type]
    assert "SimCC network with 17 joints at 64x48, simcc" in poses.describe()[0]
    joints, scores = poses.estimate([spots()], [BOX])
    for joint in range(JOINTS):
        x, y = ((10, 20), (30, 5), (40, 50))[joint % 3]
        np.testing.assert_allclose(joints[0, joint], [100 + 2 * x, 200 + 2 * y])
        white = (1 - MEAN[joint % 3]) / DEVIATION[joint % 3]  # what MMPose's networks see where a colour is full
        np.testing.assert_allclose(scores[0, joint], white, rtol=1e-5)


def test_mirrored_crops_give_the_mirrored_joints(tmp_path: Path) -> None:
    settings = PoseSettings(weights=projections(tmp_path / "rtm.onnx"), batch=1)
    compute = Compute.resolve("cpu", "float32")
    plain = PoseEstimator.from_settings(settings, compute)
    bins = torch.from_numpy(np.random.default_rng(0).random((2, JOINTS, 2 * (WIDTH + HEIGHT)), np.float32))
    mirror = SKELETONS["coco17"].mirror
    back = plain.head.flip_back(bins, mirror)
    assert torch.equal(plain.head.flip_back(back, mirror), bins)
    assert torch.equal(back[:, 1, : 2 * WIDTH], bins[:, mirror[1], : 2 * WIDTH].flip(1))
    assert torch.equal(back[:, 1, 2 * WIDTH :], bins[:, mirror[1], 2 * WIDTH :])
    flipped = PoseEstimator.from_settings(settings.model_copy(update={"flip_test": True}), compute)
    symmetric = np.maximum(spots(), spots()[:, :, ::-1])
    assert flipped.estimate([symmetric], [BOX])[0].shape == (1, JOINTS, 2)


def test_the_score_is_the_smaller_maximum() -> None:
    vectors = np.zeros((1, 1, 6), np.float32)
    vectors[0, 0, 2], vectors[0, 0, 5] = 0.9, 0.4  # the third of four columns, the second of two rows
    joints, scores = decode_simcc(vectors, np.array([[0, 0, 8, 4]]), columns=4)
    np.testing.assert_allclose(joints, [[[4, 2]]])
    np.testing.assert_allclose(scores, [[0.4]])


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        (
            {"decode": "argmax"},
            WIDTH * SPLIT,
            r"--pose\.decode argmax does not fit .*leave it out, or use simcc",
        ),
        ({}, WIDTH * SPLIT + 1, r"output \[1, 17, 225\] .* is not .* heatmaps .*, nor simcc_x and simcc_y"),
    ],
)
def test_other_outputs_are_refused(settings: dict, columns: int, message: str, tmp_path: Path) -> None:
    weights = projections(tmp_path / "rtm.onnx", columns=columns)
    with pytest.raises(UserError, match=message):
        PoseEstimator.from_settings(PoseSettings(weights=weights, **settings), Compute.resolve("cpu", "float32"))


def test_simcc_of_own_weights_and_pixels_of_own_weights_are_refused() -> None:
    compute = Compute.resolve("cpu", "float32", "torch")
    with pytest.raises(UserError, match=r"--pose\.decode simcc does not fit the output"):
        PoseEstimator.from_settings(PoseSettings(decode="simcc"), compute)
    with pytest.raises(UserError, match=r"--pose\.pixels is for networks that other programs exported"):
        PoseEstimator.from_settings(PoseSettings(pixels="imagenet"), compute)
    with pytest.raises(ValueError, match=r"--pose\.decode simcc cannot be combined with --pose\.scales"):
        PoseSettings(decode="simcc", scales=(1.0, 1.25))
