"""Selection on the device, here the CPU device, against that of one image in memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detectors import batch_selection
from pipeline.detectors.batch_selection import select_batch
from pipeline.detectors.selection import select_people


def assert_equal_to_select_people(predictions: torch.Tensor, *arguments, least: float | None = None) -> list[int]:
    found = select_batch(predictions, *arguments, least_confidence=least)
    for boxes, image in zip(found, predictions, strict=True):
        expected = select_people(image, *arguments, least_confidence=least)
        np.testing.assert_array_equal(boxes.xyxy, expected.xyxy)
        np.testing.assert_array_equal(boxes.scores, expected.scores)
    return [len(boxes) for boxes in found]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 4),
    max_boxes=st.sampled_from([2, 10, 100]),
    nms_iou=st.sampled_from([0.04, 0.3, 0.6, 1.0]),
    least=st.sampled_from([None, 0.0, 0.25]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_people_of_a_batch_are_those_of_its_images(seed, classes, max_boxes, nms_iou, least, dtype) -> None:
    """Crowded boxes at whole pixels, and few different scores: overlaps at the threshold, and ties."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 24, (3, 60, 4))
    scores = rng.choice([0.0, 0.2, 0.5, 0.75, 0.9], (3, 60, 1 + classes))
    predictions = torch.from_numpy(np.concatenate([boxes, scores], axis=2)).to(dtype)
    predictions[1, :, 4] = 0  # nobody in this image
    person = int(rng.integers(classes))
    assert_equal_to_select_people(predictions, 0.5, nms_iou, max_boxes, person, least=least)


def test_chains_of_overlaps_longer_than_a_step() -> None:
    """Each box overlaps the next: every second one remains."""
    rows = [[100 + 3 * i, 100, 10, 10, 0.9 - 0.001 * i, 1.0] for i in range(60)]
    assert assert_equal_to_select_people(torch.tensor([rows]), 0.05, 0.5, 100) == [30]
    assert_equal_to_select_people(torch.tensor([rows]), 0.05, 0.5, 10)  # repeated with lower thresholds


def test_batches_without_rows_and_with_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assert_equal_to_select_people(torch.zeros(2, 0, 6), 0.5, 0.6, 100) == [0, 0]
    rng = np.random.default_rng(0)
    predictions = torch.from_numpy(rng.random((2, 50, 7), np.float32) * 20)
    expected = assert_equal_to_select_people(predictions, 0.5, 0.6, 100)
    monkeypatch.setattr(batch_selection, "_MANY", 10)
    assert assert_equal_to_select_people(predictions, 0.5, 0.6, 100) == expected
