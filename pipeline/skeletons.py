"""Skeletons: the joints of a pose, their order, and how they are scored and drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

# COCO-WholeBody stores the 17 body joints in the column `keypoints`, and the other 116 in these columns.
WHOLE_BODY_COLUMNS = ("foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


@dataclass(frozen=True)
class Skeleton:
    """The joints of one keypoint convention.

    Attributes:
        name: its name in settings and table metadata.
        joints: joint names in output order.
        limbs: pairs of joint indices that are drawn as lines.
        mirror_pairs: (left, right) joint indices that swap when an image is mirrored.
        oks_sigmas: per-joint fall-off of the object keypoint similarity, as a fraction of the object scale.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    mirror_pairs: tuple[tuple[int, int], ...]
    oks_sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def mirror(self) -> list[int]:
        """The permutation that restores the joint order after mirroring an image: left and right swap."""
        order = list(range(len(self)))
        for left, right in self.mirror_pairs:
            order[left], order[right] = right, left
        return order

    @property
    def parts(self) -> dict[str, list[int]]:
        """Joint indices of body, feet, face, left and right hand, in that order; missing parts are left out.

        COCO-WholeBody evaluates the same parts.
        """
        parts: dict[str, list[int]] = {part: [] for part in ("body", "feet", "face", "left_hand", "right_hand")}
        for index, joint in enumerate(self.joints):
            feet = joint.endswith(("_toe", "_heel"))
            hand = "left_hand" if joint.startswith("left_hand_") else "right_hand"
            part = hand if "_hand_" in joint else "face" if "face" in joint else "feet" if feet else "body"
            parts[part].append(index)
        return {part: joints for part, joints in parts.items() if joints}


_BODY = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
_BODY_LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
_HALPE_EXTRA = (
    "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel",
    "right_heel",
)  # fmt: skip
_HALPE_LIMBS = (
    (15, 13), (13, 11), (11, 19), (16, 14), (14, 12), (12, 19), (17, 18), (18, 19), (18, 5), (5, 7), (7, 9), (18, 6),
    (6, 8), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (15, 20), (15, 22), (15, 24), (16, 21),
    (16, 23), (16, 25),
)  # fmt: skip
_WHOLEBODY_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
_WHOLEBODY_FEET_LIMBS = ((15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22))

_FACE_SIZE, _HAND_SIZE = 68, 21
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND = ("wrist", *(f"{finger}{joint}" for finger in _FINGERS for joint in (1, 2, 3, 4)))
_HAND_LIMBS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, _HAND_SIZE))

# The 68 points of iBUG 300-W (Sagonas et al., 2013): runs of neighbours, and pairs that swap when mirrored.
_FACE_RUNS = (
    range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36), range(36, 42), range(42, 48),
    range(48, 60), range(60, 68),
)  # fmt: skip
_FACE_CLOSED = (36, 42, 48, 60)  # eyes and lips are closed curves
_FACE_PAIRS = (
    *((16 - i, i) for i in range(8)), *((26 - i, 17 + i) for i in range(5)), (35, 31), (34, 32), (45, 36), (44, 37),
    (43, 38), (42, 39), (47, 40), (46, 41), (54, 48), (53, 49), (52, 50), (55, 59), (56, 58), (64, 60), (63, 61),
    (65, 67),
)  # fmt: skip
_FACE_LIMBS = tuple(
    limb for run in _FACE_RUNS for limb in [*pairwise(run), *([(run[-1], run[0])] if run[0] in _FACE_CLOSED else [])]
)

# The sigmas of pycocotools for the 17 body joints, and of the COCO-WholeBody evaluation (Jin et al., ECCV 2020) for the
# rest.
_BODY_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
_WHOLEBODY_FEET_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_WHOLEBODY_FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
    0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
    0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
    0.008, 0.008, 0.010, 0.008,
)  # fmt: skip
_WHOLEBODY_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
    0.032, 0.020, 0.019, 0.022, 0.031,
)  # fmt: skip
# From the evaluation of the Halpe data set (github.com/Fang-Haoshu/Halpe-FullBody).
_HALPE_EXTRA_SIGMAS = (*[0.08] * 3, *[0.089] * 6)
_HALPE_FINE_SIGMA = 0.015  # every face and hand joint


def _hand(side: str) -> tuple[str, ...]:
    return tuple(f"{side}_hand_{joint}" for joint in _HAND)


def _moved(pairs: Iterable[tuple[int, int]], first: int) -> tuple[tuple[int, int], ...]:
    return tuple((a + first, b + first) for a, b in pairs)


def _by_name(joints: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Mirror pairs of joints with left and right in their names."""
    return tuple(
        (i, joints.index(name.replace("left", "right", 1))) for i, name in enumerate(joints) if name.startswith("left")
    )


def _skeleton(
    name: str,
    body: tuple[str, ...],
    limbs: tuple[tuple[int, int], ...],
    sigmas: tuple[float, ...],
    face_sigmas: tuple[float, ...] = (),
    hand_sigmas: tuple[float, ...] = (),
) -> Skeleton:
    """A skeleton of a body, then 68 face points and both hands if their sigmas are given."""
    joints = body
    pairs: tuple[tuple[int, int], ...] = ()
    if face_sigmas:
        limbs += _moved(_FACE_LIMBS, len(joints))
        pairs = _moved(_FACE_PAIRS, len(joints))
        joints += tuple(f"face_{i}" for i in range(_FACE_SIZE))
        sigmas += face_sigmas
    if hand_sigmas:
        for side in ("left", "right"):
            limbs += _moved(_HAND_LIMBS, len(joints))
            joints += _hand(side)
            sigmas += hand_sigmas
    return Skeleton(name, joints, limbs, _by_name(joints) + pairs, sigmas)


_halpe26 = (_BODY + _HALPE_EXTRA, _HALPE_LIMBS, _BODY_SIGMAS + _HALPE_EXTRA_SIGMAS)
_halpe_face, _halpe_hand = (_HALPE_FINE_SIGMA,) * _FACE_SIZE, (_HALPE_FINE_SIGMA,) * _HAND_SIZE

_MPII_JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck",
    "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
_MPII_LIMBS = (
    (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13),
    (13, 14), (14, 15),
)  # fmt: skip
# MPII does not define OKS: the sigmas of COCO for the joints that COCO has, and Halpe's 0.08 along the spine.
_MPII_SIGMAS = tuple(_BODY_SIGMAS[_BODY.index(joint)] if joint in _BODY else 0.08 for joint in _MPII_JOINTS)

SKELETONS: dict[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        _skeleton("coco17", _BODY, _BODY_LIMBS, _BODY_SIGMAS),
        _skeleton("halpe26", *_halpe26),
        _skeleton("halpe68", *_halpe26, hand_sigmas=_halpe_hand),
        _skeleton("halpe136", *_halpe26, _halpe_face, _halpe_hand),
        _skeleton(
            "wholebody133",
            _BODY + _WHOLEBODY_FEET,
            _BODY_LIMBS + _WHOLEBODY_FEET_LIMBS,
            _BODY_SIGMAS + _WHOLEBODY_FEET_SIGMAS,
            _WHOLEBODY_FACE_SIGMAS,
            _WHOLEBODY_HAND_SIGMAS,
        ),
        Skeleton("hand21", _HAND, _HAND_LIMBS, (), _WHOLEBODY_HAND_SIGMAS),
        _skeleton("mpii16", _MPII_JOINTS, _MPII_LIMBS, _MPII_SIGMAS),
    )
}
