"""Letterboxes and crops on the device of the networks, as torch operations on images of any sizes.

They compute what OpenCV computes on the CPU, see `pipeline.pose.crop` and `pipeline.detectors.letterbox`. Some of its
weights are rounded: a few pixels differ by a grey level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class RaggedImages(NamedTuple):
    """Images of different sizes in one buffer.

    Attributes:
        pixels: (P, 3) uint8 RGB, row after row of image after image.
        starts: (I,) int64, the first pixel of each image.
        heights, widths: (I,) int64.
        sizes: (I, 2) int64, the same heights and widths in memory.
    """

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor
    sizes: np.ndarray

    @classmethod
    def pack(cls, images: Sequence[Tensor]) -> RaggedImages:
        """Images (H, W, 3) uint8 of one device."""
        sizes = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
        counts = sizes.prod(axis=1)
        facts = torch.from_numpy(np.stack([np.cumsum(counts) - counts, *sizes.T]))
        starts, heights, widths = facts.to(images[0].device, non_blocking=True)
        return cls(torch.cat([image.reshape(-1, 3) for image in images]), starts, heights, widths, sizes)


def warp_bilinear(
    images: RaggedImages,
    owners: np.ndarray,
    matrices: np.ndarray,
    size: tuple[int, int],
    bounds: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """Sections of images, each mapped by an affine transform, with bilinear interpolation and black around the images.

    Args:
        owners: (N,) int64, the image of each section.
        matrices: (N, 2, 3), image pixels to pixels of the section.
        size: height and width of a section, pixels.
        bounds: (N, 4) int64 x1 y1 x2 y2, the pixels that are shown, without the last; by default all of an image.

    Returns:
        (N, 3, height, width) float32, 0 to 255, channels last; and (N, 1, height, width), the weight of the shown
        pixels in each, 0 to 1.
    """
    height, width = size
    device = images.pixels.device
    # In double precision: a float32 is 0.001 pixels off at the far end of large images.
    turned = np.linalg.inv(matrices[:, :, :2])
    shifts = -(turned @ matrices[:, :, 2:])
    inverse = torch.from_numpy(np.concatenate([turned, shifts], axis=2)).to(device, non_blocking=True)[..., None, None]
    of_section = torch.from_numpy(owners).to(device, non_blocking=True)
    start, image_height, image_width = (
        facts[of_section][:, None, None] for facts in (images.starts, images.heights, images.widths)
    )
    x1, y1, x2, y2 = (torch.zeros_like(start), torch.zeros_like(start), image_width, image_height)
    if bounds is not None:
        x1, y1, x2, y2 = torch.from_numpy(bounds).to(device, non_blocking=True).T[..., None, None]
    columns = torch.arange(width, dtype=torch.float64, device=device)
    rows = torch.arange(height, dtype=torch.float64, device=device)[:, None]
    x, y = (inverse[:, i, 0] * columns + inverse[:, i, 1] * rows + inverse[:, i, 2] for i in (0, 1))  # (N, H, W)
    left, top = x.floor(), y.floor()
    right_share, lower_share = (x - left).float(), (y - top).float()
    total = torch.zeros(len(owners), height, width, 3, device=device)
    shown = torch.zeros(len(owners), height, width, 1, device=device)
    for down, row_share in ((0, 1 - lower_share), (1, lower_share)):
        for along, column_share in ((0, 1 - right_share), (1, right_share)):
            column, row = left.long() + along, top.long() + down
            inside = (column >= x1) & (column < x2) & (row >= y1) & (row < y2)
            place = torch.where(inside, start + row * image_width + column, 0)
            weight = (row_share * column_share * inside)[..., None]
            total += images.pixels[place] * weight
            shown += weight
    return total.permute(0, 3, 1, 2), shown.permute(0, 3, 1, 2)


def resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """An image scaled as by cv2.resize.

    Args:
        image: (H, W, 3) uint8.
        size: new height and width, pixels.
        mode: bilinear or bicubic.

    Returns:
        (height, width, 3) float32, whole numbers from 0 to 255.
    """
    planes = image.permute(2, 0, 1)[None].float()
    scaled = F.interpolate(planes, size, mode=mode, align_corners=False)[0]
    return scaled.round().clamp(0, 255).permute(1, 2, 0)
