"""Boxes must move with the pixels: images with one bright rectangle, located in the view."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detectors.letterbox import letterbox
from pipeline.training.detector.augment import mosaic_view, single_view
from pipeline.training.detector.data import BoxLabels
from pipeline.training.options import NO_BOX_AUGMENTATION as NONE
from pipeline.training.options import BoxAugmentation

EVERYTHING = BoxAugmentation(flip=0.5, mosaic=1.0, scale=0.5, shift=0.2, colour=0.0)
NO_BOXES = np.zeros((0, 4), np.float32)


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, BoxLabels]:
    pixels = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return pixels, BoxLabels(np.float32([box]), NO_BOXES)


def bright(view: np.ndarray) -> list[float]:
    ys, xs = np.nonzero(view[..., 0] > 190)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_without_augmentation_a_view_is_the_letterbox_of_inference() -> None:
    pixels, people = picture(300, 200, (50, 60, 150, 160))
    view, labels = single_view(pixels, people, 128, NONE, np.random.default_rng(0))
    out = np.zeros((128, 128, 3), np.uint8)
    transform = letterbox(pixels, out)
    expected = people.boxes * transform.scale_x
    np.testing.assert_allclose(labels.boxes, expected + [transform.left, transform.top] * 2, atol=0.6)
    assert np.abs(view.astype(int) - out).mean() < 4


@given(seed=st.integers(0, 10_000), width=st.integers(60, 200), height=st.integers(60, 200))
@settings(max_examples=60, deadline=None)
def test_boxes_move_with_their_pixels(seed: int, width: int, height: int) -> None:
    pixels, people = picture(width, height, (20, 15, 45, 50))
    view, labels = single_view(pixels, people, 160, EVERYTHING, np.random.default_rng(seed))
    if len(labels.boxes):
        np.testing.assert_allclose(labels.boxes[0], bright(view), atol=1.6)
    assert len(labels.boxes) + len(labels.ignored) <= 1


@given(seed=st.integers(0, 10_000), index=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_boxes_move_with_their_pixels_in_mosaics(seed: int, index: int) -> None:
    empty = (np.zeros((120, 90, 3), np.uint8), BoxLabels(NO_BOXES, NO_BOXES))
    images = [empty] * 4
    images[index] = picture(140, 120, (40, 30, 100, 90))
    view, labels = mosaic_view(images, 160, EVERYTHING, np.random.default_rng(seed))
    if len(labels.boxes):
        np.testing.assert_allclose(labels.boxes[0], bright(view), atol=1.6)


def test_a_person_with_a_small_visible_share_becomes_an_ignored_region() -> None:
    pixels, people = picture(100, 100, (0, 0, 100, 100))
    zoom = dataclasses.replace(NONE, shift=0.9)
    kinds = set()
    for seed in range(60):
        _, labels = single_view(pixels, people, 64, zoom, np.random.default_rng(seed))
        kinds.add((len(labels.boxes), len(labels.ignored)))
    assert kinds == {(1, 0), (0, 1)}
