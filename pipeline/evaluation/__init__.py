"""Metrics against COCO annotations, and the analysis of errors."""

from pipeline.evaluation.evaluate import RunMetrics, evaluate_file, evaluate_run, write_metrics
from pipeline.evaluation.keypoints import Metrics, evaluate_boxes, evaluate_keypoints

__all__ = [
    "Metrics",
    "RunMetrics",
    "evaluate_boxes",
    "evaluate_file",
    "evaluate_keypoints",
    "evaluate_run",
    "write_metrics",
]
