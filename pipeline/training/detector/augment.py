"""Augmented views for a detector: one image or a mosaic of four, scaled, shifted, mirrored and recoloured.

Mosaics are from Bochkovskiy et al., YOLOv4, 2020. All geometric changes of an image are one affine transform.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.detectors.letterbox import DARKNET
from pipeline.training.colour import recolour
from pipeline.training.detector.data import BoxLabels
from pipeline.training.options import BoxAugmentation

# With a smaller share of the box inside a view, a person is an ignored region: neither a target nor background.
_MIN_VISIBLE = 0.3
_MOSAIC_SCALE = 0.75  # of an image in a mosaic, times its random scale


def single_view(
    pixels: np.ndarray, people: BoxLabels, side: int, settings: BoxAugmentation, random: np.random.Generator
) -> tuple[np.ndarray, BoxLabels]:
    """One image near the middle of a view.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        people: in pixels of the image.
        side: of the view, pixels.

    Returns:
        (side, side, 3) uint8 RGB, and the people in pixels of the view.
    """
    view = np.full((side, side, 3), DARKNET.pad_value, np.uint8)
    height, width = pixels.shape[:2]
    scale = side / max(height, width) * random.uniform(1 - settings.scale, 1 + settings.scale)
    middle = side / 2 + side * random.uniform(-settings.shift, settings.shift, 2)
    visible = _place(view, (0, 0, side, side), pixels, people, scale, middle, np.array([0.5, 0.5]), settings, random)
    return view, visible


def mosaic_view(
    images: Sequence[tuple[np.ndarray, BoxLabels]], side: int, settings: BoxAugmentation, random: np.random.Generator
) -> tuple[np.ndarray, BoxLabels]:
    """Four images whose corners meet at a random point; arguments and result as of `single_view`."""
    view = np.full((side, side, 3), DARKNET.pad_value, np.uint8)
    middle = side * random.uniform(0.3, 0.7, 2)
    x, y = middle.astype(int)
    areas = ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side))
    corners = ((1, 1), (0, 1), (1, 0), (0, 0))
    visible = []
    for (pixels, people), area, corner in zip(images, areas, corners, strict=True):
        scale = side / max(pixels.shape[:2]) * _MOSAIC_SCALE * random.uniform(1 - settings.scale, 1 + settings.scale)
        visible.append(
            _place(view, area, pixels, people, scale, np.array([x, y]), np.array(corner, float), settings, random)
        )
    return view, BoxLabels(*(np.concatenate(parts) for parts in zip(*visible, strict=True)))


def _place(
    view: np.ndarray,
    area: tuple[int, int, int, int],
    pixels: np.ndarray,
    people: BoxLabels,
    scale: float,
    target: np.ndarray,
    anchor: np.ndarray,
    settings: BoxAugmentation,
    random: np.random.Generator,
) -> BoxLabels:
    """Draw an image into an area of a view, and return its people in pixels of the view.

    Args:
        view: (side, side, 3) uint8 RGB, changed in place.
        area: left, top, right, bottom in the view.
        target: x y in the view where `anchor` comes to lie.
        anchor: x y of a point of the image, as a share of its size.
    """
    left, top, right, bottom = area
    height, width = pixels.shape[:2]
    if random.random() < settings.flip:
        pixels = pixels[:, ::-1]
        people = BoxLabels(*(boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0] for boxes in people))
    offset = target - anchor * scale * np.array([width, height])
    pixels = recolour(np.ascontiguousarray(pixels), settings.colour, random)
    # Boxes count from pixel edges, warpAffine from pixel centres: half a pixel apart.
    shift = offset + (scale - 1) / 2 - [left, top]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    cv2.warpAffine(
        pixels, matrix, (right - left, bottom - top), dst=view[top:bottom, left:right], flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(DARKNET.pad_value,) * 3,
    )  # fmt: skip
    return _visible(BoxLabels(*(boxes * scale + np.tile(offset, 2) for boxes in people)), area)


def _visible(people: BoxLabels, area: tuple[int, int, int, int]) -> BoxLabels:
    """The people clipped to an area; those with too small a share inside become ignored regions."""
    left, top, right, bottom = area
    boxes, ignored = (np.clip(b, [left, top] * 2, [right, bottom] * 2) for b in people)

    def areas(b: np.ndarray) -> np.ndarray:
        return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])

    share = areas(boxes) / np.maximum(areas(people.boxes), 1e-9)
    visible = share >= _MIN_VISIBLE
    cut = boxes[~visible & (share > 0)]
    return BoxLabels(
        boxes[visible].astype(np.float32), np.concatenate([ignored[areas(ignored) > 0], cut]).astype(np.float32)
    )
