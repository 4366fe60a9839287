"""How good the tables are: numbers against COCO annotations."""

from pipeline.evaluation.keypoints import Metrics, evaluate_boxes, evaluate_keypoints
from pipeline.evaluation.run import RunMetrics, evaluate_run

__all__ = ["Metrics", "RunMetrics", "evaluate_boxes", "evaluate_keypoints", "evaluate_run"]
