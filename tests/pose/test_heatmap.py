import numpy as np
import pytest
import torch
from conftest import SHARED, needs_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pose.heatmap import decode_argmax, decode_integral, flip_back
from pipeline.skeletons import SKELETONS

BOX = np.array([[10.0, 20.0, 10 + 48 * 4, 20 + 64 * 4]])


def bump(x: float, y: float, height: int = 64, width: int = 48, sigma: float = 2.0) -> np.ndarray:
    ys, xs = np.mgrid[0:height, 0:width]
    return np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2))[None, None].astype(np.float32)


@needs_reference
def test_reference_examples() -> None:
    z = np.load(SHARED / "reference" / "decode_examples.npz")
    maps, boxes = z["smooth17.heatmaps_f16"].astype(np.float32), z["smooth17.bbox"]
    keypoints, scores = decode_argmax(maps, boxes)
    np.testing.assert_allclose(keypoints, z["smooth17.simple"], atol=2e-4)
    np.testing.assert_array_equal(scores, z["smooth17.simple_max"][..., 0])
    np.testing.assert_allclose(
        decode_integral(maps, boxes, "softmax")[0], z["smooth17.regress_softmax.coords"], atol=2e-4
    )
    keypoints, scores = decode_integral(maps, boxes, "sigmoid")
    np.testing.assert_allclose(keypoints, z["smooth17.regress_sigmoid.coords"], atol=2e-4)
    np.testing.assert_allclose(scores, z["smooth17.regress_sigmoid.scores"][..., 0], atol=1e-6)


def argmax_by_hand(heatmap: np.ndarray, box: np.ndarray) -> tuple[float, float, float]:
    """One joint, the rule word for word."""
    height, width = heatmap.shape
    py, px = divmod(int(heatmap.argmax()), width)
    score = heatmap.max()
    if score <= 0:
        px = py = 0
    x, y = float(px), float(py)
    if 1 < px < width - 1 and 1 < py < height - 1:
        x += 0.25 * np.sign(heatmap[py, px + 1] - heatmap[py, px - 1])
        y += 0.25 * np.sign(heatmap[py + 1, px] - heatmap[py - 1, px])
    scale = (box[2] - box[0]) / width
    centre = (box[:2] + box[2:]) / 2
    return centre[0] + (x - width / 2) * scale, centre[1] + (y - height / 2) * scale, score


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_argmax_equals_the_rule_word_for_word(seed: int, negative: bool) -> None:
    r = np.random.default_rng(seed)
    maps = r.normal(-9 if negative else 0, 1, (2, 3, 8, 6)).astype(np.float32)
    maps = np.round(maps, 1)  # ties
    boxes = np.sort(r.random((2, 4)).astype(np.float32) * 300, axis=1)[:, [0, 1, 2, 3]]
    keypoints, scores = decode_argmax(maps, boxes)
    for n in range(2):
        for k in range(3):
            x, y, score = argmax_by_hand(maps[n, k], boxes[n].astype(float))
            np.testing.assert_allclose([*keypoints[n, k], scores[n, k]], [x, y, score], atol=1e-3)


@given(st.integers(8, 30), st.integers(8, 40), st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=50, deadline=None)
def test_a_shifted_heatmap_shifts(x: int, y: int, dx: int, dy: int) -> None:
    for decode in (decode_argmax, lambda h, b: decode_integral(h**2, b, "divide_sum")):
        before, _ = decode(bump(x + 0.3, y + 0.4, sigma=1.0), BOX)
        after, _ = decode(bump(x + 0.3 + dx, y + 0.4 + dy, sigma=1.0), BOX)
        np.testing.assert_allclose(after - before, np.array([[[dx, dy]]]) * 4.0, atol=0.02)


def test_no_positive_value_gives_the_corner_cell() -> None:
    keypoints, scores = decode_argmax(-np.ones((1, 1, 64, 48), np.float32), BOX)
    np.testing.assert_allclose(keypoints[0, 0], BOX[0, :2])
    assert scores[0, 0] == -1


def test_norms_of_integral() -> None:
    keypoints, scores = decode_integral(bump(20, 30) * 50, BOX, "softmax")
    np.testing.assert_allclose(keypoints[0, 0], [10 + 20 * 4, 20 + 30 * 4], atol=0.1)
    assert scores[0, 0] == 1
    _, scores = decode_integral(bump(20, 30), BOX, "sigmoid")
    np.testing.assert_allclose(scores[0, 0], 1 / (1 + np.exp(-1)), atol=1e-6)
    with pytest.raises(ValueError, match="norm is 'l2'"):
        decode_integral(bump(20, 30), BOX, "l2")  # type: ignore[arg-type]


@pytest.mark.parametrize("fill", [0.0, 1e30, -1e30, 1e-30])
def test_never_nan(fill: float) -> None:
    maps = np.full((1, 2, 64, 48), fill, np.float32)
    for keypoints, scores in (
        decode_argmax(maps, BOX),
        *(decode_integral(maps, BOX, norm) for norm in ("softmax", "sigmoid", "divide_sum")),  # type: ignore[arg-type]
    ):
        assert np.isfinite(keypoints).all()
        assert np.isfinite(scores).all()


def test_nobody() -> None:
    for keypoints, scores in (
        decode_argmax(np.zeros((0, 17, 64, 48), np.float32), np.zeros((0, 4))),
        decode_integral(torch.zeros(0, 17, 64, 48), np.zeros((0, 4))),
    ):
        assert keypoints.shape == (0, 17, 2)
        assert scores.shape == (0, 17)


def test_flip_back_mirrors_swaps_and_shifts() -> None:
    mirror = SKELETONS["coco17"].mirror
    maps = torch.zeros(1, 17, 64, 48)
    maps[0, 5, 30, 10] = 1  # the left shoulder of a mirrored person
    back = flip_back(maps, mirror)
    assert back[0, 6, 30, 47 - 10 + 1] == 1
    assert back.sum() == 1
    edge = torch.zeros(1, 17, 64, 48)
    edge[0, 0, 5, 47] = 1
    back = flip_back(edge, mirror)
    assert back[0, 0, 5, 0] == 1
    assert back[0, 0, 5, 1] == 1
