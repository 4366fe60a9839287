import numpy as np
import pytest
import torch

from pipeline.pose.heads import OffsetHead, View
from pipeline.pose.heatmap import decode_integral, normalise_heatmaps
from pipeline.training.pose.losses import PoseLoss, expected_positions, heatmap_loss, integral_loss
from pipeline.training.pose.targets import gaussian_heatmaps, offset_maps, relative_positions

KEYPOINTS = torch.tensor([[[20.0, 30.0], [40.5, 12.25], [70.0, 50.0]], [[5.0, 60.0], [90.0, 90.0], [33.0, 44.0]]])
LABELLED = torch.tensor([[True, True, False], [True, True, True]])
SIZE = (32, 24)


def test_heatmap_loss_is_half_the_mean_square_and_ignores_unlabelled_joints() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 3, *SIZE)
    target = gaussian_heatmaps(KEYPOINTS, LABELLED, SIZE)
    expected = sum(((maps[n, k] - target[n, k]) ** 2).sum() for n in range(2) for k in range(3) if LABELLED[n, k]) / (
        2 * 2 * 3 * 32 * 24
    )
    torch.testing.assert_close(heatmap_loss(maps, target, LABELLED), expected)
    weighted = sum(
        ((1 + 20 * target[n, k]) * (maps[n, k] - target[n, k]) ** 2).sum()
        for n in range(2)
        for k in range(3)
        if LABELLED[n, k]
    ) / (2 * 2 * 3 * 32 * 24)
    torch.testing.assert_close(heatmap_loss(maps, target, LABELLED, foreground=20), weighted)
    other = maps.clone()
    other[0, 2] += 100
    torch.testing.assert_close(heatmap_loss(other, target, LABELLED), expected)


@pytest.mark.parametrize("norm", ["softmax", "sigmoid", "divide_sum"])
def test_expected_positions_equal_the_decoded_ones(norm) -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 3, *SIZE)
    boxes = np.array([[0.0, 0, 24, 32]] * 2)  # a pixel a cell
    keypoints, _ = decode_integral(maps, boxes, norm)
    positions = (torch.from_numpy(keypoints) / torch.tensor([24.0, 32.0])) - 0.5
    torch.testing.assert_close(expected_positions(maps, norm), positions, atol=1e-5, rtol=0)


def test_the_gradient_of_a_position_does_not_grow_with_distance() -> None:
    """+ 2 at or beyond the expected cell, - 2 before it, on the normalised map."""
    maps = torch.rand(1, 1, 4, 6, requires_grad=True)
    maps_norm = maps / maps.sum()
    x = (maps_norm.sum(dim=2) * torch.arange(6)).sum().item()
    positions = expected_positions(maps_norm, "divide_sum")
    (gradient,) = torch.autograd.grad(positions[0, 0, 0], maps_norm)
    # The division by a sum of 1 subtracts the mean of the gradient, weighted by the map.
    column = torch.where(torch.arange(6) >= x, 2.0, -2.0) / 6
    expected = column - (maps_norm[0, 0].sum(dim=0) * column).sum()
    torch.testing.assert_close(gradient[0, 0], expected.expand(4, 6).detach(), atol=1e-5, rtol=1e-4)


def test_integral_loss_by_hand() -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 3, *SIZE)
    positions = relative_positions(KEYPOINTS, (128, 96))
    expected = expected_positions(maps, "sigmoid")
    total = sum(
        float((expected[n, k] - positions[n, k]).abs().sum()) for n in range(2) for k in range(3) if LABELLED[n, k]
    )
    assert integral_loss(maps, positions, LABELLED, "sigmoid").item() == pytest.approx(total / 2, rel=1e-5)


def test_the_combined_loss_is_100_heatmap_losses_and_a_hundredth_integral_loss() -> None:
    torch.manual_seed(0)
    keypoints = torch.rand(1, 68, 2) * 90
    labelled = torch.ones(1, 68, dtype=torch.bool)
    maps = torch.rand(1, 68, *SIZE)
    target = gaussian_heatmaps(keypoints, labelled, SIZE)
    body = heatmap_loss(maps[:, :26], target[:, :26], labelled[:, :26])
    rest = integral_loss(maps[:, 26:], relative_positions(keypoints, (128, 96))[:, 26:], labelled[:, 26:], "sigmoid")
    loss = PoseLoss((128, 96), "combined")([maps], keypoints, labelled)
    torch.testing.assert_close(loss, 100 * body + 0.01 * rest)


def test_a_perfect_offset_output_has_loss_0_and_decodes_to_the_joints() -> None:
    keypoints = KEYPOINTS[:1]
    labelled = torch.ones(1, 3, dtype=torch.bool)
    maps = torch.cat([gaussian_heatmaps(keypoints, labelled, SIZE), offset_maps(keypoints, SIZE)], dim=1)
    assert PoseLoss((128, 96), "offset")([maps], keypoints, labelled).item() == pytest.approx(0, abs=1e-9)
    decoded, _ = OffsetHead().decode([View(maps, np.array([[0.0, 0, 96, 128]]))])
    np.testing.assert_allclose(decoded[0], keypoints[0], atol=1e-3)
    maps[:, 3:] += 1  # all offsets wrong by one cell, times 0.1
    assert PoseLoss((128, 96), "offset")([maps], keypoints, labelled).item() == pytest.approx(0.1, rel=1e-4)


def test_the_loss_is_summed_over_outputs_with_the_share_of_the_teacher_in_each() -> None:
    torch.manual_seed(0)
    maps, teacher = torch.rand(2, 3, *SIZE), torch.rand(2, 3, *SIZE)
    one = PoseLoss((128, 96))([maps], KEYPOINTS, LABELLED)
    torch.testing.assert_close(PoseLoss((128, 96))([maps, maps], KEYPOINTS, LABELLED), 2 * one)
    distilled = PoseLoss((128, 96), teacher_share=0.25)([maps, maps], KEYPOINTS, LABELLED, teacher)
    torch.testing.assert_close(distilled, 2 * (0.75 * one + 0.25 * 0.5 * ((maps - teacher) ** 2).mean()))


@pytest.mark.parametrize("norm", ["softmax", "sigmoid", "divide_sum"])
def test_gradients_of_normalised_heatmaps_equal_numeric_ones(norm) -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 12, dtype=torch.float64, requires_grad=True)
    weights = normalise_heatmaps(maps, norm)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda flat: normalise_heatmaps(flat, norm), maps)


@pytest.mark.parametrize("fill", [0.0, 1e30, -1e30])
def test_divide_sum_has_finite_losses_and_gradients(fill: float) -> None:
    """The sum of large maps would be infinite; maps of zeros have no expected position."""
    maps = torch.full((2, 3, *SIZE), fill, requires_grad=True)
    loss = PoseLoss((128, 96), "integral", "divide_sum")([maps], KEYPOINTS, LABELLED)
    loss.backward()
    assert loss.isfinite()
    assert maps.grad.isfinite().all()
