"""Which predicted joints become labels. A function replaces the network."""

import json

import numpy as np

from infra.weights.human_models.movenet_labels import predict, relabel

BOX = np.array([100.0, 50.0, 60.0, 120.0])
FRAME = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
CORNER = BOX[:2] + BOX[2:] / 2 - 1.1 * 120 / 2  # of the square crop
SCALE = 1.1 * 120 / 256
JOINTS = BOX[:2] + BOX[2:] * np.random.default_rng(1).uniform(0.1, 0.9, (17, 2))
LEFT_RIGHT = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


class FakeNetwork:
    """Predicts `JOINTS` in the first square and in the mirrored second one; there the joint `wrong` is displaced."""

    def __init__(self, wrong: int | None = None) -> None:
        self.views: list[np.ndarray] = []
        self.wrong = wrong

    def __call__(self, square: np.ndarray) -> np.ndarray:
        self.views.append(square.copy())
        joints = (JOINTS - CORNER) / SCALE
        scores = np.full(17, 0.9)
        if len(self.views) == 2:  # mirrored: left and right swap
            joints = joints[LEFT_RIGHT]
            joints[:, 0] = 255 - joints[:, 0]
            scores[:] = 0.8
            if self.wrong is not None:
                joints[LEFT_RIGHT[self.wrong]] += 40
        return np.column_stack([joints, scores])


def person(keypoints: np.ndarray | None = None, **more: object) -> dict:
    keypoints = np.zeros((17, 3)) if keypoints is None else keypoints
    return {"id": 7, "image_id": 1, "bbox": BOX.tolist(), "keypoints": keypoints.ravel().tolist(), **more}


def test_predictions_of_both_views_are_mapped_back_to_the_image() -> None:
    network = FakeNetwork()
    keypoints, scores = predict(network, FRAME, BOX)
    np.testing.assert_allclose(keypoints, JOINTS, atol=1e-6)
    np.testing.assert_allclose(scores, 0.8)
    np.testing.assert_array_equal(network.views[1], network.views[0][:, ::-1])


def test_a_joint_on_which_the_views_disagree_has_score_0() -> None:
    _, scores = predict(FakeNetwork(wrong=9), FRAME, BOX)
    assert np.flatnonzero(scores == 0).tolist() == [9]


def test_a_person_without_joints_gets_the_confident_ones() -> None:
    scores = np.full(17, 0.9)
    scores[3] = 0.1
    entry = relabel(person(), JOINTS, scores)
    assert entry is not None
    keypoints = np.array(entry["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(keypoints[scores > 0.5, :2], JOINTS[scores > 0.5], atol=0.05)
    assert keypoints[3].tolist() == [0, 0, 0]
    assert entry["num_keypoints"] == 16
    json.dumps(entry)


def test_joints_outside_the_box_or_in_a_small_part_of_it_are_rejected() -> None:
    scores = np.full(17, 0.9)
    outside = JOINTS.copy()
    outside[5] = BOX[:2] - 20
    entry = relabel(person(), outside, scores)
    assert entry is not None
    assert entry["keypoints"][3 * 5 + 2] == 0
    assert relabel(person(), BOX[:2] + 10 + JOINTS * 0.01, scores) is None
    scores[4:] = 0
    assert relabel(person(), JOINTS, scores) is None


def test_only_contradicted_labels_are_removed() -> None:
    labels = np.column_stack([JOINTS + 3, np.full(17, 2)])
    labels[:5] = 0
    labels[[10, 11], :2] += 40
    scores = np.full(17, 0.9)
    scores[11] = 0.3  # too low to remove a label
    entry = relabel(person(labels, unlabelled_not_invisible=[0, 1, 2, 3, 4]), JOINTS, scores)
    assert entry is not None
    keypoints = np.array(entry["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(keypoints[:5, :2], JOINTS[:5], atol=0.05)
    np.testing.assert_allclose(keypoints[[6, 11], :2], labels[[6, 11], :2], atol=0.05)
    assert keypoints[10].tolist() == [0, 0, 0]
    assert "unlabelled_not_invisible" not in entry
