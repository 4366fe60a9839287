"""Which of a teacher's joints become labels; the teacher itself is put in place by a function."""

import json

import numpy as np

from infra.weights.movenet.labels import look, relabelled

BOX = np.array([100.0, 50.0, 60.0, 120.0])
FRAME = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
CORNER = BOX[:2] + BOX[2:] / 2 - 1.1 * 120 / 2  # of the square that the teacher sees
SCALE = 1.1 * 120 / 256
PLACES = BOX[:2] + BOX[2:] * np.random.default_rng(1).uniform(0.1, 0.9, (17, 2))
LEFT_RIGHT = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


class Teacher:
    """Says where `PLACES` are in a square, also in a mirrored one, where it is `wrong` about one joint."""

    def __init__(self, wrong: int | None = None) -> None:
        self.views: list[np.ndarray] = []
        self.wrong = wrong

    def __call__(self, square: np.ndarray) -> np.ndarray:
        self.views.append(square.copy())
        joints = (PLACES - CORNER) / SCALE
        scores = np.full(17, 0.9)
        if len(self.views) == 2:  # in a mirror left is right
            joints = joints[LEFT_RIGHT]
            joints[:, 0] = 255 - joints[:, 0]
            scores[:] = 0.8
            if self.wrong is not None:
                joints[LEFT_RIGHT[self.wrong]] += 40
        return np.column_stack([joints, scores])


def person(keypoints: np.ndarray | None = None, **more: object) -> dict:
    keypoints = np.zeros((17, 3)) if keypoints is None else keypoints
    return {"id": 7, "image_id": 1, "bbox": BOX.tolist(), "keypoints": keypoints.ravel().tolist(), **more}


def test_both_views_are_brought_back_to_the_image() -> None:
    teacher = Teacher()
    places, sure = look(teacher, FRAME, BOX)
    np.testing.assert_allclose(places, PLACES, atol=1e-6)
    np.testing.assert_allclose(sure, 0.8)
    np.testing.assert_array_equal(teacher.views[1], teacher.views[0][:, ::-1])


def test_a_joint_that_moves_in_the_mirror_is_not_sure() -> None:
    _, sure = look(Teacher(wrong=9), FRAME, BOX)
    assert np.flatnonzero(sure == 0).tolist() == [9]


def test_a_person_without_joints_gets_the_sure_ones() -> None:
    sure = np.full(17, 0.9)
    sure[3] = 0.1
    entry = relabelled(person(), PLACES, sure)
    assert entry is not None
    told = np.array(entry["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(told[sure > 0.5, :2], PLACES[sure > 0.5], atol=0.05)
    assert told[3].tolist() == [0, 0, 0]
    assert entry["num_keypoints"] == 16
    json.dumps(entry)


def test_joints_outside_the_box_or_huddled_in_it_are_somebody_elses() -> None:
    sure = np.full(17, 0.9)
    away = PLACES.copy()
    away[5] = BOX[:2] - 20
    entry = relabelled(person(), away, sure)
    assert entry is not None
    assert entry["keypoints"][3 * 5 + 2] == 0
    assert relabelled(person(), BOX[:2] + 10 + PLACES * 0.01, sure) is None
    sure[4:] = 0
    assert relabelled(person(), PLACES, sure) is None


def test_labels_stay_but_those_that_are_contradicted() -> None:
    labels = np.column_stack([PLACES + 3, np.full(17, 2)])
    labels[:5] = 0
    labels[[10, 11], :2] += 40
    sure = np.full(17, 0.9)
    sure[11] = 0.3  # not certain enough to take a label out
    entry = relabelled(person(labels, unlabelled_not_invisible=[0, 1, 2, 3, 4]), PLACES, sure)
    assert entry is not None
    told = np.array(entry["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(told[:5, :2], PLACES[:5], atol=0.05)
    np.testing.assert_allclose(told[[6, 11], :2], labels[[6, 11], :2], atol=0.05)
    assert told[10].tolist() == [0, 0, 0]
    assert "unlabelled_not_invisible" not in entry
