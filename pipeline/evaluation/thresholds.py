"""People found and false positives of a run if its detector's threshold were higher. No network runs."""

from __future__ import annotations

import numpy as np

from pipeline.coco.annotations import Annotations, group_by_image, read_annotations
from pipeline.coco.ids import CocoIds
from pipeline.evaluation.errors import count_people
from pipeline.evaluation.eval_images import pair
from pipeline.evaluation.operating_point import OperatingPoint
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.detections import people_by_coco_id, pose_detections
from pipeline.run.tables import image_ids, table_skeleton
from pipeline.skeletons import Skeleton

_STEP = 0.05


def threshold_lines(run: Run, annotations: str) -> list[str]:
    """Recall and precision by threshold, and the best one, as lines of text; empty if the run has no threshold."""
    if not run.settings.detector.has_confidence:
        return []
    skeleton = table_skeleton(run.uri)
    truth = read_annotations(annotations, skeleton)
    points = people_by_threshold(run, truth, truth.match_ids(image_ids(run.uri)), skeleton)
    own, best = run.settings.detector.confidence, max(points, key=lambda t: (np.nan_to_num(points[t].f1), -t))
    shown = [t for t in points if points[t].found.any()]
    text = [
        f"--detector.confidence {t:g}: recall {points[t].rates.recall:.3f}, "
        f"precision {points[t].rates.precision:.3f}, F1 {points[t].f1:.3f}"
        for t in shown
    ]
    if best == own:
        return [*text, f"no higher threshold than the run's own, {own:g}, has a better F1"]
    return [*text, f"best F1: --detector.confidence {best:g} instead of {own:g}"]


def people_by_threshold(
    run: Run, truth: Annotations, ids: CocoIds[int], skeleton: Skeleton
) -> dict[float, OperatingPoint]:
    """The operating point at the run's own threshold of the box score and at higher ones, by threshold.

    Suppression is not repeated: a person that it dropped in favour of one with a low box score stays lost.

    Args:
        truth: the annotated images to count in.
        ids: of the run's images.
    """
    tables = list(people_by_coco_id(run, ids))
    people = People.concatenate([People.empty(len(skeleton)), *(p for _, p in tables)])
    coco_ids = np.concatenate([np.zeros(0, np.int64), *(numbers for numbers, _ in tables)])
    detections = pose_detections([people])
    own = run.settings.detector.confidence
    grid = np.arange(np.floor(own / _STEP + 1e-6) + 1, 1 / _STEP) * _STEP
    thresholds = [own, *grid.round(2).tolist()]
    images = pair(truth, coco_ids, detections, len(people))
    # `pair` orders detections by image and pose score; their box scores must follow.
    rows, _ = group_by_image(truth.ids, coco_ids, -detections.scores)
    box_scores = people.box_scores[rows]
    # At its own threshold the run has everybody, also people that suppression has merged.
    kept = np.array([box_scores > threshold if threshold > own else box_scores > -np.inf for threshold in thresholds])
    return dict(zip(thresholds, count_people(images, skeleton, kept), strict=True))
