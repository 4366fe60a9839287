"""The values that flow through the pipeline: person boxes, and people with keypoints, of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Boxes:
    """Person boxes of one image, before pose estimation.

    Attributes:
        xyxy: (N, 4) float32, x1 y1 x2 y2 in pixels of the upright original image.
        scores: (N,) float32, the detector's scores; 1 for annotated boxes.
        poses: (N, K, 3) float32 x y score of the joints, by a network that finds boxes and joints at once; else None.
    """

    xyxy: np.ndarray
    scores: np.ndarray
    poses: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "xyxy", np.asarray(self.xyxy, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32).reshape(-1))
        if len(self.xyxy) != len(self.scores):
            raise ValueError(f"Boxes: {len(self.xyxy)} boxes but {len(self.scores)} scores")

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, rows: np.ndarray) -> Boxes:
        """The boxes selected by a mask."""
        return Boxes(self.xyxy[rows], self.scores[rows], None if self.poses is None else self.poses[rows])

    @classmethod
    def empty(cls) -> Boxes:
        return cls(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True, eq=False)
class People:
    """People of one image as aligned arrays; row i of each array is person i.

    Attributes:
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the upright original image.
        box_scores: (N,) float32, the detector's scores.
        keypoints: (N, K, 2) float32, x y in pixels of the upright original image, K in the skeleton's joint order.
        keypoint_scores: (N, K) float32.
        pose_scores: (N,) float32, the score of the whole person.
        extra: further columns by name, (N, ...) arrays of any numeric type; every step keeps them aligned, and parts,
            tables and formats carry them along.

    >>> two = People(np.zeros((2, 4)), np.ones(2), np.zeros((2, 17, 2)), np.ones((2, 17)), np.array([0.5, 2.0]))
    >>> len(two[two.pose_scores > 1])
    1
    """

    boxes: np.ndarray
    box_scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    pose_scores: np.ndarray
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ARRAYS:
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
        object.__setattr__(self, "extra", {name: np.ascontiguousarray(array) for name, array in self.extra.items()})
        n = len(self.boxes)
        k = self.keypoints.shape[1] if self.keypoints.ndim == 3 else -1
        expected = {
            "boxes": (n, 4),
            "box_scores": (n,),
            "keypoints": (n, k, 2),
            "keypoint_scores": (n, k),
            "pose_scores": (n,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"People.{name} has shape {getattr(self, name).shape}; expected {shape}")
        for name, array in self.extra.items():
            if array.shape[:1] != (n,):
                raise ValueError(f"People.extra[{name!r}] has shape {array.shape}; expected ({n}, ...)")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: np.ndarray | slice | Sequence[int]) -> People:
        """The people selected by a mask, a slice or a list of row numbers."""
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.dtype != bool:
                rows = rows.astype(np.intp)
        extra = {name: array[rows] for name, array in self.extra.items()}
        return People(**{name: getattr(self, name)[rows] for name in ARRAYS}, extra=extra)

    @property
    def num_joints(self) -> int:
        return self.keypoints.shape[1]

    @classmethod
    def empty(cls, num_joints: int) -> People:
        k = num_joints
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros((0, k, 2)), np.zeros((0, k)), np.zeros(0))

    @classmethod
    def concatenate(cls, parts: Sequence[People]) -> People:
        """People of several images or tables, at least one, all with the same joints and extra columns."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in parts[0].extra}
        return cls(**arrays, extra=extra)


ARRAYS = ("boxes", "box_scores", "keypoints", "keypoint_scores", "pose_scores")
