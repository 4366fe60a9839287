"""Annotated and detected people as columns: less than a kilobyte a person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class GroundTruth(NamedTuple):
    """G annotated people, in the order of the annotations.

    Attributes:
        boxes_xywh: (G, 4) pixels.
        areas: (G,) square pixels.
        crowd: (G,) bool, regions with several people, which any number of detections may match.
        ignored: (G,) bool, people that count neither as detected nor as missed.
        keypoints: (G, K, 3) x y v; K is 0 for boxes.
        head_lengths: (G,) length of the head segment in pixels, NaN where it is not annotated.
    """

    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    keypoints: np.ndarray
    head_lengths: np.ndarray

    def rows(self, rows: slice | np.ndarray) -> GroundTruth:
        return GroundTruth(*(column[rows] for column in self))


class Detections(NamedTuple):
    """D detected people, in the order of the results.

    Attributes:
        boxes_xywh: (D, 4) pixels.
        areas: (D,) square pixels.
        scores: (D,).
        keypoints: (D, K, 2) x y; K is 0 for boxes.
        keypoint_scores: (D, K).
    """

    boxes_xywh: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray

    def rows(self, rows: slice | np.ndarray) -> Detections:
        return Detections(*(column[rows] for column in self))

    @classmethod
    def from_poses(cls, keypoints: np.ndarray, keypoint_scores: np.ndarray, scores: np.ndarray) -> Detections:
        """Poses (D, K, 2); the box of each is the extent of its joints, as pycocotools has it."""
        first, last = keypoints.min(axis=1), keypoints.max(axis=1)
        boxes_xywh = np.concatenate([first, last - first], axis=1)
        return cls(boxes_xywh, boxes_xywh[:, 2] * boxes_xywh[:, 3], scores, keypoints, keypoint_scores)

    @classmethod
    def from_boxes(cls, boxes_xywh: np.ndarray, scores: np.ndarray) -> Detections:
        """Boxes (D, 4) without keypoints."""
        no_joints = np.zeros((len(boxes_xywh), 0))
        return cls(
            boxes_xywh, boxes_xywh[:, 2] * boxes_xywh[:, 3], scores, np.zeros((len(boxes_xywh), 0, 2)), no_joints
        )
