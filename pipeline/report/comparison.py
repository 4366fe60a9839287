"""Two runs on the same annotations: which people are newly found or lost, and which false positives are new or gone."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.coco.annotations import Annotations
from pipeline.coco.columns import Detections, GroundTruth
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.errors import ErrorAnalysis
from pipeline.evaluation.intervals import Estimate
from pipeline.evaluation.matching import box_similarity
from pipeline.run import Run
from pipeline.settings.flags import leaves

_SAME = 0.5  # IoU from which two false positives are the same
_ROWS = 300
_SECTIONS = ("output.", "fleet.")  # settings that do not change results
_COLUMNS = ("people newly found", "people newly lost", "false positives gone", "false positives new")


def compare(
    run: Run, metrics: RunMetrics, other_run: Run, other_metrics: RunMetrics, truth: Annotations
) -> dict[str, Any] | None:
    """Metrics, settings and images of another run (before) and of this one (now); None without an error analysis.

    Args:
        truth: the annotated images; both runs are evaluated against them.
    """
    now, before = (
        m.keypoints.analysis.errors if m.keypoints and m.keypoints.analysis else None for m in (metrics, other_metrics)
    )
    if now is None or before is None:
        return None
    changes = _changes(before, now, truth)
    order = np.lexsort([-changes[:, 2], -changes[:, 0], -changes[:, 3], -changes[:, 1]])
    shown = [int(i) for i in order if changes[i].any()][:_ROWS]
    names = truth.images["file_name"]
    rows = [
        [names[i], *(int(n) for n in changes[i]), *(_rounded(e.images["similarity"][i]) for e in (before, now))]
        for i in shown
    ]
    settings = _differences(other_run, run)
    return {
        "other": other_run.uri,
        "warnings": _warnings(other_metrics, metrics),
        "totals": list(zip(changes.sum(axis=0).tolist(), _COLUMNS, strict=True)),
        "images_with_lost_people": int((changes[:, 1] > 0).sum()),
        "unchanged": int((~changes.any(axis=1)).sum()),
        "settings": {"columns": ["setting", "before", "now"], "rows": settings, "marked": [False] * len(settings)},
        "numbers": _numbers(metrics, other_metrics),
        "images": {
            "columns": ["image", *_COLUMNS, "OKS before", "OKS now"],
            "rows": rows,
            "marked": [bool(changes[i, 1]) for i in shown],
        },
    }


def _warnings(before: RunMetrics, now: RunMetrics) -> list[str]:
    """What makes the two runs hard to compare, as lines of text."""
    lines = [f"The other run: {warning}" for warning in before.warnings]
    for name, metrics in (("The other run", before), ("This run", now)):
        if not metrics.complete:
            lines.append(f"{name} is incomplete.")
        if metrics.images_in_run < metrics.annotated_images:
            lines.append(
                f"{name} has {metrics.images_in_run:,} of {metrics.annotated_images:,} annotated images; the people of "
                "the others count as missed."
            )
    return lines


def _changes(before: ErrorAnalysis, now: ErrorAnalysis, truth: Annotations) -> np.ndarray:
    """(I, 4) numbers of `_COLUMNS` for each image."""
    changes = np.zeros((len(truth.ids), 4), int)
    image = np.repeat(np.arange(len(truth.ids)), np.diff(truth.starts))
    counted = ~truth.people.ignored
    np.add.at(changes[:, 0], image, counted & now.found & ~before.found)
    np.add.at(changes[:, 1], image, counted & before.found & ~now.found)
    starts = [np.concatenate([[0], np.cumsum(e.images["background"].astype(int))]) for e in (before, now)]
    for i in range(len(truth.ids)):
        boxes = [e.false_positives_xywh[s[i] : s[i + 1]] for e, s in zip((before, now), starts, strict=True)]
        same = _count_same(*boxes)
        changes[i, 2:] = len(boxes[0]) - same, len(boxes[1]) - same
    return changes


def _count_same(a_xywh: np.ndarray, b_xywh: np.ndarray) -> int:
    """Number of pairs of boxes that overlap, each box in one pair at most; the greatest overlap first."""
    if not len(a_xywh) or not len(b_xywh):
        return 0
    nothing = np.zeros(len(a_xywh))
    truth = GroundTruth(
        a_xywh, nothing, nothing.astype(bool), nothing.astype(bool), np.zeros((len(nothing), 0, 3)), nothing
    )
    overlaps = box_similarity(truth, Detections.from_boxes(b_xywh, np.zeros(len(b_xywh))))
    same = 0
    while overlaps.max() >= _SAME:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row], overlaps[:, column] = 0, 0
        same += 1
    return same


def _numbers(metrics: RunMetrics, other_metrics: RunMetrics) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for name, now, before in (
        ("keypoints", metrics.keypoints, other_metrics.keypoints),
        ("person boxes", metrics.boxes, other_metrics.boxes),
    ):
        if now is None or before is None or now.reliability is None or before.reliability is None:
            continue
        old, new = before.reliability.people.rates._asdict(), now.reliability.people.rates._asdict()
        values = [
            (key.replace("_", " "), old[key], new[key]) for key in ("recall", "precision", "false_positives_per_image")
        ]
        values += [(label(key), before.metrics.numbers[key], value) for key, value in now.metrics.numbers.items()]
        change = Estimate.of(
            now.metrics.ap - before.metrics.ap, now.reliability.resampled_ap - before.reliability.resampled_ap
        )
        rows += [
            [
                *(f"{name}: {text}", _rounded(b), _rounded(n), _rounded(n - b)),
                f"{change.low:+.3f} to {change.high:+.3f}" if text == "AP" and change.is_bounded else "",
            ]
            for text, b, n in values
        ]
    columns = ["metric", "before", "now", "change", "95 % interval of the change"]
    return {"columns": columns, "rows": rows, "marked": [False] * len(rows)}


def label(key: str) -> str:
    """A metric's name as people write it: `ap_m` is `AP medium`."""
    return key.upper().replace("_M", " medium").replace("_L", " large")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _differences(before: Run, now: Run) -> list[list[str]]:
    """The settings that differ and may change results."""
    old = {leaf.name: leaf.value for leaf in leaves(before.settings)}
    return [
        [leaf.name, str(old[leaf.name]), str(leaf.value)]
        for leaf in leaves(now.settings)
        if leaf.value != old[leaf.name] and not leaf.name.startswith(_SECTIONS)
    ]
