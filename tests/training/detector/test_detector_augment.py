"""Boxes must lie where the pixels went: pictures with one bright rectangle, found again in the view."""

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
NOBODY = np.zeros((0, 4), np.float32)


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, BoxLabels]:
    pixels = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return pixels, BoxLabels(np.float32([box]), NOBODY)


def bright(view: np.ndarray) -> list[float]:
    ys, xs = np.nonzero(view[..., 0] > 190)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_without_augmentation_it_is_the_letterbox_that_the_detector_sees() -> None:
    pixels, people = picture(300, 200, (50, 60, 150, 160))
    view, seen = single_view(pixels, people, 128, NONE, np.random.default_rng(0))
    out = np.zeros((128, 128, 3), np.uint8)
    place = letterbox(pixels, out)
    expected = people.boxes * place.scale_x
    np.testing.assert_allclose(seen.boxes, expected + [place.left, place.top] * 2, atol=0.6)
    assert np.abs(view.astype(int) - out).mean() < 4


@given(seed=st.integers(0, 10_000), width=st.integers(60, 200), height=st.integers(60, 200))
@settings(max_examples=60, deadline=None)
def test_the_box_goes_with_its_pixels(seed: int, width: int, height: int) -> None:
    pixels, people = picture(width, height, (20, 15, 45, 50))
    view, seen = single_view(pixels, people, 160, EVERYTHING, np.random.default_rng(seed))
    if len(seen.boxes):
        np.testing.assert_allclose(seen.boxes[0], bright(view), atol=1.6)
    assert len(seen.boxes) + len(seen.ignored) <= 1


@given(seed=st.integers(0, 10_000), which=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_in_a_mosaic_too(seed: int, which: int) -> None:
    empty = (np.zeros((120, 90, 3), np.uint8), BoxLabels(NOBODY, NOBODY))
    images = [empty] * 4
    images[which] = picture(140, 120, (40, 30, 100, 90))
    view, seen = mosaic_view(images, 160, EVERYTHING, np.random.default_rng(seed))
    if len(seen.boxes):
        np.testing.assert_allclose(seen.boxes[0], bright(view), atol=1.6)


def test_a_person_of_whom_little_is_left_is_neither_found_nor_background() -> None:
    pixels, people = picture(100, 100, (0, 0, 100, 100))
    zoom = dataclasses.replace(NONE, shift=0.9)
    kinds = set()
    for seed in range(60):
        _, seen = single_view(pixels, people, 64, zoom, np.random.default_rng(seed))
        kinds.add((len(seen.boxes), len(seen.ignored)))
    assert kinds == {(1, 0), (0, 1)}
