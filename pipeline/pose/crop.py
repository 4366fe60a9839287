"""Crops of people: one affine transform per box, by the same rule for all input sizes.

Frames: image pixels are those of the upright original; crop pixels are x' = W/2 + (x - cx) s, y' = H/2 + (y - cy) s
with one scale s and no half-pixel shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.device import Compute, Image
from pipeline.warping import RaggedImages, warp_bilinear

Crops = np.ndarray | Tensor  # as `CropRule.cut` or `CropRule.warp` returns them

ENLARGE = 1.25
# The BGR mean of ImageNet, on RGB channels: the published networks were trained with it.
MEAN_RGB = np.array([0.406, 0.457, 0.480], np.float32)
_OPENCV_LONGEST_SIDE = 32_766  # the limit of cv2.warpAffine
_IMAGENET = (np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32))
_CLASSIC_MARGIN = 0.15
_CLASSIC_LEAST_PX = 5.0


def crop_boxes(
    boxes: np.ndarray, input_size: tuple[int, int], enlarge: float = ENLARGE
) -> tuple[np.ndarray, np.ndarray]:
    """The transforms from an image to the crops of people.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 in image pixels.
        input_size: height and width of the crop, pixels.
        enlarge: size of the crop relative to the box.

    Returns:
        matrices (N, 2, 3) float64 that map image pixels to crop pixels, and the boxes (N, 4) float32 that the crops
        cover, x1 y1 x2 y2 in image pixels.

    >>> matrices, covered = crop_boxes(np.array([[100, 200, 200, 300]]), (256, 192))
    >>> covered.round().tolist()
    [[88.0, 167.0, 212.0, 333.0]]
    """
    height, width = input_size
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    crop_width = enlarge * np.maximum(size[:, 0], size[:, 1] * width / height)
    crop_height = crop_width * height / width
    scale = width / crop_width

    matrices = np.zeros((len(boxes), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, 0, 2] = width / 2 - centre[:, 0] * scale
    matrices[:, 1, 2] = height / 2 - centre[:, 1] * scale
    half = np.stack([crop_width, crop_height], axis=1) / 2
    return matrices, np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def cut_crops(image: np.ndarray, matrices: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Cut people out of one image, with bilinear interpolation, black outside the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        matrices: (N, 2, 3), image pixels to crop pixels.
        input_size: height and width of a crop, pixels.

    Returns:
        (N, height, width, 3) uint8 RGB.
    """
    height, width = input_size
    image, matrices = _within_opencv(image, matrices)
    crops = np.empty((len(matrices), height, width, 3), np.uint8)
    for crop, matrix in zip(crops, matrices, strict=True):
        cv2.warpAffine(image, matrix, (width, height), dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def _within_opencv(image: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image, reduced if a side is too long for OpenCV, and the matrices that belong to it."""
    shrink = -(-max(image.shape[:2]) // _OPENCV_LONGEST_SIDE)
    if shrink <= 1:
        return image, matrices
    height, width = (max(1, side // shrink) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small, matrices * np.array([image.shape[1] / width, image.shape[0] / height, 1.0])


def classic_boxes(
    boxes: np.ndarray, input_size: tuple[int, int], image_size: tuple[int, int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The transforms of the first PyTorch release (2018): boxes are enlarged by 15 % on each side, within the image.

    The enlarged box is padded with black on both sides, by whole pixels, to about the aspect ratio of the crop. Two of
    its corner pixels, upper left and lower right, map to those of the crop, by a similarity: where the padding by whole
    pixels leaves another aspect ratio, the crop is very slightly rotated.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 in image pixels.
        input_size: height and width of the crop, pixels.
        image_size: height and width of the image, pixels; or (N, 2), of the image of each box.

    Returns:
        matrices (N, 2, 3) float64 that map image pixels to crop pixels, and the enlarged boxes (N, 4) float32, without
        padding and not rounded, at least 5 pixels wide and high.
    """
    height, width = input_size
    limit = np.asarray(image_size, np.float64)[..., ::-1] - 1
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    margin = _CLASSIC_MARGIN * (boxes[:, 2:] - boxes[:, :2])
    first = np.clip(boxes[:, :2] - margin, 0, np.maximum(limit - _CLASSIC_LEAST_PX, 0))
    last = np.maximum(np.minimum(boxes[:, 2:] + margin, limit), first + _CLASSIC_LEAST_PX)

    corner, opposite = np.floor(first), np.floor(last) - 1
    size = np.maximum(opposite - corner, 1)
    tall = np.maximum(size[:, 1], size[:, 0] * height / width)
    added = np.floor((np.stack([tall * width / height, tall], axis=1) - size) / 2)
    # A similarity is a multiplication of complex numbers x + iy: by the diagonal of the crop over that of the box.
    diagonal = (size + 2 * added) @ [1, 1j]
    turn = complex(width - 1, height - 1) / diagonal
    shift = -turn * ((corner - added) @ [1, 1j])

    matrices = np.stack(
        [
            np.stack([turn.real, -turn.imag, shift.real], axis=1),
            np.stack([turn.imag, turn.real, shift.imag], axis=1),
        ],
        axis=1,
    )
    return matrices, np.concatenate([first, last], axis=1).astype(np.float32)


def subtract_mean(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in 0..1, as `Compute.to_input` makes it, minus `MEAN_RGB`: the input of pose networks."""
    return pixels - _planes(MEAN_RGB, pixels)


def normalise_imagenet(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in 0..1, by the mean and the standard deviation of ImageNet."""
    mean, deviation = (_planes(values, pixels) for values in _IMAGENET)
    return (pixels - mean) / deviation


def _planes(values: np.ndarray, pixels: Tensor) -> Tensor:
    """A value for each channel, (1, 3, 1, 1) beside the pixels. A blocking copy would wait for all queued work."""
    return torch.from_numpy(values).view(1, 3, 1, 1).to(pixels.device, non_blocking=True)


@dataclass(frozen=True)
class CropRule:
    """The rule by which a network's crops are cut.

    Attributes:
        input_size: height and width of the crop, pixels.
        scale: size of the image section relative to the usual one.
        classic: use the rule of the first PyTorch release; its crops are float32 with the mean already subtracted.
    """

    input_size: tuple[int, int]
    scale: float = 1.0
    classic: bool = False

    def empty(self, count: int) -> np.ndarray:
        """(count, height, width, 3) zeros, with the type of this rule's crops."""
        return np.zeros((count, *self.input_size, 3), np.float32 if self.classic else np.uint8)

    def cut(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut people out of one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) x1 y1 x2 y2 in image pixels.

        Returns:
            crops (N, height, width, 3), uint8 RGB or, if `classic`, float32; and the boxes (N, 4) for decoding, x1 y1
            x2 y2 in image pixels.
        """
        if not self.classic:
            matrices, cropped_boxes = crop_boxes(boxes, self.input_size, ENLARGE * self.scale)
            return cut_crops(image, matrices, self.input_size), cropped_boxes
        matrices, enlarged = classic_boxes(boxes, self.input_size, image.shape[:2])
        crops = self.empty(len(matrices))
        for crop, matrix, box in zip(crops, matrices, enlarged, strict=True):
            (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.floor(box[2:]).astype(int)
            inside = image[y1:y2, x1:x2].astype(np.float32)
            inside /= 255
            inside -= MEAN_RGB  # outside the box the crop is 0, which is the mean
            moved = matrix.copy()
            moved[:, 2] += matrix[:, :2] @ (x1, y1)
            inside, moved = _within_opencv(inside, moved)
            cv2.warpAffine(inside, moved, self.input_size[::-1], dst=crop, flags=cv2.INTER_LINEAR)
        return crops, enlarged

    def warp(self, images: RaggedImages, owners: np.ndarray, boxes: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """`cut` on the device of the images, for people of several images at once.

        Args:
            owners: (N,) int64, the image of each person.
            boxes: (N, 4) x1 y1 x2 y2 in image pixels.

        Returns:
            crops (N, 3, height, width) float32, RGB in 0..1, or, if `classic`, with the mean already subtracted; and
            the boxes (N, 4) for decoding.
        """
        if not self.classic:
            matrices, covered = crop_boxes(boxes, self.input_size, ENLARGE * self.scale)
            return warp_bilinear(images, owners, matrices, self.input_size)[0].round() / 255, covered
        matrices, enlarged = classic_boxes(boxes, self.input_size, images.sizes[owners])
        bounds = np.floor(enlarged).astype(np.int64)
        pixels, shown = warp_bilinear(images, owners, matrices, self.input_size, bounds)
        return pixels / 255 - shown * _planes(MEAN_RGB, pixels), enlarged


class CropBatch:
    """The crops of a batch of people of many images, cut by OpenCV or on the device.

    It always has its full shape, so that results do not depend on which people share it; rows beyond the filled ones
    hold other crops.
    """

    def __init__(self, rules: Sequence[CropRule], count: int, compute: Compute) -> None:
        self._rules = rules
        self._count = count
        self._xyxy = np.zeros((count, 4), np.float32)
        self._filled = 0
        self._compute = compute
        self._images: list[Tensor] = []
        self._owners = np.zeros(count, np.int64)
        self._crops = [] if compute.warps else [rule.empty(count) for rule in rules]
        self._boxes = [np.zeros((count, 4), np.float32) for _ in rules]

    @property
    def room(self) -> int:
        """The number of people who may be added."""
        return self._count - self._filled

    def add(self, image: Image, boxes: np.ndarray) -> None:
        """Add people of one image; (N, 4) x1 y1 x2 y2 in image pixels."""
        image = self._compute.upload(image)
        rows = slice(self._filled, self._filled + len(boxes))
        if isinstance(image, Tensor):
            self._owners[rows] = len(self._images)
            self._images.append(image)
            self._xyxy[rows] = boxes
        else:
            for rule, crops, covered in zip(self._rules, self._crops, self._boxes, strict=True):
                crops[rows], covered[rows] = rule.cut(image, boxes)
        self._filled += len(boxes)

    def take(self) -> tuple[list[Crops], list[np.ndarray]]:
        """For each rule the crops of the whole batch, and the boxes (count, 4) for decoding; empties the batch."""
        filled, self._filled = self._filled, 0
        if not self._compute.warps:
            return list(self._crops), self._boxes
        self._compute.await_uploads()
        self._owners[filled:] = 0
        images, self._images = RaggedImages.pack(self._images), []
        warped = [rule.warp(images, self._owners, self._xyxy) for rule in self._rules]
        return [crops for crops, _ in warped], [covered for _, covered in warped]
