"""The people of a frame, as the trackers take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Places = list[tuple[int, int]]  # frame and number of the person, in the order of the frames


class FramePeople(NamedTuple):
    """The people of one frame.

    Attributes:
        seconds: time of the frame.
        boxes: (N, 4) xyxy, pixels.
        keypoints: (N, K, 2) x y, pixels.
        keypoint_scores: (N, K) 0..1.
        box_scores: (N,) 0..1.
        first_of_scene: whether the video was cut before the frame.
        looks: (N, D) appearances, see `pipeline.appearance`; D is 0 without.
        weak: (N,) bool, whether a person counts only if it continues a track; (0,) if nobody is weak.
    """

    seconds: float
    boxes: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    box_scores: np.ndarray
    first_of_scene: bool = False
    looks: np.ndarray = np.zeros((0, 0))
    weak: np.ndarray = np.zeros(0, bool)

    def surely(self, score: float = 0.0) -> np.ndarray:
        """(N,) bool, whether a person is not weak and has at least this box score."""
        sure = self.box_scores >= score
        return sure & ~self.weak if self.weak.size else sure

    def rows(self, rows: np.ndarray) -> FramePeople:
        """Some of the people."""
        return self._replace(
            boxes=self.boxes[rows],
            keypoints=self.keypoints[rows],
            keypoint_scores=self.keypoint_scores[rows],
            box_scores=self.box_scores[rows],
            looks=self.looks[rows] if self.looks.size else self.looks,
            weak=self.weak[rows] if self.weak.size else self.weak,
        )
