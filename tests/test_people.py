from dataclasses import replace

import numpy as np
import pytest

from pipeline.people import Boxes, People


def people(n: int, k: int = 17) -> People:
    values = np.arange(n, dtype=np.float32)
    return People(np.zeros((n, 4)), values, np.zeros((n, k, 2)), np.zeros((n, k)), values)


def test_indexing_keeps_rows_together() -> None:
    three = people(3)
    assert len(three) == 3
    assert three[np.array([True, False, True])].pose_scores.tolist() == [0, 2]
    assert three[[2, 0]].box_scores.tolist() == [2, 0]
    assert three[1:].box_scores.tolist() == [1, 2]
    assert len(three[[]]) == 0
    assert three[[]].num_joints == 17


def test_empty_people_have_shapes() -> None:
    empty = People.empty(26)
    assert len(empty) == 0
    assert empty.keypoints.shape == (0, 26, 2)
    assert empty.keypoints.dtype == np.float32


def test_extra_columns_stay_aligned() -> None:
    values = {"track": np.array([7, 8, 9]), "appearance": np.eye(3, 4, dtype=np.float32)}
    three = replace(people(3), extra=values)
    assert three[[2, 0]].extra["track"].tolist() == [9, 7]
    assert three.extra["track"].dtype == np.int64
    both = People.concatenate([three[:1], three[[2]]])
    np.testing.assert_array_equal(both.extra["appearance"], np.eye(3, 4)[[0, 2]])
    assert both.box_scores.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"People\.extra\['track'\] has shape \(2,\); expected \(3, \.\.\.\)"):
        replace(three, extra={"track": np.zeros(2)})


def test_arrays_that_do_not_align_are_refused() -> None:
    with pytest.raises(ValueError, match=r"People\.keypoint_scores has shape \(2, 16\); expected \(2, 17\)"):
        People(np.zeros((2, 4)), np.zeros(2), np.zeros((2, 17, 2)), np.zeros((2, 16)), np.zeros(2))
    with pytest.raises(ValueError, match="2 boxes but 1 scores"):
        Boxes(np.zeros((2, 4)), np.zeros(1))
