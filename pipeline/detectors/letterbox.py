"""Letterboxes: images of any size, scaled and padded with grey to the size of a network input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.people import Boxes
from pipeline.runtime.device import Compute, Image
from pipeline.warping import resize


class LetterboxStyle(NamedTuple):
    """The letterbox convention of a family of networks.

    Attributes:
        pad_value: grey value of the padding.
        centred: whether the image is centred; else it is at the top left.
        interpolation: an OpenCV constant.
        keeps_aspect: whether the aspect ratio of the image is kept; else it is stretched to the whole input.
    """

    pad_value: int
    centred: bool
    interpolation: int
    keeps_aspect: bool = True


DARKNET = LetterboxStyle(128, True, cv2.INTER_CUBIC)
STRETCHED = LetterboxStyle(128, True, cv2.INTER_LINEAR, keeps_aspect=False)  # Darknet with letter_box=0
YOLOX = LetterboxStyle(114, False, cv2.INTER_LINEAR)
YOLO = LetterboxStyle(114, True, cv2.INTER_LINEAR)
MOVENET = LetterboxStyle(0, True, cv2.INTER_LINEAR)


class Letterbox(NamedTuple):
    """The placement of an image of `width` x `height`: network pixel = image pixel * scale + offset, per axis."""

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_image(self, boxes: Boxes) -> Boxes:
        """Convert boxes, and joints if they have any, from network pixels to image pixels; boxes are clamped to it."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        poses = boxes.poses
        if poses is not None:
            poses = np.concatenate([(poses[..., :2] - offset[:2]) / scale[:2], poses[..., 2:]], axis=2)
        return Boxes(np.clip((boxes.xyxy - offset) / scale, 0, limit), boxes.scores, poses)


def letterbox(image: Image, out: Image, style: LetterboxStyle = DARKNET) -> Letterbox:
    """Scale and pad an image to a network input.

    Args:
        image: (H, W, 3) uint8 RGB.
        out: (height, width, 3), overwritten: uint8 for an array, float32 for a tensor, 0 to 255.
    """
    height, width = image.shape[:2]
    new_height, new_width = out.shape[:2]
    if style.keeps_aspect:
        scale = min(out.shape[1] / width, out.shape[0] / height)
        new_width, new_height = max(1, int(width * scale)), max(1, int(height * scale))
    left, top = (out.shape[1] - new_width) // 2, (out.shape[0] - new_height) // 2
    if not style.centred:
        left = top = 0
    scaled: Any
    if isinstance(image, Tensor):
        mode = "bicubic" if style.interpolation == cv2.INTER_CUBIC else "bilinear"
        scaled = resize(image, (new_height, new_width), mode)
    else:
        scaled = cv2.resize(image, (new_width, new_height), interpolation=style.interpolation)
    out[:] = style.pad_value
    out[top : top + new_height, left : left + new_width] = scaled
    return Letterbox(width, height, new_width / width, new_height / height, left, top)


class LetterboxBatch:
    """The input of a network, for images that are letterboxed by OpenCV or on the device.

    It always has its full shape, so that results do not depend on which images share it; rows beyond the filled ones
    hold old images.
    """

    def __init__(self, count: int, size: tuple[int, int], style: LetterboxStyle, compute: Compute) -> None:
        self._style = style
        self._compute = compute
        shape = (count, *size, 3)
        self._inputs: Image
        if compute.warps:
            self._inputs = torch.full(shape, float(style.pad_value), device=compute.device)
        else:
            self._inputs = np.full(shape, style.pad_value, np.uint8)

    def fill(self, images: Sequence[Image]) -> tuple[list[Letterbox], Tensor]:
        """The placement of each image, and (count, 3, height, width) float32 RGB, 0 to 255, on the device."""
        uploaded = [self._compute.upload(image) for image in images]
        self._compute.await_uploads()
        letterboxes = [letterbox(image, out, self._style) for image, out in zip(uploaded, self._inputs, strict=False)]
        pixels = torch.as_tensor(self._inputs).to(self._compute.device, non_blocking=True)
        return letterboxes, pixels.permute(0, 3, 1, 2).to(torch.float32)
