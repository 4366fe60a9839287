import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pose.crop import crop_boxes, cut_crops

SIZES = [(256, 192), (320, 256), (384, 288), (256, 256)]
side = st.floats(2, 4000, width=32)
corner = st.floats(-2000, 5000, width=32)


@given(corner, corner, side, side, st.sampled_from(SIZES))
@settings(max_examples=100, deadline=None)
def test_crop_and_its_inverse_round_trip(x: float, y: float, w: float, h: float, size: tuple[int, int]) -> None:
    matrices, cropped = crop_boxes(np.array([[x, y, x + w, y + h]]), size)
    points = np.array([[x, y], [x + w, y + h], [x + w / 3, y + h / 7]])
    inside = points @ matrices[0, :, :2].T + matrices[0, :, 2]
    inverse = cv2.invertAffineTransform(matrices[0])
    back = inside @ inverse[:, :2].T + inverse[:, 2]
    np.testing.assert_allclose(back, points, atol=1e-3)
    height, width = size
    assert (inside >= -1e-3).all()
    assert (inside <= np.array([width, height]) + 1e-3).all()
    corners = np.array([[0, 0], [width, height]]) @ inverse[:, :2].T + inverse[:, 2]
    np.testing.assert_allclose(cropped[0], corners.ravel(), rtol=1e-5, atol=1e-2)


def test_the_rule_by_hand() -> None:
    # 100 x 100 is wider than 192:256, so the height grows to 133.3; both by a quarter.
    matrices, cropped = crop_boxes(np.array([[100, 200, 200, 300]]), (256, 192))
    np.testing.assert_allclose(cropped[0], [150 - 62.5, 250 - 83.333, 150 + 62.5, 250 + 83.333], atol=1e-2)
    scale = 192 / 125
    np.testing.assert_allclose(matrices[0], [[scale, 0, 96 - 150 * scale], [0, scale, 128 - 250 * scale]], atol=1e-6)


def test_pixels_are_bilinear_and_black_outside() -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    matrices, _ = crop_boxes(np.array([[60, 20, 120, 100], [0, 0, 50, 50]]), (256, 192))
    crops = cut_crops(image, matrices, (256, 192))
    assert crops.shape == (2, 256, 192, 3)
    assert crops[0, :, -1].max() == 0
    assert crops[0, 128, 0].min() == 255
    # Where one image pixel is one crop pixel, the crop is a window of the image.
    image = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    width = 192 / 1.25
    box = np.array([[150 - width / 2, 200 - width / 1.5, 150 + width / 2, 200 + width / 1.5]])
    crop = cut_crops(image, crop_boxes(box, (256, 192))[0], (256, 192))[0]
    np.testing.assert_array_equal(crop, image[72:328, 54:246])


def test_nobody_gives_no_crops() -> None:
    matrices, cropped = crop_boxes(np.zeros((0, 4)), (256, 192))
    assert matrices.shape == (0, 2, 3)
    assert cropped.shape == (0, 4)
    assert cut_crops(np.zeros((5, 5, 3), np.uint8), matrices, (256, 192)).shape == (0, 256, 192, 3)


@pytest.mark.parametrize("shape", [(40_000, 30), (30, 40_000)])
def test_images_longer_than_opencv_takes(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 :, shape[1] // 2 :] = 255
    matrices, _ = crop_boxes(np.array([[0, 0, shape[1], shape[0]]]), (256, 192))
    crop = cut_crops(image, matrices, (256, 192))[0]
    assert crop[100:120, 60:90].max() == 0
    assert crop.max() > 100


def test_a_box_without_area_is_harmless() -> None:
    matrices, cropped = crop_boxes(np.array([[5, 5, 5, 5]]), (256, 192))
    assert np.isfinite(matrices).all()
    assert np.isfinite(cropped).all()
