import math

import pytest
import torch

from pipeline.training.detector.loss import assign, detection_loss, distillation_loss

# Four cells in a row, 10 pixels each, one prediction per cell; a person over the second and third.
CELLS = torch.tensor([[5.0, 5, 10], [15, 5, 10], [25, 5, 10], [35, 5, 10]])
PERSON = torch.tensor([[10.0, 0, 30, 10]])
EXACT = [20.0, 5, 20, 10]


def predictions(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([list(rows)], dtype=torch.float32)


def corners(p: torch.Tensor) -> torch.Tensor:
    return torch.cat([p[..., :2] - p[..., 2:4] / 2, p[..., :2] + p[..., 2:4] / 2], dim=-1)


def test_predictions_with_the_lowest_cost_within_reach_are_assigned() -> None:
    p = predictions([5, 5, 10, 10, 0.9, 1], [*EXACT, 0.5, 1], [*EXACT, 0.9, 1], [*EXACT, 0.9, 1])[0]
    # Overlaps: 0, 1, 1 and (out of reach) 1: two predictions for the person.
    rows, person_rows = assign(corners(p), p[:, 4], CELLS, 1.0, PERSON)
    assert rows.tolist() == [1, 2]
    assert person_rows.tolist() == [0, 0]
    half = predictions([5, 5, 10, 10, 0.9, 1], [15, 5, 10, 10, 0.5, 1], [25, 5, 10, 10, 0.9, 1], [*EXACT, 0.9, 1])[0]
    rows, _ = assign(corners(half), half[:, 4], CELLS, 1.0, PERSON)
    assert rows.tolist() == [2]  # the sum of their overlaps is 1; the higher objectness wins


def test_a_prediction_of_two_people_is_assigned_to_the_better_one() -> None:
    people = torch.tensor([[10.0, 0, 30, 10], [12.0, 0, 30, 10]])
    p = predictions([5, 5, 1, 1, 0.1, 1], [*EXACT, 0.5, 1], [21, 5, 18, 10, 0.5, 1], [5, 5, 1, 1, 0.1, 1])[0]
    rows, person_rows = assign(corners(p), p[:, 4], CELLS, 1.0, people)
    assert dict(zip(rows.tolist(), person_rows.tolist(), strict=True)) == {1: 0, 2: 1}


def test_the_loss_by_hand() -> None:
    boxes, kinds = PERSON[None], torch.ones(1, 1, dtype=torch.long)
    p = predictions(
        [5, 5, 10, 10, 0.2, 0.5], [20, 5, 20, 10, 0.6, 0.7], [35, 5, 1, 1, 0.3, 0.5], [35, 5, 1, 1, 0.1, 0.5]
    )
    # Prediction 1 has overlap 1 with the person, which is its target; the others are background.
    background = sum(-math.log(1 - c) * c**2 for c in (0.2, 0.3, 0.1))
    positive = -math.log(0.6) * 0.4**2
    expected = background + positive - 0.5 * math.log(0.7)
    assert detection_loss(p, CELLS, 1.0, boxes, kinds).item() == pytest.approx(expected, rel=1e-4)


def test_crowds_are_neither_people_nor_background() -> None:
    boxes = torch.stack([PERSON[0], torch.tensor([30.0, 0, 40, 10])])[None]
    p = predictions(
        [5, 5, 10, 10, 0.2, 0.5], [20, 5, 20, 10, 0.6, 0.7], [25, 5, 1, 1, 0.3, 0.5], [35, 5, 8, 8, 0.9, 0.5]
    )
    with_crowd = detection_loss(p, CELLS, 1.0, boxes, torch.tensor([[1, 2]]))
    without = detection_loss(p, CELLS, 1.0, boxes, torch.tensor([[1, 0]]))
    assert (without - with_crowd).item() == pytest.approx(-math.log(0.1) * 0.9**2, rel=1e-4)


def test_an_image_without_people_has_only_the_loss_of_the_background() -> None:
    p = predictions([5, 5, 10, 10, 0.2, 0.5]).requires_grad_()
    loss = detection_loss(p, CELLS[:1], 1.0, torch.zeros(1, 1, 4), torch.zeros(1, 1, dtype=torch.long))
    assert loss.item() == pytest.approx(-math.log(0.8) * 0.2**2, rel=1e-4)
    loss.backward()
    assert p.grad[..., :4].abs().sum() == 0


def test_the_distillation_loss_by_hand() -> None:
    teacher = torch.tensor([[[*EXACT, 0.8], [5.0, 5, 10, 10, 0.04]]])
    p = predictions([20, 5, 10, 10, 0.6, 0.7], [35, 5, 1, 1, 0.3, 0.5])
    # Half the width, same centre and height: IoU 0.5, distance 0; the aspect term of complete IoU (Zheng et al.).
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    box = 1 - 0.5 + aspect * aspect / (1 - 0.5 + aspect)
    high = -(0.8 * math.log(0.6) + 0.2 * math.log(0.4)) * 0.2**2
    low = -(0.04 * math.log(0.3) + 0.96 * math.log(0.7)) * 0.26**2
    # The score of the second is too low for a box loss. The sum of the scores is below 1 and counts as 1.
    expected = high + low + 0.8 * (5 * box - 0.5 * math.log(0.7))
    assert distillation_loss(p, teacher).item() == pytest.approx(expected, rel=1e-4)
    twice = distillation_loss(p.repeat(2, 1, 1), teacher.repeat(2, 1, 1))
    assert twice.item() == pytest.approx(2 * expected / 1.68, rel=1e-4)


def test_gradient_descent_detects_the_person() -> None:
    torch.manual_seed(0)
    raw = torch.zeros(1, 4, 6, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)

    def decoded() -> torch.Tensor:
        xy = (raw[..., :2].sigmoid() * 2 - 1) * 10 + CELLS[:, :2]
        return torch.cat([xy, 10 * raw[..., 2:4].exp(), raw[..., 4:].sigmoid()], dim=-1)

    for _ in range(300):
        optimizer.zero_grad()
        detection_loss(decoded(), CELLS, 1.0, PERSON[None], torch.ones(1, 1, dtype=torch.long)).backward()
        optimizer.step()
    best = decoded()[0, decoded()[0, :, 4].argmax()]
    torch.testing.assert_close(best[:4], torch.tensor(EXACT), atol=0.5, rtol=0)
    assert best[4] > 0.8
