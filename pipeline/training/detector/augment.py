"""Random views for a detector: an image, or four in one, scaled, moved, mirrored and recoloured.

Mosaics are Bochkovskiy et al., YOLOv4, 2020. All that moves pixels of an image is one affine transform.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.detectors.letterbox import DARKNET
from pipeline.training.colour import recolour
from pipeline.training.detector.data import BoxLabels
from pipeline.training.options import BoxAugmentation

# A person of whom less is left in a view is neither a person to find nor background.
_LEAST_SHOWN = 0.3
_MOSAIC_SCALE = 0.75  # of an image in a mosaic, before its random one


def single_view(
    pixels: np.ndarray, people: BoxLabels, side: int, settings: BoxAugmentation, random: np.random.Generator
) -> tuple[np.ndarray, BoxLabels]:
    """One image in the middle of a view, give or take.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        people: in its pixels.
        side: of the view.

    Returns:
        (side, side, 3) uint8 RGB, and the people in pixels of it.
    """
    view = np.full((side, side, 3), DARKNET.pad_value, np.uint8)
    height, width = pixels.shape[:2]
    scale = side / max(height, width) * random.uniform(1 - settings.scale, 1 + settings.scale)
    middle = side / 2 + side * random.uniform(-settings.shift, settings.shift, 2)
    shown = _place(view, (0, 0, side, side), pixels, people, scale, middle, np.array([0.5, 0.5]), settings, random)
    return view, shown


def mosaic_view(
    images: Sequence[tuple[np.ndarray, BoxLabels]], side: int, settings: BoxAugmentation, random: np.random.Generator
) -> tuple[np.ndarray, BoxLabels]:
    """Four images around a random point, each with its corner there; arguments and result as of `single_view`."""
    view = np.full((side, side, 3), DARKNET.pad_value, np.uint8)
    middle = side * random.uniform(0.3, 0.7, 2)
    x, y = middle.astype(int)
    areas = ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side))
    corners = ((1, 1), (0, 1), (1, 0), (0, 0))
    found = []
    for (pixels, people), area, corner in zip(images, areas, corners, strict=True):
        scale = side / max(pixels.shape[:2]) * _MOSAIC_SCALE * random.uniform(1 - settings.scale, 1 + settings.scale)
        found.append(
            _place(view, area, pixels, people, scale, np.array([x, y]), np.array(corner, float), settings, random)
        )
    return view, BoxLabels(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


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
    """Draw an image into an area of a view, its point `anchor` (of its size) at `target`; its people there."""
    left, top, right, bottom = area
    height, width = pixels.shape[:2]
    if random.random() < settings.flip:
        pixels = pixels[:, ::-1]
        people = BoxLabels(*(boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0] for boxes in people))
    offset = target - anchor * scale * np.array([width, height])
    pixels = recolour(np.ascontiguousarray(pixels), settings.colour, random)
    # Pixel centres: the first pixel covers 0..1 in box coordinates, so its centre is at a half.
    shift = offset + (scale - 1) / 2 - [left, top]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    cv2.warpAffine(
        pixels, matrix, (right - left, bottom - top), dst=view[top:bottom, left:right], flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(DARKNET.pad_value,) * 3,
    )  # fmt: skip
    return _seen(BoxLabels(*(boxes * scale + np.tile(offset, 2) for boxes in people)), area)


def _seen(people: BoxLabels, area: tuple[int, int, int, int]) -> BoxLabels:
    """What of these people lies in an area; those of whom too little does are ignored regions."""
    left, top, right, bottom = area
    boxes, ignored = (np.clip(b, [left, top] * 2, [right, bottom] * 2) for b in people)

    def areas(b: np.ndarray) -> np.ndarray:
        return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])

    share = areas(boxes) / np.maximum(areas(people.boxes), 1e-9)
    kept = share >= _LEAST_SHOWN
    cut = boxes[~kept & (share > 0)]
    return BoxLabels(
        boxes[kept].astype(np.float32), np.concatenate([ignored[areas(ignored) > 0], cut]).astype(np.float32)
    )
