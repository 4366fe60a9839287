import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pose.crop import crop_boxes, cut_crops
from pipeline.skeletons import SKELETONS
from pipeline.training.options import NO_POSE_AUGMENTATION as NONE
from pipeline.training.options import PoseAugmentation
from pipeline.training.pose.augment import AugmentedCrop, view_of

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


def view(seed: int, augmentation: PoseAugmentation, labelled: np.ndarray | None = None) -> AugmentedCrop:
    pixels, joints, box = dotted(seed)
    labelled = np.ones(17, bool) if labelled is None else labelled
    random = np.random.default_rng(seed)
    return view_of(pixels, box, joints, labelled, SIZE, SKELETON.mirror, UPPER, augmentation, random)


def test_without_augmentation_it_is_the_annotators_crop() -> None:
    pixels, joints, box = dotted(1)
    plain = view(1, NONE)
    matrices, _ = crop_boxes(box[None], SIZE)
    np.testing.assert_array_equal(plain.pixels, cut_crops(pixels, matrices, SIZE)[0])
    np.testing.assert_allclose(plain.keypoints, joints @ matrices[0, :, :2].T + matrices[0, :, 2], atol=1e-3)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_joints_stay_on_their_pixels_under_every_transform(seed: int) -> None:
    shaken = view(seed, dataclasses.replace(PoseAugmentation(), colour=0, occlusion=0))
    for (x, y), known in zip(shaken.keypoints, shaken.labelled, strict=True):
        if known and 3 < x < 189 and 3 < y < 253:
            assert shaken.pixels[round(float(y)), round(float(x))].min() > 100


def test_a_flip_mirrors_pixels_and_swaps_sides() -> None:
    plain, flipped = view(3, NONE), view(3, dataclasses.replace(NONE, flip=1.0))
    np.testing.assert_allclose(flipped.keypoints[:, 0], 191 - plain.keypoints[SKELETON.mirror, 0], atol=1e-3)
    np.testing.assert_allclose(flipped.keypoints[:, 1], plain.keypoints[SKELETON.mirror, 1], atol=1e-3)
    np.testing.assert_allclose(flipped.pixels[:, ::-1].astype(int), plain.pixels.astype(int), atol=8)


def test_unlabelled_joints_stay_unlabelled_on_their_side() -> None:
    labelled = np.ones(17, bool)
    labelled[9] = False  # the left wrist
    assert not view(4, NONE, labelled).labelled[9]
    flipped = view(4, dataclasses.replace(NONE, flip=1.0), labelled)
    assert not flipped.labelled[10]
    assert flipped.labelled[9]


def test_joints_outside_the_view_are_unlabelled() -> None:
    pixels, joints, _ = dotted(5)
    box = np.array([0, 0, 60, 60], np.float32)
    far = view_of(pixels, box, joints, np.ones(17, bool), SIZE, SKELETON.mirror, UPPER, NONE, np.random.default_rng(0))
    assert not far.labelled.any()


def test_half_a_body_is_shown_larger_and_only_of_whole_people() -> None:
    half = dataclasses.replace(NONE, half_body=1.0)
    assert not np.allclose(view(6, half).keypoints, view(6, NONE).keypoints)
    few = np.arange(17) < 7
    np.testing.assert_array_equal(view(6, half, few).keypoints, view(6, NONE, few).keypoints)


@pytest.mark.parametrize("name", ["colour", "occlusion"])
def test_colour_and_occlusion_leave_the_joints(name: str) -> None:
    changed, plain = view(7, dataclasses.replace(NONE, **{name: 1.0})), view(7, NONE)
    np.testing.assert_array_equal(changed.keypoints, plain.keypoints)
    assert (changed.pixels != plain.pixels).any()


def test_the_same_seed_gives_the_same_view() -> None:
    a, b, other = view(8, PoseAugmentation()), view(8, PoseAugmentation()), view(9, PoseAugmentation())
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.keypoints, b.keypoints)
    assert not np.array_equal(a.keypoints, other.keypoints)
