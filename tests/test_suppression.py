import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import SHARED, needs_reference

from pipeline.people import People
from pipeline.skeletons import SKELETONS
from pipeline.suppression import PoseNMS, pose_nms, pose_score

SIGMAS = SKELETONS["coco17"].oks_sigmas
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
    merged, clusters = pose_nms(
        People(boxes, scores, z[f"{name}.poses"], z[f"{name}.scores"][..., 0], np.zeros(len(boxes)))
    )
    assert clusters == expected["clusters"]
    np.testing.assert_array_equal(merged.boxes, z[f"{name}.out_boxes"])
    np.testing.assert_array_equal(merged.box_scores, z[f"{name}.out_box_scores"])
    np.testing.assert_allclose(merged.keypoints, z[f"{name}.out_poses"], atol=2e-4)
    np.testing.assert_allclose(merged.keypoint_scores, z[f"{name}.out_scores"][..., 0], atol=1e-6)
    np.testing.assert_allclose(merged.pose_scores, z[f"{name}.out_proposal"], atol=1e-6)


@dataclass(frozen=True)
class Published:
    """The published constants, independent of the package."""

    delta1: float = 1.0
    mu: float = 1.7
    delta2: float = 2.65
    gamma: float = 22.48
    score_threshold: float = 0.3
    match_threshold: float = 5
    alpha: float = 0.1


REGRESSION = Published(mu=1.65, delta2=8, gamma=3.6, score_threshold=0.01, match_threshold=3, alpha=0.15)


def slow_pose_nms(people: People, s: Published) -> tuple[list[list[int]], list[np.ndarray]]:
    """A second implementation of the formula, one joint at a time."""
    remaining = list(range(len(people)))
    score = np.where(people.keypoint_scores == 0, 1e-5, people.keypoint_scores).astype(float)
    xy = people.keypoints.astype(float)
    clusters, poses = [], []
    while remaining:
        pick = max(remaining, key=lambda i: (people.keypoint_scores[i].astype(float).mean(), -i))
        x1, y1, x2, y2 = people.boxes[pick].astype(float)
        reference = s.alpha * max(x2 - x1, y2 - y1)
        cluster = []
        for i in remaining:
            similarity = matches = 0.0
            for j in range(people.num_joints):
                d = np.hypot(*(xy[pick, j] - xy[i, j]))
                if d <= 1:
                    similarity += np.tanh(score[pick, j] / s.delta1) * np.tanh(score[i, j] / s.delta1)
                similarity += s.mu * np.exp(-d / s.delta2)
                matches += d <= min(reference, 7)
            if i == pick or similarity > s.gamma or matches >= s.match_threshold:
                cluster.append(i)
        remaining = [i for i in remaining if i not in cluster]
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
def test_pose_nms_equals_the_slow_implementation(seed: int, n: int, copies: int, noise: float) -> None:
    people = random_people(seed, n)
    r = np.random.default_rng(seed + 1)
    rows = np.tile(np.arange(n), copies + 1)
    moved = people[rows].keypoints + r.normal(0, noise, (len(rows), 17, 2))
    crowd = People(people.boxes[rows], people.box_scores[rows], moved, r.random((len(rows), 17)), np.zeros(len(rows)))
    merged, clusters = pose_nms(crowd)
    expected_clusters, poses = slow_pose_nms(crowd, Published())
    assert clusters == expected_clusters
    if poses:
        np.testing.assert_allclose(merged.keypoints, np.array(poses)[:, :, :2], atol=1e-3)
        np.testing.assert_allclose(merged.keypoint_scores, np.array(poses)[:, :, 2], atol=1e-5)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_the_order_of_candidates_does_not_matter(seed: int, n: int) -> None:
    people = random_people(seed, n, crowd=60)
    order = np.random.default_rng(seed).permutation(n)
    merged, clusters = pose_nms(people)
    again, again_clusters = pose_nms(people[order])
    np.testing.assert_allclose(again.keypoints, merged.keypoints, atol=1e-3)
    assert [sorted(int(order[i]) for i in c) for c in again_clusters] == clusters


@pytest.mark.parametrize("k", [6, 16, 17, 21, 26, 68, 133, 136])
@pytest.mark.parametrize("n", [1, 2, 7, 60])
@pytest.mark.parametrize("score", [0.31, 1.0])
@pytest.mark.parametrize("head", ["heatmap", "regression"])
def test_copies_of_one_pose_leave_one_person(k: int, n: int, score: float, head: str) -> None:
    one = random_people(3, 1, k)
    copies = one[np.zeros(n, int)]
    copies = People(copies.boxes, copies.box_scores, copies.keypoints, np.full((n, k), score), np.zeros(n))
    merged, clusters = pose_nms(copies, PoseNMS(head=head))  # type: ignore[arg-type]
    assert clusters == [list(range(n))]
    np.testing.assert_allclose(merged.keypoints[0], one.keypoints[0], atol=1e-3)


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.floats(-1e6, 1e6, width=32), min_size=n * 56, max_size=n * 56).map(
            lambda v: np.array(v, np.float32).reshape(n, 56)
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_results_are_finite_and_not_more_than_candidates(values: np.ndarray) -> None:
    people = People(
        values[:, :4],
        np.abs(values[:, 4]) % 1,
        values[:, 5:39].reshape(-1, 17, 2),
        np.abs(values[:, 39:56]) % 1,
        np.zeros(len(values)),
    )
    merged, clusters = pose_nms(people)
    assert len(merged) == len(clusters) <= len(people)
    assert np.isfinite(merged.keypoints).all()
    assert np.isfinite(merged.pose_scores).all()
    members = [i for cluster in clusters for i in cluster]
    assert len(members) == len(set(members))


@pytest.mark.parametrize("kind", ["pose", "oks", "soft_oks", "box", "none"])
def test_no_candidates_give_no_people(kind: str) -> None:
    merged, clusters = pose_nms(People.empty(17), PoseNMS(kind=kind), SIGMAS)  # type: ignore[arg-type]
    assert len(merged) == 0
    assert clusters == []


def test_a_person_without_a_confident_joint_is_dropped() -> None:
    people = random_people(0, 1)
    faint = People(people.boxes, people.box_scores, people.keypoints, people.keypoint_scores * 0.29, np.zeros(1))
    assert len(pose_nms(faint)[0]) == 0


def test_people_below_the_area_threshold_are_dropped() -> None:
    people = random_people(0, 1)
    span = people.keypoints[0].max(0) - people.keypoints[0].min(0)
    area = 2.25 * float(span.prod())
    assert len(pose_nms(people, PoseNMS(area_threshold=area * 0.99))[0]) == 1
    assert len(pose_nms(people, PoseNMS(area_threshold=area * 1.01))[0]) == 0


def test_kind_none_keeps_and_scores_all_candidates() -> None:
    people = random_people(0, 5)
    merged, clusters = pose_nms(people, PoseNMS(kind="none"))
    assert clusters == [[0], [1], [2], [3], [4]]
    scores = people.keypoint_scores
    expected = scores.mean(1) + people.box_scores + 1.25 * scores.max(1)
    np.testing.assert_allclose(merged.pose_scores, expected, rtol=1e-6)
    assert pose_score(np.zeros((0, 17)), np.zeros(0)).shape == (0,)


def whole_body(k: int, distance: float) -> People:
    """Two people with the same pose, `distance` pixels apart."""
    one = random_people(5, 1, k)
    joints = np.concatenate([one.keypoints, one.keypoints + np.array([distance, 0])])
    return People(one.boxes[[0, 0]], np.ones(2), joints, np.full((2, k), 0.8), np.zeros(2))


def whole_body_similarity(k: int, distance: float, s: Published, total: float) -> tuple[float, float]:
    """Similarity and number of matches of two such people, group by group."""
    similarity = matches = 0.0
    for scale in (1, 1.9, 0.55):  # body, face, hands: all joints of a group are equally far apart
        d = distance * scale
        similarity += total * ((d <= 1) * np.tanh(0.8) ** 2 + s.mu * np.exp(-d / s.delta2))
        matches += total * (d <= 7)
    return similarity, matches


@pytest.mark.parametrize("k", [133, 136])
@pytest.mark.parametrize("distance", [0.0, 0.9, 1.5, 2.5, 3.5, 4.5, 6.0, 9.0, 14.0, 30.0])
@pytest.mark.parametrize(
    ("head", "published", "total"), [("heatmap", Published(), 17 / 3), ("regression", REGRESSION, 1)]
)
def test_whole_bodies_are_compared_by_group(
    k: int, distance: float, head: str, published: Published, total: float
) -> None:
    _, clusters = pose_nms(whole_body(k, distance), PoseNMS(head=head))  # type: ignore[arg-type]
    similarity, matches = whole_body_similarity(k, distance, published, total)
    copies = similarity > published.gamma or matches >= published.match_threshold - 1e-9
    assert len(clusters) == (1 if copies else 2)


def test_constants_in_settings_override_the_published_ones() -> None:
    people = whole_body(17, 6.0)
    assert len(pose_nms(people)[0]) == 1  # every joint matches within 7 pixels
    assert len(pose_nms(people, PoseNMS(alpha=0.001))[0]) == 2
    assert len(pose_nms(people, PoseNMS(alpha=0.001, gamma=2.0))[0]) == 1


def test_shift_moves_all_joints() -> None:
    people = random_people(1, 3)
    plain, _ = pose_nms(people)
    moved, _ = pose_nms(people, PoseNMS(shift=-0.3))
    np.testing.assert_allclose(moved.keypoints, plain.keypoints - 0.3, atol=1e-4)
    np.testing.assert_array_equal(moved.pose_scores, plain.pose_scores)


def two_and_a_copy() -> People:
    """Person 0, a worse copy of it as person 1, and person 2 elsewhere."""
    people = random_people(2, 2, crowd=3000)
    joints = people.keypoints[[0, 0, 1]] + np.array([0, 1.0, 0])[:, None, None]
    scores = np.stack([np.full(17, 0.9), np.full(17, 0.6), np.full(17, 0.8)])
    boxes = people.boxes[[0, 0, 1]] + np.array([0, 1.0, 0])[:, None]
    return People(boxes, np.array([0.9, 0.8, 0.7]), joints, scores, np.zeros(3))


@pytest.mark.parametrize("kind", ["oks", "box"])
def test_oks_and_box_nms_keep_the_best_of_similar_candidates(kind: str) -> None:
    people = two_and_a_copy()
    merged, clusters = pose_nms(people, PoseNMS(kind=kind), SIGMAS)  # type: ignore[arg-type]
    assert clusters == [[0, 1], [2]]
    np.testing.assert_array_equal(merged.keypoints, people.keypoints[[0, 2]])
    expected = pose_score(people.keypoint_scores, people.box_scores)[[0, 2]]
    np.testing.assert_allclose(merged.pose_scores, expected)


def test_soft_oks_nms_lowers_the_scores_of_similar_candidates() -> None:
    people = two_and_a_copy()
    merged, clusters = pose_nms(people, PoseNMS(kind="soft_oks"), SIGMAS)
    before = pose_score(people.keypoint_scores, people.box_scores)
    assert clusters == [[0], [2], [1]]
    np.testing.assert_allclose(merged.pose_scores[:2], before[[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(merged.pose_scores[2], before[1] * np.exp(-1 / 0.9), rtol=0.02)
    assert len(pose_nms(people, PoseNMS(kind="soft_oks", score_threshold=1.0), SIGMAS)[0]) == 2


@pytest.mark.parametrize("kind", ["oks", "soft_oks"])
def test_oks_kinds_need_sigmas(kind: str) -> None:
    with pytest.raises(ValueError, match=f"--suppression.kind {kind} needs the OKS sigmas"):
        pose_nms(random_people(0, 2), PoseNMS(kind=kind))  # type: ignore[arg-type]


def test_oks_equals_the_definition_of_cocoeval() -> None:
    """Two poses in boxes of the same area, compared over all joints."""
    people = random_people(4, 2)
    people = People(people.boxes[[0, 0]], *(getattr(people, n) for n in list(People.__dataclass_fields__)[1:]))
    (x1, y1, x2, y2), a, b = people.boxes[0].astype(float), people.keypoints[0], people.keypoints[1]
    oks = np.mean(
        [
            np.exp(-((a[j, 0] - b[j, 0]) ** 2 + (a[j, 1] - b[j, 1]) ** 2) / (2 * (x2 - x1) * (y2 - y1) * (2 * s) ** 2))
            for j, s in enumerate(SIGMAS)
        ]
    )
    for threshold, expected in ((oks * 0.999, 1), (oks * 1.001, 2)):
        assert len(pose_nms(people, PoseNMS(kind="oks", oks_threshold=float(threshold)), SIGMAS)[0]) == expected


@given(seed=st.integers(0, 10**6), n=st.integers(2, 10), kind=st.sampled_from(["oks", "box"]))
@settings(max_examples=30, deadline=None)
def test_oks_and_box_nms_do_not_depend_on_the_order(seed: int, n: int, kind: str) -> None:
    people = random_people(seed, n, crowd=60)
    order = np.random.default_rng(seed).permutation(n)
    choice = PoseNMS(kind=kind, oks_threshold=0.1, box_iou=0.2)  # type: ignore[arg-type]
    _, clusters = pose_nms(people, choice, SIGMAS)
    _, again = pose_nms(people[order], choice, SIGMAS)
    assert [sorted(int(order[i]) for i in c) for c in again] == clusters


def test_negative_scores_do_not_distort_a_merge() -> None:
    one = random_people(7, 1)
    joints = np.concatenate([one.keypoints, one.keypoints + 2])
    scores = np.array([[0.5] * 16 + [0.1], [0.4] * 16 + [-0.1]])
    merged, clusters = pose_nms(People(one.boxes[[0, 0]], np.ones(2), joints, scores, np.zeros(2)))
    assert clusters == [[0, 1]]
    np.testing.assert_allclose(merged.keypoints[0, 16], joints[0, 16], atol=0.01)
    np.testing.assert_allclose(merged.keypoint_scores[0, 16], 0.1, atol=1e-3)


def test_other_formulas_for_scores_of_people() -> None:
    joints = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2]], np.float32)
    boxes = np.array([0.5, 0.8], np.float32)

    def of(**settings) -> list[float]:
        return pose_score(joints, boxes, PoseNMS(**settings)).tolist()

    assert of() == pytest.approx([0.5 + 0.5 + 1.25 * 0.9, 0.2 + 0.8 + 1.25 * 0.2])
    assert of(score="mean") == pytest.approx([0.5, 0.2])
    assert of(score="product") == pytest.approx([0.25, 0.16])
    assert of(score="box") == pytest.approx([0.5, 0.8])
    assert of(score="mean", keypoint_threshold=0.4) == pytest.approx([0.7, 0])


@pytest.mark.parametrize("kind", ["pose", "oks", "box", "none"])
def test_max_people_keeps_the_best(kind: str) -> None:
    people = random_people(3, 12, crowd=3000)
    everyone, rows = pose_nms(people, PoseNMS(kind=kind), SIGMAS)  # type: ignore[arg-type]
    best, best_rows = pose_nms(people, PoseNMS(kind=kind, max_people=4), SIGMAS)  # type: ignore[arg-type]
    assert sorted(best.pose_scores, reverse=True) == sorted(everyone.pose_scores, reverse=True)[:4]
    assert [row for row in rows if row in best_rows] == best_rows
    assert len(pose_nms(people, PoseNMS(kind=kind, max_people=50), SIGMAS)[0]) == len(everyone)  # type: ignore[arg-type]
