"""Charts of a page about the errors of a run that is compared with annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from pipeline.evaluation.curves import RECALLS, Curves
from pipeline.evaluation.errors import ERRORS, JOINT_ERRORS, SCORE_STEPS, ErrorAnalysis
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.groups import CROSSED, LABELLED, OVERLAPPED, GroupResult
from pipeline.evaluation.matching import THRESHOLDS
from pipeline.evaluation.operating_point import OperatingPoint
from pipeline.report import charts
from pipeline.report.charts import Drawn
from pipeline.skeletons import Skeleton

_CURVES = (0.5, 0.75, 0.9)
_MAX_BARS = 40  # joints that fit into one chart


def threshold_chart(points: Mapping[float, OperatingPoint], caption: str) -> Drawn:
    """Recall and precision by threshold of the box score."""
    thresholds = list(points)
    series = {
        name: (thresholds, [getattr(point.rates, name) for point in points.values()])
        for name in ("recall", "precision")
    }
    return Drawn(charts.lines(series, "threshold of the box score", "share"), caption)


def error_charts(evaluation: Evaluation, skeleton: Skeleton) -> list[Drawn]:
    """What AP could be gained, precision and recall, calibration, and the errors and PCK of each joint."""
    assert evaluation.analysis is not None
    errors = evaluation.analysis.errors
    gains = {
        "alone": [errors.alone[kind] - errors.ap for kind in ERRORS],
        "one after another": [after - before for before, after in pairwise([errors.ap, *errors.cumulative.values()])],
    }
    drawn = [
        Drawn(_precision(evaluation.metrics.curves), "Precision and recall", False),
        Drawn(charts.bars(gains, ERRORS, "AP gained"), "AP gained by repairing each kind of error", False),
        Drawn(_calibration(errors), "Calibration of joint scores, matched people", False),
    ]
    if len(skeleton) <= _MAX_BARS:
        totals = np.maximum(np.sum(list(errors.joints.values()), axis=0), 1)
        shares = {kind: errors.joints[kind] / totals for kind in ("good", *JOINT_ERRORS)}
        svg = charts.bars(shares, skeleton.joints, "share", stacked=True)
        drawn.append(Drawn(svg, "Errors by joint, matched people", True))
        if errors.pck:
            pck = {length: [p.joints[joint] for joint in skeleton.joints] for length, p in errors.pck.items()}
            svg = charts.bars(pck, skeleton.joints, "share")
            drawn.append(Drawn(svg, "Correct keypoints (PCK), by allowed distance", True))
    return drawn


def _precision(curves: Curves) -> str:
    all_people = np.maximum(curves.precision[curves.subsets.index("all")], 0)
    chosen = {t: int(np.abs(THRESHOLDS - t).argmin()) for t in _CURVES}
    series = {f"OKS {t:g}": (RECALLS, all_people[row]) for t, row in chosen.items()}
    return charts.lines(series, "recall", "precision", unit_square=True)


def _calibration(errors: ErrorAnalysis) -> str:
    near, elsewhere, unlabelled = errors.calibration.T
    labelled, total = near + elsewhere, near + elsewhere + unlabelled
    scores, has_labelled, has_any = (SCORE_STEPS[:-1] + SCORE_STEPS[1:]) / 2, labelled > 0, total > 0
    series = {
        "good or jitter, of labelled joints": (scores[has_labelled], near[has_labelled] / labelled[has_labelled]),
        "unlabelled, of all joints": (scores[has_any], unlabelled[has_any] / total[has_any]),
        "perfect calibration": ([0, 1], [0, 1]),
    }
    return charts.lines(series, "score of a joint", "share", unit_square=True)


def group_charts(groups: Sequence[GroupResult]) -> list[Drawn]:
    """AP by group; a grouping with a single group is left out."""
    by_grouping: dict[str, list[GroupResult]] = {}
    for result in groups:
        by_grouping.setdefault(result.grouping, []).append(result)
    drawn = []
    for name, results in by_grouping.items():
        if name == CROSSED.name:
            shape = (len(OVERLAPPED.labels), len(LABELLED.labels))
            values = np.array([r.ap if r.people else np.nan for r in results]).reshape(shape)
            notes = np.array([f"{r.ap:.2f}\n{r.people}" if r.people else "" for r in results]).reshape(shape)
            svg = charts.heatmap(
                values,
                OVERLAPPED.labels,
                LABELLED.labels,
                OVERLAPPED.name,
                LABELLED.name,
                "AP, number of people",
                notes,
            )
            drawn.append(Drawn(svg, f"AP by {name}", False))
        elif sum(r.people > 0 for r in results) > 1:
            names = [f"{r.label}\n{r.people}" for r in results]
            svg = charts.bars({"AP": [max(r.ap, 0.0) for r in results]}, names, "AP")
            drawn.append(Drawn(svg, f"AP by {name}; the number of people under each group", False))
    return drawn
