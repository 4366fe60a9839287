import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from pipeline.detectors.letterbox import DARKNET, STRETCHED, YOLO, YOLOX, letterbox
from pipeline.detectors.selection import likely_rows, overlap_nms, select_people
from pipeline.people import Boxes


def predictions(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_people_are_selected_by_objectness_class_and_overlap() -> None:
    people = select_people(
        predictions(
            [
                [50, 50, 20, 40, 0.9, 0.8, 0.1],
                [51, 50, 20, 40, 0.7, 0.9, 0.1],  # the same person, weaker
                [90, 50, 20, 40, 0.8, 0.2, 0.7],  # best class is another
                [150, 50, 20, 40, 0.05, 0.9, 0.0],  # not above the confidence
                [200, 50, 20, 40, 0.3, 0.01, 0.0],  # the objectness is the score
            ]
        ),
        confidence=0.05,
        nms_iou=0.6,
        max_boxes=100,
    )
    np.testing.assert_allclose(people.scores, [0.9, 0.3])
    np.testing.assert_allclose(people.xyxy[0], [40, 30, 60, 70])


def test_the_rows_of_a_batch_equal_those_of_its_images() -> None:
    batch = torch.from_numpy(np.random.default_rng(0).random((3, 50, 7))).to(torch.bfloat16)
    batch[1, :, 4] = 0.1  # no detection in this image
    for rows, image in zip(likely_rows(batch, 0.5), batch, strict=True):
        assert rows.dtype == torch.float32
        assert torch.equal(rows, image[image[:, 4] > 0.5].float())
        a, b = select_people(rows, 0.5, 0.6, 100), select_people(image, 0.5, 0.6, 100)
        np.testing.assert_array_equal(a.xyxy, b.xyxy)


def test_nms_counts_the_last_pixel_and_includes_the_threshold() -> None:
    # 10 x 10 whole pixels each, 10 x 8 shared: 80 / 120.
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 2, 9, 11]])
    scores = torch.tensor([0.9, 0.8])
    assert overlap_nms(boxes, scores, 80 / 120 + 1e-4).tolist() == [0, 1]
    assert overlap_nms(boxes, scores, 80 / 120).tolist() == [0]


def test_equal_scores_keep_their_order() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [50, 0, 59, 9]])
    assert overlap_nms(boxes, torch.full((3,), 0.5), 0.5).tolist() == [0, 2]


def test_too_many_boxes_repeat_nms_with_a_lower_threshold() -> None:
    # A chain in which each box overlaps the next by about 0.53.
    rows = [[100 + 3 * i, 100, 10, 10, 0.9 - 0.001 * i, 1.0] for i in range(60)]
    loose = select_people(predictions(rows), 0.05, 0.6, max_boxes=100)
    tight = select_people(predictions(rows), 0.05, 0.6, max_boxes=50)
    assert len(loose) == 60
    assert len(tight) == 30
    hopeless = [[100.0 + 100 * i, 100, 10, 10, 0.9, 1.0] for i in range(60)]
    assert len(select_people(predictions(hopeless), 0.05, 0.6, max_boxes=50)) == 60


@given(st.integers(0, 99), st.sampled_from([1, 5, 100]))
@settings(max_examples=50, deadline=None)
def test_weak_boxes_come_after_the_others_and_do_not_change_them(seed: int, max_boxes: int) -> None:
    r = np.random.default_rng(seed)
    rows = np.column_stack([r.uniform(50, 150, (60, 2)), r.uniform(20, 80, (60, 2)), r.random(60), np.ones(60)])
    usual = select_people(predictions(rows), 0.5, 0.6, max_boxes)
    both = select_people(predictions(rows), 0.5, 0.6, max_boxes, least_confidence=0.2)
    np.testing.assert_array_equal(both.xyxy[: len(usual)], usual.xyxy)
    np.testing.assert_array_equal(both.scores[: len(usual)], usual.scores)
    weak = both.scores[len(usual) :]
    assert len(weak) <= max_boxes
    assert ((weak > 0.2) & (weak <= 0.5)).all()
    every = select_people(predictions(rows), 0.2, 0.6, 100)  # NMS of all boxes
    np.testing.assert_array_equal(weak, every.scores[every.scores <= 0.5][:max_boxes])


def test_no_predictions() -> None:
    assert len(select_people(torch.zeros(0, 85), 0.05, 0.6, 100)) == 0
    assert len(select_people(torch.zeros(9, 6), 0.05, 0.6, 100)) == 0


def test_letterboxes_are_invertible() -> None:
    for height, width in ((100, 200), (333, 77), (64, 64), (1, 500), (720, 1280)):
        image = np.full((height, width, 3), 200, np.uint8)
        square = np.zeros((96, 96, 3), np.uint8)
        box = letterbox(image, square)
        new_width, new_height = (
            max(1, int(width * min(96 / width, 96 / height))),
            max(1, int(height * min(96 / width, 96 / height))),
        )
        left, top = (96 - new_width) // 2, (96 - new_height) // 2
        assert (square == 200).all(axis=2).sum() == new_width * new_height
        assert (square[0, 0] == (200 if left == top == 0 else DARKNET.pad_value)).all()
        whole = Boxes(np.array([[left, top, left + new_width, top + new_height], [-9, -9, 200, 200]]), np.ones(2))
        np.testing.assert_allclose(box.to_image(whole).xyxy, [[0, 0, width, height]] * 2, atol=1e-3)


def test_letterboxes_of_other_families() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    out = np.zeros((64, 96, 3), np.uint8)  # not square: 96 x 48 of it is image
    box = letterbox(image, out, YOLOX)
    assert (box.left, box.top) == (0, 0)
    assert (out[:48] == 200).all()
    assert (out[48:] == 114).all()
    box = letterbox(image, out, YOLO)
    assert (box.left, box.top) == (0, 8)
    assert (out[8:56] == 200).all()
    assert (out[:8] == 114).all()


def test_scores_by_objectness_and_class() -> None:
    rows = predictions([[50, 50, 20, 40, 0.9, 0.5], [150, 50, 20, 40, 0.2, 0.4]])
    people = select_people(rows, 0.1, 0.6, 100, objectness_alone=False)
    np.testing.assert_allclose(people.scores, [0.45], rtol=1e-6)
    assert rows[0, 4] == np.float32(0.9)  # the predictions are not changed


def test_zero_probabilities_of_all_classes_make_no_person() -> None:
    rows = predictions([[50, 50, 20, 40, 0.9, 0.0, 0.0], [90, 50, 20, 40, 0.8, 0.1, 0.1], [10, 5, 2, 4, 0.7, 0.0, 0.2]])
    np.testing.assert_allclose(select_people(rows, 0.05, 0.6, 100).scores, [0.8])


def test_a_stretched_image_fills_the_input_and_maps_back() -> None:
    out = np.zeros((32, 32, 3), np.uint8)
    box = letterbox(np.full((40, 80, 3), 200, np.uint8), out, STRETCHED)
    assert (out == 200).all()
    boxes = box.to_image(Boxes(np.array([[8.0, 8, 16, 32]]), np.ones(1)))
    np.testing.assert_allclose(boxes.xyxy, [[20, 10, 40, 40]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 7, 60, 200, 499, 600]), st.floats(0.05, 1))
def test_nms_equals_that_of_torchvision(seed: int, count: int, iou: float) -> None:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 40
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=random) * 30], dim=1).round()
    scores = (torch.rand(count, generator=random) * 20).round() / 20  # many are equal
    inclusive = boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])
    exclusive_iou = float(np.nextafter(np.float32(iou), np.float32(0)))
    assert overlap_nms(boxes, scores, iou).tolist() == nms(inclusive, scores, exclusive_iou).tolist()
