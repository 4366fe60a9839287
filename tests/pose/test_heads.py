import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pose.crop import crop_boxes
from pipeline.pose.heads import ArgmaxHead, CombinedHead, Head, IntegralHead, OffsetHead, View
from pipeline.pose.heatmap import decode_argmax, decode_integral
from pipeline.skeletons import SKELETONS

HEADS: list[Head] = [ArgmaxHead(), ArgmaxHead(classic=True), IntegralHead(), CombinedHead(), OffsetHead()]
BOX = np.array([[100.0, 50.0, 196.0, 178.0]], np.float32)  # two pixels per cell at 64 x 48


def bumps(points: np.ndarray, box: np.ndarray, height: int = 64, width: int = 48, sigma: float = 2.0) -> torch.Tensor:
    """(1, K, height, width) Gaussians at (K, 2) image points, as the output of a network for a crop of `box`."""
    cell = (box[2] - box[0]) / width
    centre = (box[:2] + box[2:]) / 2
    px, py = ((points - centre) / cell + np.array([width, height]) / 2).T
    ys, xs = np.mgrid[0:height, 0:width]
    maps = np.exp(-((xs - px[:, None, None]) ** 2 + (ys - py[:, None, None]) ** 2) / (2 * sigma**2))
    return torch.from_numpy(maps[None]).float()


def offset_maps(points: np.ndarray, box: np.ndarray, height: int = 64, width: int = 48) -> torch.Tensor:
    """The same heatmaps, then the offsets from each cell to the point."""
    cell = (box[2] - box[0]) / width
    cells = (points - (box[:2] + box[2:]) / 2) / cell + np.array([width, height]) / 2
    ys, xs = np.mgrid[0:height, 0:width]
    offsets = np.stack([np.stack([x - xs, y - ys]) for x, y in cells]).reshape(1, -1, height, width)
    return torch.cat([bumps(points, box, height, width), torch.from_numpy(offsets).float()], dim=1)


def test_one_view_is_decoded_directly() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 17, 64, 48))).float()
    for head, expected in (
        (ArgmaxHead(), decode_argmax(maps, BOX)),
        (IntegralHead("softmax"), decode_integral(maps, BOX, "softmax")),
    ):
        keypoints, scores = head.decode([View(maps, BOX)])
        np.testing.assert_array_equal(keypoints, expected[0])
        np.testing.assert_array_equal(scores, expected[1])


@pytest.mark.parametrize("joints", [68, 133, 136])
def test_combined_heads_split_the_joints(joints: int) -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (2, joints, 64, 48))).float()
    boxes = np.repeat(BOX, 2, axis=0)
    keypoints, scores = CombinedHead().decode([View(maps, boxes)])
    body = 26 if joints == 68 else joints - 110
    for part, decoded in (
        (slice(0, body), decode_argmax(maps, boxes)),
        (slice(body, None), decode_integral(maps, boxes)),
    ):
        np.testing.assert_allclose(keypoints[:, part], decoded[0][:, part], atol=1e-4)
        np.testing.assert_allclose(scores[:, part], decoded[1][:, part], atol=1e-6)


def test_combined_heads_are_for_skeletons_with_hands() -> None:
    with pytest.raises(ValueError, match=r"^--pose\.decode combined needs 68, 133 or 136 joints; the network has 17$"):
        CombinedHead().channels(17)


POINTS = np.array([[150.3, 100.4], [141.7, 88.9], [120.2, 160.6]])


def test_offsets_have_subcell_precision() -> None:
    keypoints, scores = OffsetHead().decode([View(offset_maps(POINTS, BOX[0]), BOX)])
    np.testing.assert_allclose(keypoints[0], POINTS, atol=1e-3)
    assert scores.min() > 0.9


def test_an_empty_offset_map_gives_the_corner() -> None:
    maps = torch.cat([-torch.ones(1, 1, 64, 48), torch.full((1, 2, 64, 48), 7.0)], dim=1)
    keypoints, _ = OffsetHead().decode([View(maps, BOX)])
    np.testing.assert_allclose(keypoints[0, 0], BOX[0, :2])


def test_flipped_offsets_agree_with_unflipped_ones() -> None:
    """A point at pixel x of the crop is at pixel W - 1 - x of the mirrored crop."""
    matrices, boxes = crop_boxes(np.array([[100, 50, 180, 160]]), (256, 192))
    scale = matrices[0, 0, 0]
    in_crop = POINTS * scale + matrices[0, :, 2]
    mirrored = (np.array([191 - in_crop[:, 0], in_crop[:, 1]]).T - matrices[0, :, 2]) / scale
    mirror = [0, 2, 1]
    head = OffsetHead()
    flipped = head.flip_back(offset_maps(mirrored[mirror], boxes[0]), mirror)
    keypoints, _ = head.decode([View(flipped, boxes)])
    np.testing.assert_allclose(keypoints[0], POINTS, atol=1e-3)
    both, _ = head.decode([View(offset_maps(POINTS, boxes[0]), boxes), View(flipped, boxes)])
    np.testing.assert_allclose(both[0], POINTS, atol=1e-3)


@pytest.mark.parametrize("name", ["coco17", "halpe136", "hand21"])
def test_flipping_twice_restores_the_maps(name: str) -> None:
    skeleton = SKELETONS[name]
    points = np.random.default_rng(1).uniform([110, 60], [186, 168], (len(skeleton), 2))
    maps = bumps(points, BOX[0])
    for head in (ArgmaxHead(), IntegralHead()):
        twice = head.flip_back(head.flip_back(maps, skeleton.mirror), skeleton.mirror)
        torch.testing.assert_close(twice[..., 2:-2], maps[..., 2:-2])


@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.9, 1.0, 1.25, 1.5]),
    size=st.sampled_from([(64, 48), (96, 72), (80, 64)]),
)
@settings(max_examples=40, deadline=None)
def test_views_of_other_scales_and_sizes_agree(seed: int, scale: float, size: tuple[int, int]) -> None:
    points = np.random.default_rng(seed).uniform([112, 66], [184, 162], (4, 2))
    centre, half = (BOX[0, :2] + BOX[0, 2:]) / 2, (BOX[0, 2:] - BOX[0, :2]) / 2
    half_wide = np.array([half[1] * size[1] / size[0], half[1]]) * scale
    wide = np.concatenate([centre - half_wide, centre + half_wide]).astype(np.float32)[None]
    sigma = 2.0 / scale * size[0] / 64  # the same spread in the image
    views = [View(bumps(points, BOX[0]), BOX), View(bumps(points, wide[0], *size, sigma=sigma), wide)]
    keypoints, scores = ArgmaxHead().decode(views)
    np.testing.assert_allclose(keypoints[0], points, atol=1.3)  # cells of 2 pixels, decoded to a quarter
    assert scores.min() > 0.85
    both = [View(offset_maps(points, BOX[0]), BOX), View(offset_maps(points, wide[0], *size), wide)]
    keypoints, _ = OffsetHead().decode(both)
    np.testing.assert_allclose(keypoints[0], points, atol=0.05)
    keypoints, _ = IntegralHead("divide_sum").decode(views)
    np.testing.assert_allclose(keypoints[0], points, atol=1.3)


def test_the_average_has_the_resolution_of_the_finest_network() -> None:
    points = np.array([[150.0, 100.0]])
    coarse, fine = View(bumps(points, BOX[0]) * 0, BOX), View(bumps(points, BOX[0], 128, 96, sigma=4), BOX)
    keypoints, scores = ArgmaxHead().decode([coarse, fine])
    np.testing.assert_allclose(keypoints[0], points, atol=0.51)  # cells of one pixel
    np.testing.assert_allclose(scores, 0.5, atol=0.01)


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_no_people_and_empty_maps(head: Head) -> None:
    joints = 136
    channels = head.channels(joints)
    mirror = SKELETONS["halpe136"].mirror
    for n in (0, 2):
        maps, boxes = torch.zeros(n, channels, 64, 48), np.tile(np.float32([0, 0, 9, 12]), (n, 1))
        other = boxes + np.float32([-1, -1, 1, 1])
        views = [View(maps, boxes), View(head.flip_back(maps, mirror), boxes), View(maps, other)]
        keypoints, scores = head.decode(views)
        assert keypoints.shape == (n, joints, 2)
        assert scores.shape == (n, joints)
        assert np.isfinite(keypoints).all()
        assert np.isfinite(scores).all()


def test_a_cell_averages_the_views_that_cover_it() -> None:
    """A joint that only the wider view covers keeps its position and its score."""
    narrow, wide = np.float32([[80, 0, 128, 64]]), np.float32([[8, 0, 200, 256]])
    points = np.array([[20.0, 100.0]])
    views = [View(bumps(points, wide[0]), wide), View(torch.zeros(1, 1, 64, 48), narrow)]
    keypoints, scores = ArgmaxHead().decode(views)
    np.testing.assert_allclose(keypoints[0], points, atol=2.1)
    assert scores[0, 0] > 0.95
