"""What people look like, as vectors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.exports import export_onnx
from torch import nn

from pipeline.annotator import Annotator, Picture
from pipeline.appearance import ColourHistograms, ReidNetwork, build_appearance
from pipeline.errors import UserError
from pipeline.people import People
from pipeline.runtime.device import Compute
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]
COMPUTE = Compute.resolve("cpu", "float32", "auto")


def person(x: float, y: float, size: float = 200) -> np.ndarray:
    """(17, 2) joints of a standing person, a third as wide as high."""
    heights = {"shoulder": 0.2, "elbow": 0.35, "wrist": 0.5, "hip": 0.5, "knee": 0.75, "ankle": 1.0}
    joints = np.zeros((17, 2))
    for i, name in enumerate(SKELETON.joints):
        side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
        height = next((h for part, h in heights.items() if part in name), 0.1)
        joints[i] = [x + side * size * 0.1, y + height * size]
    return joints


def dressed(*looks: tuple[float, tuple[int, int, int], tuple[int, int, int]]) -> tuple[np.ndarray, People]:
    """A picture of people at x with a shirt and trousers of these colours, and the people."""
    image = np.random.default_rng(0).integers(90, 110, (300, 700, 3)).astype(np.uint8)
    joints = np.array([person(x, 40) for x, _, _ in looks])
    for (x, shirt, trousers), _ in zip(looks, joints, strict=True):
        cv2.rectangle(image, (int(x - 30), 70), (int(x + 30), 139), shirt, cv2.FILLED)
        cv2.rectangle(image, (int(x - 30), 140), (int(x + 30), 240), trousers, cv2.FILLED)
    boxes = np.array([[x - 35, 40, x + 35, 245] for x, _, _ in looks])
    count = len(looks)
    return image, People(boxes, np.ones(count), joints, np.ones((count, 17)), np.ones(count))


RED, BLUE, BLACK = (200, 30, 30), (30, 40, 190), (20, 20, 20)


def test_people_in_the_same_clothes_are_alike_and_others_are_not() -> None:
    image, people = dressed((100, RED, BLACK), (300, RED, BLACK), (500, BLUE, BLACK), (620, BLACK, RED))
    vectors = ColourHistograms(SKELETON).describe(image, people)
    assert vectors.shape == (4, 48)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.99
    assert cosines[0, 2] < 0.9
    assert cosines[0, 3] < 0.5, "the same colours in other places"


def test_people_without_a_trunk_in_the_image_have_no_colours() -> None:
    image, people = dressed((100, RED, BLACK), (300, RED, BLACK))
    people.keypoint_scores[0] = 0.1
    people.keypoints[1] += 5000
    assert not ColourHistograms(SKELETON).describe(image, people).any()
    assert ColourHistograms(SKELETON).describe(image, People.empty(17)).shape == (0, 48)
    with pytest.raises(UserError, match=r"--output\.appearance colour needs the joint left_shoulder; hand21 does"):
        build_appearance("colour", SKELETONS["hand21"], COMPUTE)


class MeanColour(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("batch", [None, 3])
def test_a_network_describes_the_boxes(tmp_path: Path, batch: int | None) -> None:
    """Mean colours as a network, whatever its batch; normalised as for ImageNet."""
    path = export_onnx(MeanColour(), tmp_path / "reid.onnx", size=(64, 32), batch=batch)
    network = ReidNetwork(str(path), COMPUTE)
    assert network.size == 3
    image, people = dressed(*[(60 + 100 * i, RED, BLACK) for i in range(6)])
    image[:] = BLUE
    vectors = network.describe(image, people)
    expected = (np.array(BLUE) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(vectors, np.tile(expected / np.linalg.norm(expected), (6, 1)), atol=1e-4)
    outside = People(np.array([[-50, -50, -20, -20], [900, 10, 990, 40]]), *[getattr(people[:2], name) for name in (
        "box_scores", "keypoints", "keypoint_scores", "pose_scores"
    )])  # fmt: skip
    assert np.isfinite(network.describe(image, outside)).all()


def test_files_that_are_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.onnx: no such file"):
        build_appearance(str(tmp_path / "none.onnx"), SKELETON, COMPUTE)
    path = export_onnx(nn.Conv2d(3, 4, 3), tmp_path / "maps.onnx")
    with pytest.raises(UserError, match=r"its output for 8 crops is \[8, 4, .*\]; expected \[8, length of a vector\]"):
        build_appearance(str(path), SKELETON, COMPUTE)


def test_the_annotator_stores_them_beside_each_person() -> None:
    settings = Settings.model_validate({"detector": {"name": "whole_image"}, "output": {"appearance": "colour"}})
    annotator = Annotator.from_settings(settings)
    image, _ = dressed((100, RED, BLACK))
    first, nobody = list(annotator.candidates([Picture(image), Picture(image[:, 350:])])), annotator.empty()
    assert [people.extra["appearance"].shape for people in first] == [(1, 48), (1, 48)]
    assert nobody.extra["appearance"].shape == (0, 48)
