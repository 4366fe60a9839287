"""How good the tables are: numbers against COCO annotations, and why they aren't better."""

from pipeline.evaluation.keypoints import Metrics, evaluate_boxes, evaluate_keypoints
from pipeline.evaluation.run import RunMetrics, evaluate_file, evaluate_run, write_metrics
from pipeline.evaluation.truth import PERSON

__all__ = [
    "PERSON",
    "Metrics",
    "RunMetrics",
    "evaluate_boxes",
    "evaluate_file",
    "evaluate_keypoints",
    "evaluate_run",
    "write_metrics",
]
