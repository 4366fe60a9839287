import json

import numpy as np
import pytest
from conftest import SHARED, needs_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.people import People
from pipeline.suppression import PoseNMS, pose_nms, pose_score

_EXAMPLES = SHARED / "reference" / "pose_nms_examples.npz"


def random_people(seed: int, n: int, k: int = 17, crowd: float = 300.0) -> People:
    r = np.random.default_rng(seed)
    corner = r.random((n, 2)) * crowd
    size = 40 + r.random((n, 2)) * 160
    joints = corner[:, None] + r.random((n, k, 2)) * size[:, None]
    scores = r.random((n, k))
    return People(np.hstack([corner, corner + size]), r.random(n), joints, scores, np.zeros(n))


@needs_reference
@pytest.mark.parametrize("name", [f"k17_hm_0{i}" for i in range(5)] + ["k26_hm_00", "k26_hm_01"])
def test_reference_examples(name: str) -> None:
    z = np.load(_EXAMPLES)
    expected = json.loads(_EXAMPLES.with_suffix(".json").read_text())[name]
    boxes, scores = z[f"{name}.boxes"], z[f"{name}.box_scores"][:, 0]
    found, clusters = pose_nms(
        People(boxes, scores, z[f"{name}.poses"], z[f"{name}.scores"][..., 0], np.zeros(len(boxes)))
    )
    assert clusters == expected["clusters"]
    np.testing.assert_array_equal(found.boxes, z[f"{name}.out_boxes"])
    np.testing.assert_array_equal(found.box_scores, z[f"{name}.out_box_scores"])
    np.testing.assert_allclose(found.keypoints, z[f"{name}.out_poses"], atol=2e-4)
    np.testing.assert_allclose(found.keypoint_scores, z[f"{name}.out_scores"][..., 0], atol=1e-6)
    np.testing.assert_allclose(found.pose_scores, z[f"{name}.out_proposal"], atol=1e-6)


def slow_pose_nms(people: People, s: PoseNMS) -> tuple[list[list[int]], list[np.ndarray]]:
    """The formula word for word, one joint at a time: an independent second formulation."""
    left = list(range(len(people)))
    score = np.where(people.keypoint_scores == 0, 1e-5, people.keypoint_scores).astype(float)
    xy = people.keypoints.astype(float)
    clusters, poses = [], []
    while left:
        pick = max(left, key=lambda i: (people.keypoint_scores[i].astype(float).mean(), -i))
        x1, y1, x2, y2 = people.boxes[pick].astype(float)
        reference = s.alpha * max(x2 - x1, y2 - y1)
        cluster = []
        for i in left:
            similarity = matches = 0.0
            for j in range(people.num_joints):
                d = np.hypot(*(xy[pick, j] - xy[i, j]))
                if d <= 1:
                    similarity += np.tanh(score[pick, j] / s.delta1) * np.tanh(score[i, j] / s.delta1)
                similarity += s.mu * np.exp(-d / s.delta2)
                matches += d <= min(reference, 7)
            if i == pick or similarity > s.gamma or matches >= s.match_threshold:
                cluster.append(i)
        left = [i for i in left if i not in cluster]
        if score[pick].max() < s.score_threshold:
            continue
        pose = np.zeros((people.num_joints, 3))
        for j in range(people.num_joints):
            near = [i for i in cluster if np.hypot(*(xy[pick, j] - xy[i, j])) <= min(reference, 15)]
            weights = np.array([score[i, j] for i in near]) / sum(score[i, j] for i in near)
            pose[j, :2] = sum(w * xy[i, j] for w, i in zip(weights, near, strict=True))
            pose[j, 2] = sum(w * score[i, j] for w, i in zip(weights, near, strict=True))
        if pose[:, 2].max() >= s.score_threshold:
            clusters.append(cluster)
            poses.append(pose)
    return clusters, poses


@given(
    seed=st.integers(0, 10**6), n=st.integers(0, 9), copies=st.integers(0, 3), noise=st.sampled_from([0.3, 3.0, 9.0])
)
@settings(max_examples=60, deadline=None)
def test_equals_the_formula_word_for_word(seed: int, n: int, copies: int, noise: float) -> None:
    people = random_people(seed, n)
    r = np.random.default_rng(seed + 1)
    rows = np.tile(np.arange(n), copies + 1)
    moved = people[rows].keypoints + r.normal(0, noise, (len(rows), 17, 2))
    crowd = People(people.boxes[rows], people.box_scores[rows], moved, r.random((len(rows), 17)), np.zeros(len(rows)))
    found, clusters = pose_nms(crowd)
    expected_clusters, poses = slow_pose_nms(crowd, PoseNMS())
    assert clusters == expected_clusters
    if poses:
        np.testing.assert_allclose(found.keypoints, np.array(poses)[:, :, :2], atol=1e-3)
        np.testing.assert_allclose(found.keypoint_scores, np.array(poses)[:, :, 2], atol=1e-5)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_order_of_the_input_does_not_matter(seed: int, n: int) -> None:
    people = random_people(seed, n, crowd=60)
    order = np.random.default_rng(seed).permutation(n)
    found, clusters = pose_nms(people)
    again, again_clusters = pose_nms(people[order])
    np.testing.assert_allclose(again.keypoints, found.keypoints, atol=1e-3)
    assert [sorted(int(order[i]) for i in c) for c in again_clusters] == clusters


@pytest.mark.parametrize("k", [6, 16, 17, 21, 26, 68, 133, 136])
@pytest.mark.parametrize("n", [1, 2, 7, 60])
@pytest.mark.parametrize("score", [0.31, 1.0])
def test_copies_of_one_pose_leave_one_person(k: int, n: int, score: float) -> None:
    one = random_people(3, 1, k)
    copies = one[np.zeros(n, int)]
    copies = People(copies.boxes, copies.box_scores, copies.keypoints, np.full((n, k), score), np.zeros(n))
    found, clusters = pose_nms(copies)
    assert clusters == [list(range(n))]
    np.testing.assert_allclose(found.keypoints[0], one.keypoints[0], atol=1e-3)


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.floats(-1e6, 1e6, width=32), min_size=n * 56, max_size=n * 56).map(
            lambda v: np.array(v, np.float32).reshape(n, 56)
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_never_nan_and_never_more_people(values: np.ndarray) -> None:
    people = People(
        values[:, :4],
        np.abs(values[:, 4]) % 1,
        values[:, 5:39].reshape(-1, 17, 2),
        np.abs(values[:, 39:56]) % 1,
        np.zeros(len(values)),
    )
    found, clusters = pose_nms(people)
    assert len(found) == len(clusters) <= len(people)
    assert np.isfinite(found.keypoints).all()
    assert np.isfinite(found.pose_scores).all()
    members = [i for cluster in clusters for i in cluster]
    assert len(members) == len(set(members))


def test_nobody_stays_nobody() -> None:
    found, clusters = pose_nms(People.empty(17))
    assert len(found) == 0
    assert clusters == []


def test_a_person_without_a_clear_joint_is_dropped() -> None:
    people = random_people(0, 1)
    faint = People(people.boxes, people.box_scores, people.keypoints, people.keypoint_scores * 0.29, np.zeros(1))
    assert len(pose_nms(faint)[0]) == 0


def test_small_people_are_dropped_where_asked() -> None:
    people = random_people(0, 1)
    span = people.keypoints[0].max(0) - people.keypoints[0].min(0)
    area = 2.25 * float(span.prod())
    assert len(pose_nms(people, PoseNMS(area_threshold=area * 0.99))[0]) == 1
    assert len(pose_nms(people, PoseNMS(area_threshold=area * 1.01))[0]) == 0


def test_none_keeps_everyone_and_scores_them() -> None:
    people = random_people(0, 5)
    found, clusters = pose_nms(people, PoseNMS(kind="none"))
    assert clusters == [[0], [1], [2], [3], [4]]
    scores = people.keypoint_scores
    expected = scores.mean(1) + people.box_scores + 1.25 * scores.max(1)
    np.testing.assert_allclose(found.pose_scores, expected, rtol=1e-6)
    assert pose_score(np.zeros((0, 17)), np.zeros(0)).shape == (0,)
