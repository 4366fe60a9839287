import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pose.crop import crop_boxes, cut_crops
from pipeline.skeletons import SKELETONS
from pipeline.training.options import NO_POSE_AUGMENTATION as NONE
from pipeline.training.options import PoseAugmentation
from pipeline.training.pose.augment import AugmentedCrop, augment_crop

SKELETON = SKELETONS["coco17"]
UPPER = np.array([i < 11 for i in range(17)])
SIZE = (256, 192)


def dotted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image with a white dot at each of 17 joints, the joints, and their box."""
    r = np.random.default_rng(seed)
    joints = r.uniform([120, 80], [280, 320], (17, 2)).astype(np.float32)
    pixels = np.zeros((400, 400, 3), np.uint8)
    for x, y in joints:
        pixels[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    return pixels, joints, np.array([110, 70, 290, 330], np.float32)


def crop_of(seed: int, augmentation: PoseAugmentation, labelled: np.ndarray | None = None) -> AugmentedCrop:
    pixels, joints, box = dotted(seed)
    labelled = np.ones(17, bool) if labelled is None else labelled
    random = np.random.default_rng(seed)
    return augment_crop(pixels, box, joints, labelled, SIZE, SKELETON.mirror, UPPER, augmentation, random)


def test_without_augmentation_a_crop_is_that_of_inference() -> None:
    pixels, joints, box = dotted(1)
    plain = crop_of(1, NONE)
    matrices, _ = crop_boxes(box[None], SIZE)
    np.testing.assert_array_equal(plain.pixels, cut_crops(pixels, matrices, SIZE)[0])
    np.testing.assert_allclose(plain.keypoints, joints @ matrices[0, :, :2].T + matrices[0, :, 2], atol=1e-3)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_joints_stay_on_their_pixels_under_every_transform(seed: int) -> None:
    crop = crop_of(seed, dataclasses.replace(PoseAugmentation(), colour=0, occlusion=0))
    for (x, y), known in zip(crop.keypoints, crop.labelled, strict=True):
        if known and 3 < x < 189 and 3 < y < 253:
            assert crop.pixels[round(float(y)), round(float(x))].min() > 100


def test_a_flip_mirrors_pixels_and_swaps_sides() -> None:
    plain, flipped = crop_of(3, NONE), crop_of(3, dataclasses.replace(NONE, flip=1.0))
    np.testing.assert_allclose(flipped.keypoints[:, 0], 191 - plain.keypoints[SKELETON.mirror, 0], atol=1e-3)
    np.testing.assert_allclose(flipped.keypoints[:, 1], plain.keypoints[SKELETON.mirror, 1], atol=1e-3)
    np.testing.assert_allclose(flipped.pixels[:, ::-1].astype(int), plain.pixels.astype(int), atol=8)


def test_unlabelled_joints_stay_unlabelled_when_sides_swap() -> None:
    labelled = np.ones(17, bool)
    labelled[9] = False  # the left wrist
    assert not crop_of(4, NONE, labelled).labelled[9]
    flipped = crop_of(4, dataclasses.replace(NONE, flip=1.0), labelled)
    assert not flipped.labelled[10]
    assert flipped.labelled[9]


def test_joints_outside_the_crop_are_unlabelled() -> None:
    pixels, joints, _ = dotted(5)
    box = np.array([0, 0, 60, 60], np.float32)
    crop = augment_crop(
        pixels, box, joints, np.ones(17, bool), SIZE, SKELETON.mirror, UPPER, NONE, np.random.default_rng(0)
    )
    assert not crop.labelled.any()


def test_half_body_needs_enough_labelled_joints() -> None:
    half = dataclasses.replace(NONE, half_body=1.0)
    assert not np.allclose(crop_of(6, half).keypoints, crop_of(6, NONE).keypoints)
    few = np.arange(17) < 7
    np.testing.assert_array_equal(crop_of(6, half, few).keypoints, crop_of(6, NONE, few).keypoints)


@pytest.mark.parametrize("name", ["colour", "occlusion"])
def test_colour_and_occlusion_do_not_move_joints(name: str) -> None:
    changed, plain = crop_of(7, dataclasses.replace(NONE, **{name: 1.0})), crop_of(7, NONE)
    np.testing.assert_array_equal(changed.keypoints, plain.keypoints)
    assert (changed.pixels != plain.pixels).any()


def test_the_same_seed_gives_the_same_crop() -> None:
    a, b, other = crop_of(8, PoseAugmentation()), crop_of(8, PoseAugmentation()), crop_of(9, PoseAugmentation())
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.keypoints, b.keypoints)
    assert not np.array_equal(a.keypoints, other.keypoints)
