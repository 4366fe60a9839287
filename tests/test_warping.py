"""Letterboxes and crops by torch are those of OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import gradient
from support.paths import DEMO

from pipeline.annotator import Annotator
from pipeline.detectors.darknet_detector import DarknetDetector
from pipeline.detectors.letterbox import DARKNET, MOVENET, STRETCHED, YOLO, YOLOX, LetterboxStyle, letterbox
from pipeline.images import decode_image
from pipeline.people import Boxes
from pipeline.pose.crop import CropBatch, CropRule
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings, Settings

OPENCV = Compute.resolve("cpu", "float32", pixels="opencv")
TORCH = Compute.resolve("cpu", "float32", pixels="torch")
PHOTOS = [decode_image((DEMO / "photos" / name).read_bytes()).pixels for name in ("group.jpg", "sideways.jpg")]


def crops(compute: Compute, rules: list[CropRule], people: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """For each rule the crops (N, 3, H, W) of people of several images, RGB in 0..1 or less the mean, and boxes."""
    batch = CropBatch(rules, sum(len(boxes) for _, boxes in people) + 1, compute)
    for image, boxes in people:
        batch.add(compute.upload(image), boxes)
    cut, covered = batch.take()
    count = sum(len(boxes) for _, boxes in people)
    found = []
    for one in cut:
        if isinstance(one, np.ndarray):
            scale = 255 if one.dtype == np.uint8 else 1
            found.append(one.transpose(0, 3, 1, 2)[:count].astype(np.float32) / scale)
        else:
            found.append(one[:count].numpy())
    return [*found, *(boxes[:count] for boxes in covered)]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_crops_are_those_of_opencv(seed: int) -> None:
    """Of people of two images at once, also where their boxes are partly or wholly outside."""
    r = np.random.default_rng(seed)
    rules = [CropRule((64, 48)), CropRule((32, 32), scale=1.5), CropRule((64, 48), classic=True)]
    people = []
    for image in PHOTOS:
        height, width = image.shape[:2]
        corners = r.uniform([-100, -100], [width, height], (3, 2))
        people.append(
            (image, np.concatenate([corners, corners + r.uniform(1, 700, (3, 2))], axis=1).astype(np.float32))
        )
    for expected, found in zip(crops(OPENCV, rules, people), crops(TORCH, rules, people), strict=True):
        assert np.abs(found - expected).max() <= 1.01 / 255
        assert (np.abs(found - expected) > 1e-5).mean() < 0.005


def test_crops_do_not_depend_on_the_others_of_their_batch() -> None:
    boxes = np.array([[300, 100, 420, 400], [500, 50, 640, 500]], np.float32)
    rules = [CropRule((64, 48))]
    together, _ = crops(TORCH, rules, [(PHOTOS[1], boxes[:1]), (PHOTOS[0], boxes)])
    for i in range(2):
        alone, _ = crops(TORCH, rules, [(PHOTOS[0], boxes[i : i + 1])])
        np.testing.assert_array_equal(alone[0], together[i + 1])


@pytest.mark.parametrize("style", [DARKNET, STRETCHED, YOLOX, YOLO, MOVENET])
@pytest.mark.parametrize("size", [(608, 608), (160, 96), (1024, 1024)])
def test_letterboxes_are_those_of_opencv(style: LetterboxStyle, size: tuple[int, int]) -> None:
    for image in (*PHOTOS, gradient(1, 700), gradient(37, 5)):
        expected, found = np.zeros((*size, 3), np.uint8), torch.full((*size, 3), -1.0)
        assert letterbox(torch.from_numpy(image), found, style) == letterbox(image, expected, style)
        difference = np.abs(found.numpy() - expected)
        assert difference.max() <= 1
        assert difference.mean() < (0.05 if style is DARKNET else 0.15)  # OpenCV rounds the weights of bilinear ones


def test_detectors_and_crops_take_images_in_memory() -> None:
    """As validation in training does, also where images are scaled on the device."""
    boxes = [
        DarknetDetector.from_settings(DetectorSettings(), compute).detect(PHOTOS[:1])[0] for compute in (OPENCV, TORCH)
    ]
    np.testing.assert_allclose(boxes[1].xyxy, boxes[0].xyxy, atol=0.5)
    batch = CropBatch([CropRule((64, 48))], 1, TORCH)
    batch.add(PHOTOS[0], np.array([[30, 60, 340, 590]], np.float32))
    assert batch.take()[0][0].shape == (1, 3, 64, 48)


def test_joints_and_boxes_are_those_of_opencv() -> None:
    """On photographs, with the shipped networks: within 0.05 pixels."""
    group = decode_image((DEMO / "photos" / "group.jpg").read_bytes()).pixels
    boxes = Boxes(np.array([[30, 60, 340, 590], [900, 40, 1200, 590]]), np.ones(2))
    for changed, given_boxes in (
        ({"detector": {"name": "given"}, "suppression": {"kind": "none"}}, [boxes]),
        ({}, None),
    ):
        found = [
            Annotator.from_settings(
                Settings.model_validate(
                    {"compute": {"device": "cpu", "precision": "float32", "runtime": "torch", "pixels": pixels}}
                    | changed
                )
            ).annotate([group], given_boxes)[0]
            for pixels in ("opencv", "torch")
        ]
        assert len(found[0]) == len(found[1]) > 1
        clear = found[0].keypoint_scores > 0.3
        if given_boxes:
            assert np.abs(found[0].keypoints - found[1].keypoints)[clear].max() < 0.05
        np.testing.assert_allclose(found[0].boxes, found[1].boxes, atol=0.5)
        np.testing.assert_allclose(found[0].keypoint_scores, found[1].keypoint_scores, atol=0.02)
