import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pose.crop import MEAN_RGB, CropRule, classic_boxes, crop_boxes, cut_crops

SIZES = [(256, 192), (320, 256), (384, 288), (256, 256)]
side = st.floats(2, 4000, width=32)
corner = st.floats(-2000, 5000, width=32)


@given(corner, corner, side, side, st.sampled_from(SIZES))
@settings(max_examples=100, deadline=None)
def test_crop_transforms_are_invertible(x: float, y: float, w: float, h: float, size: tuple[int, int]) -> None:
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


def test_the_crop_rule_on_an_example() -> None:
    # 100 x 100 is wider than 192:256, so the height becomes 133.3; then both grow by a quarter.
    matrices, cropped = crop_boxes(np.array([[100, 200, 200, 300]]), (256, 192))
    np.testing.assert_allclose(cropped[0], [150 - 62.5, 250 - 83.333, 150 + 62.5, 250 + 83.333], atol=1e-2)
    scale = 192 / 125
    np.testing.assert_allclose(matrices[0], [[scale, 0, 96 - 150 * scale], [0, scale, 128 - 250 * scale]], atol=1e-6)


def test_crops_are_black_outside_the_image() -> None:
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


def test_no_boxes_give_no_crops() -> None:
    matrices, cropped = crop_boxes(np.zeros((0, 4)), (256, 192))
    assert matrices.shape == (0, 2, 3)
    assert cropped.shape == (0, 4)
    assert cut_crops(np.zeros((5, 5, 3), np.uint8), matrices, (256, 192)).shape == (0, 256, 192, 3)


@pytest.mark.parametrize("shape", [(40_000, 30), (30, 40_000)])
def test_images_longer_than_the_limit_of_opencv(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 :, shape[1] // 2 :] = 255
    matrices, _ = crop_boxes(np.array([[0, 0, shape[1], shape[0]]]), (256, 192))
    crop = cut_crops(image, matrices, (256, 192))[0]
    assert crop[100:120, 60:90].max() == 0
    assert crop.max() > 100


def test_a_box_without_area_gives_finite_transforms() -> None:
    matrices, cropped = crop_boxes(np.array([[5, 5, 5, 5]]), (256, 192))
    assert np.isfinite(matrices).all()
    assert np.isfinite(cropped).all()


def test_the_classic_rule_on_an_example() -> None:
    # 100 x 200 with 15 % on each side is 130 x 260; the aspect 320:256 needs 39 pixels more on each side.
    matrices, enlarged = classic_boxes(np.array([[100, 100, 200, 300]]), (320, 256), (1000, 1000))
    np.testing.assert_allclose(enlarged[0], [85, 70, 215, 330])
    # The first pixel is (85, 70), the last (214, 329); half of 259 x 0.8 - 129, rounded down, is 39.
    corners = np.array([[85 - 39, 70], [214 + 39, 329]])
    inside = corners @ matrices[0, :, :2].T + matrices[0, :, 2]
    np.testing.assert_allclose(inside, [[0, 0], [255, 319]], atol=1e-9)


@given(st.floats(0, 500), st.floats(0, 300), st.floats(20, 300), st.floats(20, 300))
@settings(max_examples=100, deadline=None)
def test_classic_crops_are_fixed_by_three_pairs_of_points(x: float, y: float, w: float, h: float) -> None:
    """Upper left, lower right, and the lower right plus a quarter turn of the way back (OpenCV solves for the rest)."""
    box = np.array([[x, y, x + w, y + h]])
    (matrix,), (enlarged,) = classic_boxes(box, (320, 256), (480, 640))
    assert (enlarged[[0, 2]] <= 639).all(), "the limit is the last pixel"
    assert (enlarged[[1, 3]] <= 479).all()
    margin = 0.15 * np.array([w, h])
    first = np.floor(np.maximum(box[0, :2] - margin, 0))
    last = np.floor(np.minimum(box[0, 2:] + margin, [639, 479])) - 1
    tall = max(last[1] - first[1], (last[0] - first[0]) * 320 / 256)
    padding = np.floor((np.array([tall * 256 / 320, tall]) - (last - first)) / 2)

    def three(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        back = first - second
        return np.array([first, second, second + np.array([-back[1], back[0]])], np.float32)

    corners = three(first - padding, last + padding)
    expected = cv2.getAffineTransform(corners, three(np.zeros(2), np.array([255.0, 319.0])))
    np.testing.assert_allclose(matrix, expected, atol=2e-3, rtol=1e-3)
    assert matrix[0, 0] == matrix[1, 1]
    assert matrix[0, 1] == -matrix[1, 0]


@given(corner, corner, side, side)
@settings(max_examples=100, deadline=None)
def test_classic_boxes_stay_in_the_image_and_are_never_empty(x: float, y: float, w: float, h: float) -> None:
    matrices, enlarged = classic_boxes(np.array([[x, y, x + w, y + h]]), (320, 256), (480, 640))
    assert np.isfinite(matrices).all()
    assert (enlarged[0] >= 0).all()
    assert enlarged[0, 0] <= 639 - 5
    assert enlarged[0, 2] <= 639 + 1e-3
    assert enlarged[0, 3] <= 479 + 1e-3
    assert (enlarged[0, 2:] - enlarged[0, :2] >= 5 - 1e-3).all()


def test_classic_crops_are_mean_subtracted_and_zero_outside_the_box() -> None:
    rule = CropRule((320, 256), classic=True)
    image = np.full((400, 400, 3), 255, np.uint8)
    crops, enlarged = rule.cut(image, np.array([[150, 100, 200, 300], [0, 0, 2, 2]]))
    assert crops.shape == (2, 320, 256, 3)
    assert crops.dtype == np.float32
    np.testing.assert_allclose(crops[0, 160, 128], 1 - MEAN_RGB, atol=1e-5)
    np.testing.assert_array_equal(crops[0, 160, 5], 0)  # inside the image, outside the box
    np.testing.assert_allclose(enlarged[1], [0, 0, 5, 5])


def test_rules_cut_by_their_scale_and_size() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    box = np.array([[100, 100, 160, 180]])
    usual, wide = CropRule((256, 192)).cut(image, box), CropRule((256, 192), scale=1.5).cut(image, box)
    np.testing.assert_array_equal(usual[0], cut_crops(image, crop_boxes(box, (256, 192))[0], (256, 192)))
    centre = (usual[1][0, :2] + usual[1][0, 2:]) / 2
    np.testing.assert_allclose(wide[1][0, 2:] - centre, 1.5 * (usual[1][0, 2:] - centre), rtol=1e-5)
    assert CropRule((64, 64)).empty(3).shape == (3, 64, 64, 3)
