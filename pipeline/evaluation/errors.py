"""Why people are missed: what is wrong with each joint and each person, and what repairing it would gain.

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

from pipeline.evaluation.curves import accumulate
from pipeline.evaluation.matching import (
    KEYPOINT_RULES,
    Annotated,
    Found,
    Matches,
    by_area,
    join,
    keypoint_similarity,
    match,
)
from pipeline.evaluation.pck import Pck, has_torso, pck, torso_lengths
from pipeline.evaluation.scenes import Scene, Scenes
from pipeline.skeletons import Skeleton

LEAST_SIMILARITY = 0.1  # from which somebody found is held to be somebody annotated
GOOD, NEAR = 0.85, 0.5  # similarity of a joint
JOINT_ERRORS = ("miss", "swap", "inversion", "jitter")
PERSON_ERRORS = ("score", "background", "missed")
REPAIRS = (*JOINT_ERRORS, *PERSON_ERRORS)  # in the order in which they are repaired one after another

_GOOD, _UNKNOWN = -1, -2
_ALL_SIZES = KEYPOINT_RULES._replace(areas={"all": KEYPOINT_RULES.areas["all"]})
# In the order in which they are evaluated: as it is, each repair alone, then one after another.
REPAIRED: tuple[tuple[str, ...], ...] = (
    (),
    *((kind,) for kind in REPAIRS),
    *(REPAIRS[: n + 1] for n in range(1, len(REPAIRS))),
)
SCORE_STEPS = np.linspace(0, 1, 21)  # of the scores of joints, for their calibration


@dataclass(frozen=True)
class ErrorAnalysis:
    """What is wrong, and what it costs.

    Attributes:
        joints: for `good` and each joint error, (K,) how many labelled joints of people who were found are so.
        ap: average precision as it is.
        alone: average precision if one kind of error alone were repaired.
        in_turn: average precision after repairing this kind and all before it in `REPAIRS`; the last is 1.
        background: how many were found who are nobody.
        missed: how many people were found by nobody.
        pck: by what a joint may be off: within a tenth of the box's longer side, half the head segment, a fifth of the
            torso; joints of people whom nobody found are wrong.
        calibration: (20, 3) of joints of people who were found, by steps of their scores in `SCORE_STEPS`: near their
            place (good or jitter), elsewhere, not labelled.
        images: what became of each image, by name of the column.
    """

    joints: Mapping[str, np.ndarray]
    ap: float
    alone: Mapping[str, float]
    in_turn: Mapping[str, float]
    background: int
    missed: int
    pck: Mapping[str, Pck]
    calibration: np.ndarray
    images: Mapping[str, np.ndarray]

    @property
    def shares(self) -> dict[str, float]:
        """Of all labelled joints of people who were found, how many are good, and wrong in which way; sum 1."""
        total = sum(int(counts.sum()) for counts in self.joints.values())
        return {kind: float(counts.sum()) / total if total else 0.0 for kind, counts in self.joints.items()}

    def lines(self) -> list[str]:
        """For a person to read."""
        shares = ", ".join(f"{kind} {share:.1%}" for kind, share in self.shares.items())
        alone = ", ".join(f"{kind} {ap - self.ap:+.3f}" for kind, ap in self.alone.items())
        turns = ", ".join(f"{kind} {ap:.3f}" for kind, ap in self.in_turn.items())
        return [
            f"joints of people who were found: {shares}",
            f"found who are nobody {self.background}, people whom nobody found {self.missed}",
            f"AP gained by repairing one kind alone: {alone}",
            f"AP after repairing one after another: {turns}",
            *(f"PCK below the head, {length}: {p.body:.3f} of {p.people} people" for length, p in self.pck.items()),
        ]

    def to_json(self, skeleton: Skeleton) -> dict[str, Any]:
        """As plain values, joints by name."""
        joints = {
            kind: dict(zip(skeleton.joints, counts.tolist(), strict=True)) for kind, counts in self.joints.items()
        }
        told = {name: getattr(self, name) for name in ("shares", "ap", "alone", "in_turn", "background", "missed")}
        correct = {
            length: {
                "body": _or_none(p.body),
                "people": p.people,
                "joints": {j: _or_none(v) for j, v in p.joints.items()},
            }
            for length, p in self.pck.items()
        }
        steps = {"steps": SCORE_STEPS.round(2).tolist(), "near_elsewhere_unlabelled": self.calibration.tolist()}
        return {"joints": joints, **told, "pck": correct, "calibration": steps}


def _or_none(value: float) -> float | None:
    """JSON has no word for what isn't a number."""
    return None if math.isnan(value) else value


class Diagnosis(NamedTuple):
    """What became of each of D people found in an image.

    Attributes:
        whom: (D,) row of the annotated person; -1 is nobody who counts.
        wrong: (D, K) index into `JOINT_ERRORS`, -1 for a good joint, -2 for one that isn't labelled or of nobody.
        similarity: (D,) to that person; 0 for nobody.
    """

    whom: np.ndarray
    wrong: np.ndarray
    similarity: np.ndarray


class ErrorCounts(NamedTuple):
    """What `ErrorAnalysis` is made of, for some images; those of groups of images join in their order.

    Attributes:
        matches: for each of the repairs that are evaluated.
        joints: (5, K) the errors in the order of `JOINT_ERRORS`, then good joints.
    """

    matches: tuple[Matches, ...]
    joints: np.ndarray
    pck: Mapping[str, Pck]
    calibration: np.ndarray
    images: Mapping[str, np.ndarray]


def count_errors(scenes: Scenes, skeleton: Skeleton) -> ErrorCounts:
    """Diagnose images, and match what repairs would make of them."""
    sigmas = np.array(skeleton.oks_sigmas)
    matches: list[list[Matches]] = [[] for _ in REPAIRED]
    joints = np.zeros((len(JOINT_ERRORS) + 1, len(skeleton)), int)
    calibration = np.zeros((len(SCORE_STEPS) - 1, 3), int)
    poses = np.full((len(scenes.annotated.areas), len(skeleton), 2), np.inf)
    rows = []
    for start, scene in zip(scenes.annotated_starts, scenes, strict=False):
        diagnosis = diagnose(scene, skeleton)
        for kind in range(_GOOD, len(JOINT_ERRORS)):
            joints[kind] += (diagnosis.wrong == kind).sum(axis=0)
        there = _kinds_there(scene, diagnosis)
        done: dict[tuple[str, ...], Matches] = {}  # many repairs come to the same where an error isn't there
        for asked, matched in zip(REPAIRED, matches, strict=True):
            kinds = tuple(kind for kind in asked if kind in there)
            if kinds not in done:
                done[kinds] = match_all_sizes(repaired(scene, diagnosis, kinds), sigmas)
            matched.append(done[kinds])
        somebody = diagnosis.whom >= 0
        poses[start + diagnosis.whom[somebody]] = scene.found.keypoints[somebody]
        calibration += _calibration(scene.found.keypoint_scores[somebody], diagnosis.wrong[somebody])
        rows.append(_image_row(scene, diagnosis))
    images = {"image_id": scenes.ids, **dict(zip(_IMAGE_COLUMNS, np.array(rows).T, strict=True))}
    return ErrorCounts(tuple(map(join, matches)), joints, _pck(scenes.annotated, poses, skeleton), calibration, images)


def join_errors(parts: Sequence[ErrorCounts]) -> ErrorCounts:
    """Of several groups of images, in their order."""
    return ErrorCounts(
        tuple(join(matches) for matches in zip(*(part.matches for part in parts), strict=True)),
        np.sum([part.joints for part in parts], axis=0),
        {length: reduce(add, (part.pck[length] for part in parts)) for length in parts[0].pck},
        np.sum([part.calibration for part in parts], axis=0),
        {name: np.concatenate([part.images[name] for part in parts]) for name in parts[0].images},
    )


def analyse(counts: ErrorCounts) -> ErrorAnalysis:
    """The analysis of all images' counts."""
    ap = {kinds: _average_precision(matches) for kinds, matches in zip(REPAIRED, counts.matches, strict=True)}
    if ap[()] >= 0:
        # Where those who were missed were everybody, nobody is left to find: nothing is wrong any more.
        ap = {kinds: 1.0 if value < 0 else value for kinds, value in ap.items()}
    return ErrorAnalysis(
        joints={"good": counts.joints[_GOOD], **{kind: counts.joints[i] for i, kind in enumerate(JOINT_ERRORS)}},
        ap=ap[()],
        alone={kind: ap[(kind,)] for kind in REPAIRS},
        in_turn={kind: ap[REPAIRS[: n + 1]] for n, kind in enumerate(REPAIRS)},
        background=int(counts.images["background"].sum()),
        missed=int(counts.images["missed"].sum()),
        pck={length: correct for length, correct in counts.pck.items() if correct.people},
        calibration=counts.calibration,
        images=counts.images,
    )


def _kinds_there(scene: Scene, diagnosis: Diagnosis) -> set[str]:
    """The kinds of error that there is anything of to repair."""
    kinds = {kind for index, kind in enumerate(JOINT_ERRORS) if (diagnosis.wrong == index).any()}
    somebody = int((diagnosis.whom >= 0).sum())
    if somebody:
        kinds |= {"jitter", "score"}  # good joints are a little off, too
    if somebody < len(diagnosis.whom):
        kinds |= {"score", "background"}
    if somebody < (~scene.annotated.ignored).sum():
        kinds.add("missed")
    return kinds


_IMAGE_COLUMNS = ("annotated", "found", "missed", "background", "similarity", *JOINT_ERRORS)


def _image_row(scene: Scene, diagnosis: Diagnosis) -> tuple[float, ...]:
    """As `_IMAGE_COLUMNS`: people annotated, found, missed and nobody, mean similarity to whom was found (NaN without
    anybody), wrong joints by kind."""
    somebody = diagnosis.whom >= 0
    people = int((~scene.annotated.ignored).sum())
    similarity = float(diagnosis.similarity[somebody].mean()) if somebody.any() else float("nan")
    wrong = [int((diagnosis.wrong == kind).sum()) for kind in range(len(JOINT_ERRORS))]
    return (people, len(somebody), people - int(somebody.sum()), int((~somebody).sum()), similarity, *wrong)


def _calibration(scores: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(20, 3) as `ErrorAnalysis.calibration`, of joints (D, K)."""
    near = (wrong == _GOOD) | (wrong == JOINT_ERRORS.index("jitter"))
    unlabelled = wrong == _UNKNOWN
    clipped = np.clip(scores, 0, 1)
    kinds = (near, ~near & ~unlabelled, unlabelled)
    return np.stack([np.histogram(clipped[kind], SCORE_STEPS)[0] for kind in kinds], axis=1)


def _pck(annotated: Annotated, poses: np.ndarray, skeleton: Skeleton) -> dict[str, Pck]:
    counts = ~annotated.ignored
    joints, poses = annotated.keypoints[counts], poses[counts]
    places, labelled = joints[..., :2], joints[..., 2] > 0
    box, heads = annotated.boxes[counts, 2:].max(axis=1), annotated.heads[counts]
    results = {
        "a tenth of the box": pck(poses, places, labelled, box, skeleton),
        "half the head segment": pck(poses, places, labelled, heads, skeleton, 0.5, least_joints=1, least_length_px=0),
    }
    if has_torso(skeleton):
        torso = torso_lengths(places, labelled, skeleton)
        results["a fifth of the torso"] = pck(poses, places, labelled, torso, skeleton, 0.2, least_length_px=0)
    return results


def diagnose(scene: Scene, skeleton: Skeleton) -> Diagnosis:
    """Who was found, and what is wrong with their joints.

    The best of those found choose first, and take the most similar person who counts and is free.
    """
    annotated, found = scene
    sigmas = np.array(skeleton.oks_sigmas)
    similarity = keypoint_similarity(annotated, found, sigmas)
    whom = np.full(len(found.scores), -1)
    free = ~annotated.ignored
    for d, similar in enumerate(similarity):
        able = np.where(free, similar, 0.0)
        if able.size and able.max() >= LEAST_SIMILARITY:
            whom[d] = able.argmax()
            free[whom[d]] = False
    wrong = np.full((len(whom), len(skeleton)), _UNKNOWN)
    of_whom = np.zeros(len(whom))
    for row in np.flatnonzero(whom >= 0):
        wrong[row] = _joint_errors(found.keypoints[row], annotated, int(whom[row]), sigmas, skeleton.mirror)
        of_whom[row] = similarity[row, whom[row]]
    return Diagnosis(whom, wrong, of_whom)


def _joint_errors(
    keypoints: np.ndarray, annotated: Annotated, person: int, sigmas: np.ndarray, mirror: Sequence[int]
) -> np.ndarray:
    """(K,) as in `Diagnosis.wrong`.

    A joint that is not near its own place is an inversion where it is near that of its mirror image, a swap where it is
    near one of the two of another person (whichever is nearest), and a miss where it is near neither.
    """
    joints = annotated.keypoints
    size = 2 * (annotated.areas[person] + np.spacing(1)) * (2 * sigmas) ** 2

    def near(places: np.ndarray) -> np.ndarray:
        """(..., K) similarity to places (..., K, 3); 0 where these are not labelled."""
        squared = ((keypoints - places[..., :2]) ** 2).sum(axis=-1)
        return np.exp(-squared / size) * (places[..., 2] > 0)

    own, mirrored = near(joints[person]), near(joints[person][mirror])
    # A joint that is its own mirror image, as the nose, cannot be inverted.
    mirrored[np.arange(len(sigmas)) == np.array(mirror)] = 0
    others = np.delete(joints, person, axis=0)
    swapped = np.concatenate([near(others), near(others[:, mirror]), np.zeros((1, len(sigmas)))]).max(axis=0)
    kinds = {name: index for index, name in enumerate(JOINT_ERRORS)}
    wrong = np.full(len(sigmas), kinds["miss"])
    wrong[(swapped >= NEAR) & (swapped > mirrored)] = kinds["swap"]
    wrong[(mirrored >= NEAR) & (mirrored >= swapped)] = kinds["inversion"]
    wrong[own >= NEAR] = kinds["jitter"]
    wrong[own >= GOOD] = _GOOD
    wrong[joints[person][:, 2] <= 0] = _UNKNOWN
    return wrong


def repaired(scene: Scene, diagnosis: Diagnosis, kinds: Sequence[str]) -> Scene:
    """The image without errors of these kinds.

    Joints go to their place, with jitter also good ones, which are a little off; scores become the similarity to whom
    was found, nobody's 0; those who are nobody go; people whom nobody found no longer have to be.
    """
    annotated, found = scene
    keypoints, scores = found.keypoints.copy(), found.scores
    similarity = diagnosis.similarity
    for index, kind in enumerate(JOINT_ERRORS):
        if kind in kinds:
            off = (diagnosis.wrong == index) | ((diagnosis.wrong == _GOOD) & (kind == "jitter"))
            rows, joints = np.nonzero(off)
            keypoints[rows, joints] = annotated.keypoints[diagnosis.whom[rows], joints, :2]
    if "score" in kinds:
        scores = similarity
    kept = np.flatnonzero(diagnosis.whom >= 0) if "background" in kinds else np.arange(len(scores))
    order = kept[np.argsort(-scores[kept], kind="stable")]
    if "missed" in kinds:
        seen = np.zeros(len(annotated.ignored), bool)
        seen[diagnosis.whom[diagnosis.whom >= 0]] = True
        annotated = annotated._replace(ignored=annotated.ignored | ~seen)
    # Areas of those found stay: they decide only about people of other sizes, who all count here.
    changed = Found(found.boxes, found.areas, scores, keypoints, found.keypoint_scores)
    return Scene(annotated, Found(*(column[order] for column in changed)))


def match_all_sizes(scene: Scene, sigmas: np.ndarray) -> Matches:
    """Matches over people of any size."""
    annotated, found = scene
    similarity = keypoint_similarity(annotated, found, sigmas)
    return match(annotated.crowd, found.scores, similarity, by_area(annotated, found, _ALL_SIZES))


def _average_precision(matches: Matches) -> float:
    curves = accumulate(matches, ["all"])
    return curves.mean(curves.precision, "all")
