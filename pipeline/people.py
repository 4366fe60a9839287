"""The value that flows through the pipeline: the people found in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Boxes:
    """Person boxes of one image, before any pose.

    Attributes:
        xyxy: (N, 4) float32, x1 y1 x2 y2 in pixels of the upright original image.
        scores: (N,) float32, the detector's score; 1 for boxes labelled by hand.
    """

    xyxy: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "xyxy", np.asarray(self.xyxy, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32).reshape(-1))
        if len(self.xyxy) != len(self.scores):
            raise ValueError(f"Boxes: {len(self.xyxy)} boxes but {len(self.scores)} scores")

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> Boxes:
        return cls(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True, eq=False)
class People:
    """People of one image as aligned float32 arrays; row i of each array is person i.

    Attributes:
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the upright original image.
        box_scores: (N,) the detector's scores.
        keypoints: (N, K, 2) x y in pixels of the upright original image, K in the skeleton's joint order.
        keypoint_scores: (N, K).
        pose_scores: (N,) the score of the whole person.

    >>> two = People(np.zeros((2, 4)), np.ones(2), np.zeros((2, 17, 2)), np.ones((2, 17)), np.array([0.5, 2.0]))
    >>> len(two[two.pose_scores > 1])
    1
    """

    boxes: np.ndarray
    box_scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    pose_scores: np.ndarray

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
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

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: np.ndarray | slice | Sequence[int]) -> People:
        """The people selected by a mask, a slice or a list of row numbers."""
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.dtype != bool:
                rows = rows.astype(np.intp)
        return People(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def num_joints(self) -> int:
        return self.keypoints.shape[1]

    @classmethod
    def empty(cls, num_joints: int) -> People:
        k = num_joints
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros((0, k, 2)), np.zeros((0, k)), np.zeros(0))
