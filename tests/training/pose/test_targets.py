import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.pose.targets import gaussian_heatmaps, offset_maps, on_heatmap, relative_positions


@given(st.floats(-40, 240, width=32), st.floats(-40, 300, width=32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_gaussians_equal_the_formula_in_each_cell(x: float, y: float, labelled: bool) -> None:
    keypoints, known = torch.tensor([[[x, y]]]), torch.tensor([[labelled]])
    maps = gaussian_heatmaps(keypoints, known, (64, 48))[0, 0].numpy()
    cx, cy = int(np.floor(x / 4 + 0.5)), int(np.floor(y / 4 + 0.5))
    expected = np.zeros((64, 48))
    for row in range(64):
        for column in range(48):
            if labelled and abs(row - cy) <= 6 and abs(column - cx) <= 6:
                expected[row, column] = np.exp(-((row - cy) ** 2 + (column - cx) ** 2) / (2 * 2**2))
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    inside = labelled and 0 <= cx < 48 and 0 <= cy < 64
    assert on_heatmap(keypoints, known, (64, 48)).item() == inside


def test_positions_and_offsets() -> None:
    keypoints = torch.tensor([[[96.0, 128.0], [0.0, 256.0]]])
    torch.testing.assert_close(relative_positions(keypoints, (256, 192)), torch.tensor([[[0.0, 0.0], [-0.5, 0.5]]]))
    offsets = offset_maps(keypoints + 1, (64, 48))
    assert offsets.shape == (1, 4, 64, 48)
    assert offsets[0, 0, 7, 20].item() == pytest.approx(24.25 - 20)
    assert offsets[0, 1, 7, 20].item() == pytest.approx(32.25 - 7)
    assert offsets[0, 2, 7, 20].item() == pytest.approx(0.25 - 20)
