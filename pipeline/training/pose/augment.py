"""Augmented crops of people: flip, rotation, scale, half body, box jitter, colour and occlusion.

All geometric changes are one affine transform, so pixels are resampled once.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.pose.crop import ENLARGE
from pipeline.training.colour import recolour
from pipeline.training.options import PoseAugmentation


@dataclass(frozen=True)
class AugmentedCrop:
    """A random crop of one person.

    Attributes:
        pixels: (height, width, 3) uint8 RGB.
        keypoints: (K, 2) float32 x y in pixels of the crop.
        labelled: (K,) bool: labelled and inside the crop.
    """

    pixels: np.ndarray
    keypoints: np.ndarray
    labelled: np.ndarray


def augment_crop(
    pixels: np.ndarray,
    box: np.ndarray,
    keypoints: np.ndarray,
    labelled: np.ndarray,
    input_size: tuple[int, int],
    mirror: list[int],
    upper_body: np.ndarray,
    settings: PoseAugmentation,
    random: np.random.Generator,
) -> AugmentedCrop:
    """A random crop of one person.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        box: (4,) x1 y1 x2 y2 in pixels of `pixels`.
        keypoints: (K, 2) x y in pixels of `pixels`.
        labelled: (K,) bool.
        input_size: height and width of the crop, pixels.
        mirror: joint order of a mirrored person, `Skeleton.mirror`.
        upper_body: (K,) bool, the joints of the upper half.
    """
    height, width = input_size
    box = _half_body(box, keypoints, labelled, upper_body, settings, random)
    size = box[2:] - box[:2]
    box = box + np.tile(size, 2) * random.uniform(-settings.jitter, settings.jitter, 4)
    centre, size = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1.0)
    crop_width = (
        ENLARGE * max(size[0], size[1] * width / height) * random.uniform(1 - settings.scale, 1 + settings.scale)
    )
    angle = 0.0
    if random.random() < settings.rotate:
        angle = np.radians(np.clip(random.normal(0, settings.rotation / 2), -settings.rotation, settings.rotation))
    flip = random.random() < settings.flip

    scale = width / crop_width
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        linear[0] = -linear[0]
    # Column x of a crop is column W - 1 - x of the mirrored one.
    target = np.array([width - 1 - width / 2 if flip else width / 2, height / 2])
    matrix = np.concatenate([linear, (target - linear @ centre)[:, None]], axis=1)

    crop = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR)
    points = (keypoints @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if flip:
        points, labelled = points[mirror], labelled[mirror]
    inside = ((points >= 0) & (points < [width, height])).all(axis=1)
    crop = _occlude(recolour(crop, settings.colour, random), settings, random)
    return AugmentedCrop(crop, points, labelled & inside)


def _half_body(
    box: np.ndarray,
    keypoints: np.ndarray,
    labelled: np.ndarray,
    upper_body: np.ndarray,
    settings: PoseAugmentation,
    random: np.random.Generator,
) -> np.ndarray:
    """The box of the upper or the lower joints only, at random and if enough joints are labelled; else the box."""
    if random.random() >= settings.half_body or labelled.sum() < settings.half_body_joints:
        return box
    halves = [labelled & upper_body, labelled & ~upper_body]
    chosen = halves[int(random.random() < 0.3)]
    if chosen.sum() < 3:
        return box
    points = keypoints[chosen]
    first, last = points.min(axis=0), points.max(axis=0)
    margin = 0.2 * max(*(last - first), 1.0)
    return np.concatenate([first - margin, last + margin]).astype(np.float32)


def _occlude(pixels: np.ndarray, settings: PoseAugmentation, random: np.random.Generator) -> np.ndarray:
    if random.random() >= settings.occlusion:
        return pixels
    height, width = pixels.shape[:2]
    h, w = (random.uniform(0.08, 0.35, 2) * (height, width)).astype(int)
    y, x = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
    pixels[y : y + h, x : x + w] = (
        random.integers(0, 256, 3) if random.random() < 0.5 else random.integers(0, 256, (h, w, 3))
    )
    return pixels
