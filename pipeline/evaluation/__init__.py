"""How good the tables are: numbers against COCO annotations."""

from pipeline.evaluation.keypoints import Evaluation, Metrics, evaluate_boxes, evaluate_keypoints
from pipeline.evaluation.run import RunMetrics, evaluate_file, evaluate_run, explain_run

__all__ = [
    "Evaluation",
    "Metrics",
    "RunMetrics",
    "evaluate_boxes",
    "evaluate_file",
    "evaluate_keypoints",
    "evaluate_run",
    "explain_run",
]
