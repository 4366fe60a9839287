import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import box_area, box_convert, box_iou

from pipeline import boxes


def some_boxes() -> st.SearchStrategy[np.ndarray]:
    """(N, 4) x1 y1 x2 y2 with x1 <= x2 and y1 <= y2."""
    corners = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(-50, 50))
    return corners.map(lambda b: np.concatenate([np.minimum(b[:, :2], b[:, 2:]), np.maximum(b[:, :2], b[:, 2:])], 1))


@given(some_boxes())
def test_conversions_areas_and_overlaps_equal_those_of_torchvision(xyxy: np.ndarray) -> None:
    tensor = torch.from_numpy(xyxy)
    xywh = boxes.xyxy_to_xywh(xyxy)
    np.testing.assert_array_equal(xywh, box_convert(tensor, "xyxy", "xywh").numpy())
    np.testing.assert_array_equal(boxes.xywh_to_xyxy(xywh), xyxy)
    np.testing.assert_array_equal(boxes.areas(xyxy), box_area(tensor).numpy())
    expected = torch.nan_to_num(box_iou(tensor, tensor), 0.0).numpy()  # torchvision: 0 / 0 for two empty boxes
    np.testing.assert_allclose(boxes.iou(xyxy), expected, rtol=1e-12)
    assert (boxes.long_sides(xyxy) == xywh[:, 2:].max(axis=1)).all()


def test_a_box_of_negative_size_has_no_area() -> None:
    assert boxes.areas(np.array([[5.0, 5, 1, 9]])).tolist() == [0]
