"""Error analysis: the errors of joints and people, and the AP gained by repairing each kind of error.

Ronchi and Perona, Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation, ICCV 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from pipeline.coco.columns import GroundTruth
from pipeline.evaluation.curves import accumulate
from pipeline.evaluation.eval_images import EvalImage, EvalImages
from pipeline.evaluation.matching import (
    KEYPOINT_RULES,
    Matches,
    box_similarity,
    join,
    keypoint_similarity,
    match,
    subsets_by_area,
)
from pipeline.evaluation.operating_point import OperatingPoint
from pipeline.evaluation.pck import Pck, has_torso, pck, torso_lengths
from pipeline.skeletons import Skeleton

MIN_SIMILARITY = 0.1  # OKS from which a detection is taken to be an annotated person
MIN_INSIDE = 0.5  # share of a detection's box inside a crowd, or a person without labelled joints, to belong to it
GOOD, NEAR = 0.85, 0.5  # similarity of a single joint
JOINT_ERRORS = ("miss", "swap", "inversion", "jitter")
PERSON_ERRORS = ("score", "background", "missed")  # the paper: scoring, background false positives, false negatives
ERRORS = (*JOINT_ERRORS, *PERSON_ERRORS)  # in the order in which they are repaired cumulatively

_GOOD, _UNKNOWN = -1, -2
_ALL_SIZES = KEYPOINT_RULES._replace(areas={"all": KEYPOINT_RULES.areas["all"]})
# The evaluated repairs: none, each error alone, then cumulatively.
REPAIRS: tuple[tuple[str, ...], ...] = (
    (),
    *((kind,) for kind in ERRORS),
    *(ERRORS[: n + 1] for n in range(1, len(ERRORS))),
)
SCORE_STEPS = np.linspace(0, 1, 21)  # bins of joint scores, for their calibration


@dataclass(frozen=True)
class ErrorAnalysis:
    """The errors of a run, and what they cost.

    Attributes:
        joints: for `good` and each joint error, (K,) number of labelled joints of matched people.
        ap: average precision without repair.
        alone: average precision if one kind of error alone were repaired.
        cumulative: average precision after repairing this kind and all before it in `ERRORS`; the last is 1.
        background: number of false positives: detections that match no annotated person, and are not mostly inside the
            box of a crowd or of a person without labelled joints.
        missed: number of annotated people without a detection.
        pck: by allowed distance: a tenth of the box's longer side, half the head segment, a fifth of the torso; joints
            of missed people count as wrong.
        calibration: (20, 3) number of joints of matched people by bins of their scores in `SCORE_STEPS`: near their
            true place (good or jitter), elsewhere, not labelled.
        images: one value per image, by name of the column.
        found: (G,) bool, of the annotated people of all images, those that a detection matches.
        false_positives_xywh: (F, 4) boxes around the joints of false positives, image after image.
    """

    joints: Mapping[str, np.ndarray]
    ap: float
    alone: Mapping[str, float]
    cumulative: Mapping[str, float]
    background: int
    missed: int
    pck: Mapping[str, Pck]
    calibration: np.ndarray
    images: Mapping[str, np.ndarray]
    found: np.ndarray
    false_positives_xywh: np.ndarray

    @property
    def people(self) -> OperatingPoint:
        """The people found and the false positives of each image."""
        annotated, missed, wrong, detected = (
            self.images[name].astype(int) for name in ("annotated", "missed", "background", "detected")
        )
        found = annotated - missed
        return OperatingPoint(annotated, found, wrong, detected - found - wrong)

    @property
    def shares(self) -> dict[str, float]:
        """The share of good joints and of each joint error, of all labelled joints of matched people; the sum is 1."""
        total = sum(int(counts.sum()) for counts in self.joints.values())
        return {kind: float(counts.sum()) / total if total else 0.0 for kind, counts in self.joints.items()}

    def lines(self) -> list[str]:
        """Lines of text for a terminal."""
        shares = ", ".join(f"{kind} {share:.1%}" for kind, share in self.shares.items())
        alone = ", ".join(f"{kind} {ap - self.ap:+.3f}" for kind, ap in self.alone.items())
        cumulative = ", ".join(f"{kind} {ap:.3f}" for kind, ap in self.cumulative.items())
        return [
            f"joints of matched people: {shares}",
            f"false positives {self.background}, missed people {self.missed}",
            f"AP gained by repairing one kind of error alone: {alone}",
            f"AP after repairing one kind after another: {cumulative}",
            *(f"PCK below the head, {length}: {p.body:.3f} of {p.people} people" for length, p in self.pck.items()),
        ]

    def to_json(self, skeleton: Skeleton) -> dict[str, Any]:
        """As plain values, joints by name."""
        joints = {
            kind: dict(zip(skeleton.joints, counts.tolist(), strict=True)) for kind, counts in self.joints.items()
        }
        scalars = {name: getattr(self, name) for name in ("shares", "ap", "alone", "background", "missed")}
        correct = {
            length: {
                "body": _or_none(p.body),
                "people": p.people,
                "joints": {j: _or_none(v) for j, v in p.joints.items()},
            }
            for length, p in self.pck.items()
        }
        steps = {"steps": SCORE_STEPS.round(2).tolist(), "near_elsewhere_unlabelled": self.calibration.tolist()}
        return {"joints": joints, **scalars, "cumulative": self.cumulative, "pck": correct, "calibration": steps}


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


class Diagnosis(NamedTuple):
    """The outcome for each of the D detections in an image.

    Attributes:
        person: (D,) row of the matched annotated person, -1 without one.
        errors: (D, K) index into `JOINT_ERRORS`, -1 for a good joint, -2 for an unlabelled one or without a person.
        similarity: (D,) OKS with that person, 0 without one.
        false_positive: (D,) bool; detections of ignored people match no person either, but are not false positives.
    """

    person: np.ndarray
    errors: np.ndarray
    similarity: np.ndarray
    false_positive: np.ndarray


class ErrorCounts(NamedTuple):
    """The counts behind an `ErrorAnalysis`, of some images; counts of chunks of images join in their order.

    Attributes:
        matches: for each of `REPAIRS`.
        joints: (5, K) the errors in the order of `JOINT_ERRORS`, then good joints.
    """

    matches: tuple[Matches, ...]
    joints: np.ndarray
    pck: Mapping[str, Pck]
    calibration: np.ndarray
    images: Mapping[str, np.ndarray]
    found: np.ndarray
    false_positives_xywh: np.ndarray


def count_errors(images: EvalImages, skeleton: Skeleton) -> ErrorCounts:
    """Diagnose images, and match them again after each of the repairs."""
    sigmas = np.array(skeleton.oks_sigmas)
    matches: list[list[Matches]] = [[] for _ in REPAIRS]
    joints = np.zeros((len(JOINT_ERRORS) + 1, len(skeleton)), int)
    calibration = np.zeros((len(SCORE_STEPS) - 1, 3), int)
    poses = np.full((len(images.ground_truth.areas), len(skeleton), 2), np.inf)
    found = np.zeros(len(images.ground_truth.areas), bool)
    false_positives = [np.zeros((0, 4))]
    rows = []
    for start, image in zip(images.truth_starts, images, strict=False):
        diagnosis = diagnose(image, skeleton)
        for kind in range(_GOOD, len(JOINT_ERRORS)):
            joints[kind] += (diagnosis.errors == kind).sum(axis=0)
        present = _kinds_present(image, diagnosis)
        done: dict[tuple[str, ...], Matches] = {}  # repairs of absent errors change nothing: match once for all
        for wanted, matched in zip(REPAIRS, matches, strict=True):
            kinds = tuple(kind for kind in wanted if kind in present)
            if kinds not in done:
                done[kinds] = match_all_sizes(repaired(image, diagnosis, kinds), sigmas)
            matched.append(done[kinds])
        is_matched = diagnosis.person >= 0
        poses[start + diagnosis.person[is_matched]] = image.detections.keypoints[is_matched]
        found[start + diagnosis.person[is_matched]] = True
        false_positives.append(image.detections.boxes_xywh[diagnosis.false_positive])
        calibration += _calibration(image.detections.keypoint_scores[is_matched], diagnosis.errors[is_matched])
        rows.append(_image_row(image, diagnosis))
    columns = {"image_id": images.ids, **dict(zip(_IMAGE_COLUMNS, np.array(rows).T, strict=True))}
    correct = _pck(images.ground_truth, poses, skeleton)
    return ErrorCounts(
        tuple(map(join, matches)), joints, correct, calibration, columns, found, np.concatenate(false_positives)
    )


def count_people(images: EvalImages, skeleton: Skeleton, kept: np.ndarray | None = None) -> list[OperatingPoint]:
    """The people found and the false positives of each image, without the errors of joints.

    Args:
        kept: (T, D) bool, the detections to count for each of T wanted results, of each image at most as many as COCO
            counts; by default all, for one result.
    """
    sigmas = np.array(skeleton.oks_sigmas)
    masks = np.ones((1, len(images.detections.scores)), bool) if kept is None else kept
    counts = np.zeros((len(masks), len(images), 4), int)
    for i, image in enumerate(images):
        similarity, inside = keypoint_similarity(*image, sigmas), _inside_ignored(image)
        annotated = int((~image.ground_truth.ignored).sum())
        for t, mask in enumerate(masks[:, images.detection_starts[i] : images.detection_starts[i + 1]]):
            chosen = np.flatnonzero(mask)[: KEYPOINT_RULES.max_detections]
            person, _ = _match_people(similarity[chosen], image.ground_truth.ignored)
            found = int((person >= 0).sum())
            wrong = int(((person < 0) & ~inside[chosen]).sum())
            counts[t, i] = annotated, found, wrong, len(chosen) - found - wrong
    return [OperatingPoint(*columns.T) for columns in counts]


def join_errors(parts: Sequence[ErrorCounts]) -> ErrorCounts:
    """The counts of several chunks of images, in their order."""
    return ErrorCounts(
        tuple(join(matches) for matches in zip(*(part.matches for part in parts), strict=True)),
        np.sum([part.joints for part in parts], axis=0),
        {length: reduce(add, (part.pck[length] for part in parts)) for length in parts[0].pck},
        np.sum([part.calibration for part in parts], axis=0),
        {name: np.concatenate([part.images[name] for part in parts]) for name in parts[0].images},
        np.concatenate([part.found for part in parts]),
        np.concatenate([part.false_positives_xywh for part in parts]),
    )


def analyse(counts: ErrorCounts) -> ErrorAnalysis:
    """The analysis of the joined counts of all images."""
    ap = {kinds: _average_precision(matches) for kinds, matches in zip(REPAIRS, counts.matches, strict=True)}
    if ap[()] >= 0:
        # If all people are missed, repairing that ignores all people: AP is undefined, and no error is left.
        ap = {kinds: 1.0 if value < 0 else value for kinds, value in ap.items()}
    return ErrorAnalysis(
        joints={"good": counts.joints[_GOOD], **{kind: counts.joints[i] for i, kind in enumerate(JOINT_ERRORS)}},
        ap=ap[()],
        alone={kind: ap[(kind,)] for kind in ERRORS},
        cumulative={kind: ap[ERRORS[: n + 1]] for n, kind in enumerate(ERRORS)},
        background=int(counts.images["background"].sum()),
        missed=int(counts.images["missed"].sum()),
        pck={length: correct for length, correct in counts.pck.items() if correct.people},
        calibration=counts.calibration,
        images=counts.images,
        found=counts.found,
        false_positives_xywh=counts.false_positives_xywh,
    )


def _kinds_present(image: EvalImage, diagnosis: Diagnosis) -> set[str]:
    """The kinds of error that the image has."""
    kinds = {kind for index, kind in enumerate(JOINT_ERRORS) if (diagnosis.errors == index).any()}
    num_matched = int((diagnosis.person >= 0).sum())
    if num_matched:
        kinds |= {"jitter", "score"}  # good joints are slightly off, too
    if diagnosis.false_positive.any():
        kinds |= {"score", "background"}
    if num_matched < (~image.ground_truth.ignored).sum():
        kinds.add("missed")
    return kinds


_IMAGE_COLUMNS = ("annotated", "detected", "missed", "background", "similarity", *JOINT_ERRORS)


def _image_row(image: EvalImage, diagnosis: Diagnosis) -> tuple[float, ...]:
    """The values of `_IMAGE_COLUMNS`: numbers of people annotated, detected, missed, false positives; mean OKS of
    matched people (NaN without any); numbers of wrong joints by kind."""
    is_matched = diagnosis.person >= 0
    people, num_matched = int((~image.ground_truth.ignored).sum()), int(is_matched.sum())
    similarity = float(diagnosis.similarity[is_matched].mean()) if is_matched.any() else float("nan")
    wrong = [int((diagnosis.errors == kind).sum()) for kind in range(len(JOINT_ERRORS))]
    false_positives = int(diagnosis.false_positive.sum())
    return (people, len(is_matched), people - num_matched, false_positives, similarity, *wrong)


def _calibration(scores: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """(20, 3) as `ErrorAnalysis.calibration`, of joints (D, K)."""
    near = (errors == _GOOD) | (errors == JOINT_ERRORS.index("jitter"))
    unlabelled = errors == _UNKNOWN
    clipped = np.clip(scores, 0, 1)
    kinds = (near, ~near & ~unlabelled, unlabelled)
    return np.stack([np.histogram(clipped[kind], SCORE_STEPS)[0] for kind in kinds], axis=1)


def _pck(truth: GroundTruth, poses: np.ndarray, skeleton: Skeleton) -> dict[str, Pck]:
    counts = ~truth.ignored
    joints, poses = truth.keypoints[counts], poses[counts]
    places, labelled = joints[..., :2], joints[..., 2] > 0
    box, heads = truth.boxes_xywh[counts, 2:].max(axis=1), truth.head_lengths[counts]
    results = {
        "a tenth of the box": pck(poses, places, labelled, box, skeleton),
        "half the head segment": pck(poses, places, labelled, heads, skeleton, 0.5, min_joints=1, min_length_px=0),
    }
    if has_torso(skeleton):
        torso = torso_lengths(places, labelled, skeleton)
        results["a fifth of the torso"] = pck(poses, places, labelled, torso, skeleton, 0.2, min_length_px=0)
    return results


def diagnose(image: EvalImage, skeleton: Skeleton) -> Diagnosis:
    """Match the detections of an image at a low OKS, and classify the errors of their joints.

    In order of descending score, each detection is matched to the most similar person that is free and not ignored.
    """
    truth, detections = image
    sigmas = np.array(skeleton.oks_sigmas)
    person, matched_similarity = _match_people(keypoint_similarity(*image, sigmas), truth.ignored)
    errors = np.full((len(person), len(skeleton)), _UNKNOWN)
    for row in np.flatnonzero(person >= 0):
        errors[row] = _joint_errors(detections.keypoints[row], truth, int(person[row]), sigmas, skeleton.mirror)
    return Diagnosis(person, errors, matched_similarity, (person < 0) & ~_inside_ignored(image))


def _match_people(similarity: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`person` and `similarity` of `Diagnosis`.

    Args:
        similarity: (D, G) OKS.
        ignored: (G,) of the ground truth.
    """
    person, matched_similarity = np.full(len(similarity), -1), np.zeros(len(similarity))
    free = ~ignored
    for d, similar in enumerate(similarity):
        able = np.where(free, similar, 0.0)
        if able.size and able.max() >= MIN_SIMILARITY:
            person[d] = able.argmax()
            matched_similarity[d] = able.max()
            free[person[d]] = False
    return person, matched_similarity


def _inside_ignored(image: EvalImage) -> np.ndarray:
    """(D,) bool, detections mostly inside the box of a crowd or of another ignored person."""
    ignored = image.ground_truth.rows(np.flatnonzero(image.ground_truth.ignored))
    # As for crowds, the area that counts is the detection's: such people are often annotated loosely.
    shares = box_similarity(ignored._replace(crowd=np.ones(len(ignored.areas), bool)), image.detections)
    return np.asarray((shares >= MIN_INSIDE).any(axis=1))


def _joint_errors(
    keypoints: np.ndarray, truth: GroundTruth, person: int, sigmas: np.ndarray, mirror: Sequence[int]
) -> np.ndarray:
    """(K,) as in `Diagnosis.errors`.

    A joint that is not near its own place is an inversion if it is near the place of its mirror joint, a swap if it is
    near one of these two joints of another person (the nearest of all places decides), and else a miss.
    """
    joints = truth.keypoints
    size = 2 * (truth.areas[person] + np.spacing(1)) * (2 * sigmas) ** 2

    def similarity_to(places: np.ndarray) -> np.ndarray:
        """(..., K) similarity to places (..., K, 3); 0 if these are not labelled."""
        squared = ((keypoints - places[..., :2]) ** 2).sum(axis=-1)
        return np.exp(-squared / size) * (places[..., 2] > 0)

    own, mirrored = similarity_to(joints[person]), similarity_to(joints[person][mirror])
    # A joint that is its own mirror joint, as the nose, cannot be inverted.
    mirrored[np.arange(len(sigmas)) == np.array(mirror)] = 0
    others = np.delete(joints, person, axis=0)
    swapped = np.concatenate([similarity_to(others), similarity_to(others[:, mirror]), np.zeros((1, len(sigmas)))]).max(
        axis=0
    )
    kinds = {name: index for index, name in enumerate(JOINT_ERRORS)}
    errors = np.full(len(sigmas), kinds["miss"])
    errors[(swapped >= NEAR) & (swapped > mirrored)] = kinds["swap"]
    errors[(mirrored >= NEAR) & (mirrored >= swapped)] = kinds["inversion"]
    errors[own >= NEAR] = kinds["jitter"]
    errors[own >= GOOD] = _GOOD
    errors[joints[person][:, 2] <= 0] = _UNKNOWN
    return errors


def repaired(image: EvalImage, diagnosis: Diagnosis, kinds: Sequence[str]) -> EvalImage:
    """The image without errors of these kinds.

    Wrong joints move to their true place (jitter also moves good ones, which are slightly off); scores become the OKS
    with the matched person; false positives are removed; missed people are ignored.
    """
    truth, detections = image
    keypoints, scores = detections.keypoints.copy(), detections.scores
    for index, kind in enumerate(JOINT_ERRORS):
        if kind in kinds:
            off = (diagnosis.errors == index) | ((diagnosis.errors == _GOOD) & (kind == "jitter"))
            rows, joints = np.nonzero(off)
            keypoints[rows, joints] = truth.keypoints[diagnosis.person[rows], joints, :2]
    if "score" in kinds:
        scores = diagnosis.similarity
    kept = np.flatnonzero(~diagnosis.false_positive) if "background" in kinds else np.arange(len(scores))
    order = kept[np.argsort(-scores[kept], kind="stable")]
    if "missed" in kinds:
        is_detected = np.zeros(len(truth.ignored), bool)
        is_detected[diagnosis.person[diagnosis.person >= 0]] = True
        truth = truth._replace(ignored=truth.ignored | ~is_detected)
    # The areas of detections stay unchanged: they do not matter, because people of all sizes count.
    return EvalImage(truth, detections._replace(scores=scores, keypoints=keypoints).rows(order))


def match_all_sizes(image: EvalImage, sigmas: np.ndarray) -> Matches:
    """Matches over people of any size."""
    truth, detections = image
    similarity = keypoint_similarity(truth, detections, sigmas)
    return match(truth.crowd, detections.scores, similarity, subsets_by_area(truth, detections, _ALL_SIZES))


def _average_precision(matches: Matches) -> float:
    curves = accumulate(matches, ["all"])
    return curves.mean(curves.precision, "all")
