import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import SHARED, needs_reference

from pipeline.people import People
from pipeline.skeletons import SKELETONS
from pipeline.suppression import (
    _HEATMAP,
    _REGRESSION,
    PoseNMS,
    _compare_whole_bodies,
    pose_nms,
    pose_score,
    unused_settings,
)

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


_WHOLE_BODIES = SHARED / "reference" / "pose_nms_wholebody.npz"
needs_whole_bodies = pytest.mark.skipif(not _WHOLE_BODIES.is_file(), reason="needs the vectors of ../shared/reference")


def whole_body_scenes() -> dict[str, dict]:
    listed = json.loads(_WHOLE_BODIES.with_suffix(".json").read_text()) if _WHOLE_BODIES.is_file() else []
    return {scene["name"]: scene for scene in listed}


def scene_people(name: str) -> People:
    z = np.load(_WHOLE_BODIES)
    scores = z[f"{name}.box_scores"].reshape(-1)
    return People(z[f"{name}.boxes"], scores, z[f"{name}.poses"], z[f"{name}.scores"][..., 0], np.zeros(len(scores)))


def scene_clusters(name: str) -> list[list[int]]:
    def flat(value: object) -> list[int]:
        return [i for item in value for i in flat(item)] if isinstance(value, list) else [int(value)]  # type: ignore[call-overload]

    return [sorted(flat(cluster)) for cluster in whole_body_scenes()[name]["ids"]]


@needs_whole_bodies
@pytest.mark.parametrize("name", whole_body_scenes())
def test_the_terms_for_whole_bodies_give_the_reference_clusters(name: str) -> None:
    """With the published count of matches, which depends on the number of remaining poses N: 4 n N instead of 8 n."""
    people = scene_people(name)
    constants = _HEATMAP if whole_body_scenes()[name]["use_heatmap_loss"] else _REGRESSION
    joints, scores = people.keypoints.astype(float), np.maximum(people.keypoint_scores.astype(float), 1e-5)
    limit = np.minimum(constants.alpha * (people.boxes[:, 2:] - people.boxes[:, :2]).max(axis=1), 7.0)
    remaining, clusters = list(range(len(people))), []
    while remaining:
        pick = max(remaining, key=lambda i: (people.keypoint_scores[i].mean(), -i))
        distances = np.linalg.norm(joints[remaining] - joints[pick], axis=-1)[None]
        similarity, matches = _compare_whole_bodies(
            distances, scores[[pick]], scores[remaining], limit[[pick]], constants
        )
        copies = (similarity > constants.gamma) | (matches * 8 / (4 * len(remaining)) >= constants.match_threshold)
        cluster = [i for i, copy in zip(remaining, copies[0], strict=True) if copy or i == pick]
        remaining = [i for i in remaining if i not in cluster]
        if scores[pick].max() >= constants.score_threshold:
            clusters.append(cluster)
    assert clusters == scene_clusters(name)


@needs_whole_bodies
@pytest.mark.parametrize("name", whole_body_scenes())
def test_no_copies_of_whole_bodies_are_left(name: str) -> None:
    scene = whole_body_scenes()[name]
    people = scene_people(name)
    merged, clusters = pose_nms(people, PoseNMS(head="heatmap" if scene["use_heatmap_loss"] else "regression"))
    between = np.linalg.norm(merged.keypoints[:, None] - merged.keypoints[None], axis=-1).mean(axis=-1)
    assert (between + 1e9 * np.eye(len(merged)) > 8).all()
    assert len(merged) <= scene["n_out"]
    if clusters == scene_clusters(name):
        z = np.load(_WHOLE_BODIES)
        np.testing.assert_allclose(merged.keypoints, z[f"{name}.out_poses"], atol=2e-4)
        np.testing.assert_allclose(merged.keypoint_scores, z[f"{name}.out_scores"][..., 0], atol=1e-6)
        np.testing.assert_allclose(merged.pose_scores, z[f"{name}.out_proposal"].reshape(-1), atol=1e-5)
    else:
        assert name in ("k133_hm_02", "k136_hm_04", "k136_reg_04", "k136_reg_06", "k136_reg_12", "k136_reg_14")


@pytest.mark.parametrize("k", [133, 136])
@pytest.mark.parametrize("head", ["heatmap", "regression"])
def test_candidates_of_one_person_with_one_joint_off_are_one_person(k: int, head: str) -> None:
    people = whole_body(k, 3.0)
    joints = people.keypoints.copy()
    joints[1, 16] += 60  # an ankle
    people = People(people.boxes, people.box_scores, joints, people.keypoint_scores, np.zeros(2))
    assert len(pose_nms(people, PoseNMS(head=head))[0]) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [133, 136])
@pytest.mark.parametrize(
    ("group", "distance", "people"),
    [
        # In a box of 100 pixels or more a joint of the body matches within 7 pixels, of the face within 13.3, of the
        # hands within 3.85. One eighth of the joints that match must be at least 5: 40 joints.
        ("face", 13.0, 1),
        ("face", 13.6, 2),
        ("hands", 3.8, 1),
        ("hands", 3.9, 2),
        ("body", 0.0, 2),  # 23 or 26 joints
        ("body and face", 6.9, 1),
        ("body and hands", 6.9, 2),
    ],
)
def test_the_face_may_be_farther_away_and_the_hands_less(k: int, group: str, distance: float, people: int) -> None:
    groups = {"body": range(k - 110), "face": range(k - 110, k - 42), "hands": range(k - 42, k)}
    candidates = whole_body(k, 300.0)
    joints = candidates.keypoints.copy()
    for name in group.split(" and "):
        joints[1, groups[name]] = joints[0, groups[name]] + np.array([distance, 0])
    box = np.array([[0, 0, 120, 200.0]] * 2)
    pair = People(box, candidates.box_scores, joints, candidates.keypoint_scores, np.zeros(2))
    assert len(pose_nms(pair)[0]) == people


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


def test_every_setting_is_used_by_a_kind() -> None:
    kinds = ("pose", "oks", "soft_oks", "box", "none")
    unused = [set(unused_settings(PoseNMS(kind=kind, **_CHANGED))) for kind in kinds]  # type: ignore[arg-type]
    assert set.intersection(*unused[:-1]) == set()
    assert unused_settings(PoseNMS(kind="none", max_people=3, score="box")) == []


_CHANGED = {
    "head": "regression", "delta1": 2.0, "mu": 2.0, "delta2": 2.0, "gamma": 2.0, "match_threshold": 2.0, "alpha": 0.2,
    "score_threshold": 0.1, "area_threshold": 1.0, "shift": 1.0, "oks_threshold": 0.5, "box_iou": 0.5,
    "score": "box", "keypoint_threshold": 0.1, "max_people": 9,
}  # fmt: skip
