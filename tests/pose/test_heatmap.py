import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import SHARED, needs_reference

from pipeline.pose.heatmap import decode_argmax, decode_classic, decode_integral, flip_back
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


def slow_argmax(heatmap: np.ndarray, box: np.ndarray) -> tuple[float, float, float]:
    """The rule for one joint, step by step."""
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
def test_argmax_equals_the_slow_implementation(seed: int, negative: bool) -> None:
    r = np.random.default_rng(seed)
    maps = r.normal(-9 if negative else 0, 1, (2, 3, 8, 6)).astype(np.float32)
    maps = np.round(maps, 1)  # ties
    boxes = np.sort(r.random((2, 4)).astype(np.float32) * 300, axis=1)[:, [0, 1, 2, 3]]
    keypoints, scores = decode_argmax(maps, boxes)
    for n in range(2):
        for k in range(3):
            x, y, score = slow_argmax(maps[n, k], boxes[n].astype(float))
            np.testing.assert_allclose([*keypoints[n, k], scores[n, k]], [x, y, score], atol=1e-3)


@given(st.integers(8, 30), st.integers(8, 40), st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=50, deadline=None)
def test_keypoints_move_with_the_heatmap(x: int, y: int, dx: int, dy: int) -> None:
    for decode in (decode_argmax, lambda h, b: decode_integral(h**2, b, "divide_sum")):
        before, _ = decode(bump(x + 0.3, y + 0.4, sigma=1.0), BOX)
        after, _ = decode(bump(x + 0.3 + dx, y + 0.4 + dy, sigma=1.0), BOX)
        np.testing.assert_allclose(after - before, np.array([[[dx, dy]]]) * 4.0, atol=0.02)


def test_no_positive_value_gives_the_corner_cell() -> None:
    keypoints, scores = decode_argmax(-np.ones((1, 1, 64, 48), np.float32), BOX)
    np.testing.assert_allclose(keypoints[0, 0], BOX[0, :2])
    assert scores[0, 0] == -1


def test_integral_decoding_with_each_norm() -> None:
    keypoints, scores = decode_integral(bump(20, 30) * 50, BOX, "softmax")
    np.testing.assert_allclose(keypoints[0, 0], [10 + 20 * 4, 20 + 30 * 4], atol=0.1)
    assert scores[0, 0] == 1
    _, scores = decode_integral(bump(20, 30), BOX, "sigmoid")
    np.testing.assert_allclose(scores[0, 0], 1 / (1 + np.exp(-1)), atol=1e-6)
    with pytest.raises(ValueError, match="norm is 'l2'"):
        decode_integral(bump(20, 30), BOX, "l2")  # type: ignore[arg-type]


@pytest.mark.parametrize("fill", [0.0, 1e30, -1e30, 1e-30])
def test_constant_maps_give_finite_keypoints(fill: float) -> None:
    maps = np.full((1, 2, 64, 48), fill, np.float32)
    for keypoints, scores in (
        decode_argmax(maps, BOX),
        *(decode_integral(maps, BOX, norm) for norm in ("softmax", "sigmoid", "divide_sum")),  # type: ignore[arg-type]
    ):
        assert np.isfinite(keypoints).all()
        assert np.isfinite(scores).all()


def test_no_people() -> None:
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


def slow_classic(heatmap: np.ndarray, box: np.ndarray) -> tuple[float, float]:
    """The rule for one joint, step by step: quarter step, + 0.2, and back to the image by lenH and lenW."""
    height, width = heatmap.shape
    py, px = divmod(int(heatmap.argmax()), width)
    x, y = float(px), float(py)
    if 0 < px < width - 1 and 0 < py < height - 1:
        x += 0.25 * np.sign(heatmap[py, px + 1] - heatmap[py, px - 1])
        y += 0.25 * np.sign(heatmap[py + 1, px] - heatmap[py - 1, px])
    x, y = x + 0.2, y + 0.2
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    len_h = max(h, 1.25 * w)
    len_w = 0.8 * len_h
    return (
        x * len_h / 80 - max(0, (len_w - w) / 2) + x1,
        y * len_h / 80 - max(0, (len_h - h) / 2) + y1,
    )


@given(st.integers(0, 10**6), st.floats(5, 500), st.floats(5, 500))
@settings(max_examples=60, deadline=None)
def test_classic_equals_the_slow_implementation(seed: int, w: float, h: float) -> None:
    r = np.random.default_rng(seed)
    maps = np.round(r.random((1, 3, 80, 64)).astype(np.float32), 2) + np.float32(0.01)
    box = np.array([[10.5, 20.25, 10.5 + w, 20.25 + h]])
    keypoints, scores = decode_classic(maps, box)
    for k in range(3):
        np.testing.assert_allclose(keypoints[0, k], slow_classic(maps[0, k], box[0]), atol=1e-3)
    np.testing.assert_array_equal(scores[0], maps[0].max(axis=(1, 2)))


@pytest.mark.parametrize("peak", [(0, 30), (1, 1), (1, 30), (47, 62), (46, 62), (2, 63)])
def test_maxima_are_moved_inside_the_border(peak: tuple[int, int]) -> None:
    """From cell 2 with argmax, from cell 1 with classic, never in the last cell."""
    x, y = peak
    maps = np.zeros((1, 1, 64, 48), np.float32)
    maps[0, 0, y, x] = 1
    if x < 47:
        maps[0, 0, y, x + 1] = 0.5
    cells = (decode_argmax(maps, BOX)[0][0, 0] - BOX[0, :2]) / 4
    expected = x + 0.25 * (1 < x < 47 and 1 < y < 63)
    np.testing.assert_allclose(cells[0], expected, atol=1e-5)
    box = np.array([[0.0, 0.0, 48.0, 64.0]])
    cells = decode_classic(maps, box)[0][0, 0] - 0.2
    np.testing.assert_allclose(cells[0], x + 0.25 * (0 < x < 47 and 0 < y < 63), atol=1e-5)


@given(st.integers(0, 10**6), st.sampled_from([1e-30, 1.0, 1e4, 3e38]))
@settings(max_examples=40, deadline=None)
def test_any_finite_map_gives_finite_keypoints(seed: int, size: float) -> None:
    maps = (np.random.default_rng(seed).uniform(-1, 1, (2, 3, 8, 6)).astype(np.float32) * np.float32(size)).astype(
        np.float32
    )
    boxes = np.array([[0, 0, 6, 8], [5, 5, 5, 5]])
    decoded = [decode_argmax(maps, boxes), decode_classic(maps, boxes)]
    decoded += [decode_integral(maps, boxes, norm) for norm in ("softmax", "sigmoid", "divide_sum")]  # type: ignore[arg-type]
    for keypoints, scores in decoded:
        assert np.isfinite(keypoints).all()
        assert np.isfinite(scores).all()
