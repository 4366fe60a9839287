"""The page of a run: metrics, comparison, error analysis, results by group, worst images, and the collection."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from pipeline import storage
from pipeline.boxes import areas, xywh_to_xyxy
from pipeline.coco.annotations import Annotations, read_annotations
from pipeline.coco.ids import CocoIds
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.curves import RECALLS, Curves
from pipeline.evaluation.errors import ERRORS, JOINT_ERRORS, SCORE_STEPS, ErrorAnalysis
from pipeline.evaluation.evaluate import Analysis
from pipeline.evaluation.groups import CROSSED, LABELLED, OVERLAPPED, GroupResult
from pipeline.evaluation.matching import THRESHOLDS
from pipeline.images import ImageRefused
from pipeline.jpeg import encode_jpeg
from pipeline.report import charts
from pipeline.report.draw import draw_people, draw_truth, images_of
from pipeline.report.page import render
from pipeline.run import Run
from pipeline.run.columns import people_from_arrow
from pipeline.run.tables import read_table, table_metadata, table_skeleton
from pipeline.skeletons import Skeleton

_WORST_IN_TABLE, _OTHERS_IN_TABLE = 1000, 500
_PICTURES, _PICTURE_SIDE = 12, 640
_PEOPLE_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 101)
_SIZE_STEPS = (0, 16, 32, 64, 128, 256, 512, 1024)
_CURVES = (0.5, 0.75, 0.9)
_MAX_BARS = 40  # joints that fit into one chart
_UNCHANGED = 0.005  # in people: images whose cost changes by less count as unchanged

Chart = tuple[str, str, bool]  # SVG, caption, wide


@dataclass(frozen=True)
class _Collection:
    """All images of the tables, as columns."""

    ids: list[str]
    statuses: list[str]
    errors: list[str | None]
    shards: list[str]
    people: np.ndarray
    sizes: np.ndarray  # of all people: square root of the box's area, pixels


def write_report(run: Run, metrics: RunMetrics | None = None, other: tuple[Run, RunMetrics] | None = None) -> str:
    """Write `report.html` of a reduced run and return its URI.

    Args:
        metrics: with error analysis; None without annotations.
        other: a run to compare with, evaluated against the same annotations.
    """
    collection = _read(run)
    image_errors = _image_errors(metrics, collection)
    page = render(
        "report.html",
        title=storage.basename(run.uri.rstrip("/")) or run.uri,
        run=run,
        networks=table_metadata(run.uri).get("networks", []),
        statuses=Counter(collection.statuses).most_common(),
        people=int(collection.people.sum()),
        metrics=metrics,
        evaluated=_evaluated(metrics),
        error_charts=_error_charts(metrics, table_skeleton(run.uri)),
        group_charts=_group_charts(metrics),
        groups=_group_table(metrics),
        collection_charts=_collection_charts(run, collection),
        pictures=_pictures(run, metrics, image_errors, collection),
        table_data=_table(collection, image_errors),
        sampled=len(collection.ids) > _WORST_IN_TABLE + _OTHERS_IN_TABLE,
        comparison=_comparison(metrics, other) if other and metrics else None,
    )
    uri = run.path("report.html")
    storage.write_bytes(uri, page)
    return uri


def _read(run: Run) -> _Collection:
    ids, statuses, errors, shards, people = [], [], [], [], []
    for table in read_table(run.uri, "images", ["image_id", "status", "error", "shard", "num_people"]):
        ids += table["image_id"].to_pylist()
        statuses += table["status"].to_pylist()
        errors += table["error"].to_pylist()
        shards += table["shard"].to_pylist()
        people.append(table["num_people"].to_numpy())
    sizes = [np.zeros(0)]
    for table in read_table(run.uri, "people"):
        sizes.append(np.sqrt(areas(people_from_arrow(table).boxes)))
    return _Collection(
        ids, statuses, errors, shards, np.concatenate([np.zeros(0, int), *people]), np.concatenate(sizes)
    )


def _analysis(metrics: RunMetrics | None) -> Analysis | None:
    return metrics.keypoints.analysis if metrics is not None and metrics.keypoints is not None else None


def _evaluated(metrics: RunMetrics | None) -> list[tuple[str, Mapping[str, float]]]:
    """The metrics of poses and of boxes, with a heading each."""
    if metrics is None:
        return []
    named = [("keypoints", metrics.keypoints), ("person boxes", metrics.boxes)]
    return [(name, m.metrics.numbers) for name, m in named if m is not None]


def _error_charts(metrics: RunMetrics | None, skeleton: Skeleton) -> list[Chart]:
    analysis = _analysis(metrics)
    if analysis is None or metrics is None or metrics.keypoints is None:
        return []
    errors = analysis.errors
    gains = {
        "alone": [errors.alone[kind] - errors.ap for kind in ERRORS],
        "one after another": [after - before for before, after in pairwise([errors.ap, *errors.cumulative.values()])],
    }
    drawn = [
        (_precision(metrics.keypoints.metrics.curves), "Precision and recall", False),
        (charts.bars(gains, ERRORS, "AP gained"), "AP gained by repairing each kind of error", False),
        (_calibration(errors), "Calibration of joint scores, matched people", False),
    ]
    if len(skeleton) <= _MAX_BARS:
        totals = np.maximum(np.sum(list(errors.joints.values()), axis=0), 1)
        shares = {kind: errors.joints[kind] / totals for kind in ("good", *JOINT_ERRORS)}
        svg = charts.bars(shares, skeleton.joints, "share", stacked=True)
        drawn.append((svg, "Errors by joint, matched people", True))
        if errors.pck:
            pck = {length: [p.joints[joint] for joint in skeleton.joints] for length, p in errors.pck.items()}
            svg = charts.bars(pck, skeleton.joints, "share")
            drawn.append((svg, "Correct keypoints (PCK), by allowed distance", True))
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


def _group_charts(metrics: RunMetrics | None) -> list[Chart]:
    analysis = _analysis(metrics)
    if analysis is None:
        return []
    by_grouping: dict[str, list[GroupResult]] = {}
    for result in analysis.groups:
        by_grouping.setdefault(result.grouping, []).append(result)
    drawn = []
    for name, results in by_grouping.items():
        if name == CROSSED.name:
            shape = (len(OVERLAPPED.labels), len(LABELLED.labels))
            values = np.array([r.ap if r.people else np.nan for r in results]).reshape(shape)
            notes = np.array([f"{r.ap:.2f}\n{r.people}" if r.people else "" for r in results]).reshape(shape)
            svg = charts.heatmap(values, OVERLAPPED.labels, LABELLED.labels, "AP, number of people", notes)
            drawn.append((svg, f"AP by {name}", False))
        elif sum(r.people > 0 for r in results) > 1:
            names = [f"{r.label}\n{r.people}" for r in results]
            svg = charts.bars({"AP": [max(r.ap, 0.0) for r in results]}, names, "AP")
            drawn.append((svg, f"AP by {name}; the number of people under each group", False))
    return drawn


def _group_table(metrics: RunMetrics | None) -> dict[str, Any] | None:
    analysis = _analysis(metrics)
    if analysis is None:
        return None
    rows = [[r.grouping, r.label, r.people, r.ap] for r in analysis.groups if r.people]
    return {"columns": ["grouping", "group", "people", "AP"], "rows": rows, "marked": [False] * len(rows)}


def _collection_charts(run: Run, collection: _Collection) -> list[Chart]:
    drawn = [
        (charts.histogram(collection.people, "people in an image", "images", _PEOPLE_STEPS), "People per image", False),
        (
            charts.histogram(collection.sizes, "square root of the box's area, pixels", "people", _SIZE_STEPS),
            "Sizes of people",
            False,
        ),
    ]
    times = sorted((time, shard) for shard, time in run.part_times().items())
    if len(times) > 1:
        counts = run.manifest().counts
        minutes = [(time - times[0][0]) / 60 for time, _ in times]
        images = np.cumsum([counts.get(shard, 0) for _, shard in times]).tolist()
        svg = charts.lines({"images": (minutes, images)}, "minutes since the first part", "images")
        drawn.append((svg, "Images annotated over time, from the modification times of parts", False))
    return drawn


@dataclass(frozen=True)
class _ImageErrors:
    """The errors of the images of the tables.

    Attributes:
        errors: of all annotated images.
        rows: of each image of the tables, its row in `errors.images`; -1 without annotations.
        costs: of each image of the tables, see `costs`; 0 without annotations.
    """

    errors: ErrorAnalysis
    rows: np.ndarray
    costs: np.ndarray


def _image_errors(metrics: RunMetrics | None, collection: _Collection) -> _ImageErrors | None:
    analysis = _analysis(metrics)
    if analysis is None or metrics is None:
        return None
    truth, ids = _evaluated_truth(metrics, collection, None)
    numbers = np.array([-1 if (number := ids.get(i)) is None else number for i in collection.ids])
    known = numbers >= 0
    # `errors.images` has the evaluated images, by ascending id.
    rows = np.where(known, np.searchsorted(truth.ids, numbers), -1)
    return _ImageErrors(analysis.errors, rows, np.where(known, costs(analysis.errors)[rows], 0.0))


def _evaluated_truth(
    metrics: RunMetrics, collection: _Collection, skeleton: Skeleton | None
) -> tuple[Annotations, CocoIds[int]]:
    """The annotated images that the metrics are of, and the ids of the run's images."""
    truth = read_annotations(metrics.annotations, skeleton)
    ids = truth.match_ids(collection.ids)
    return (truth.select(ids.by_key.values()) if metrics.only_images_in_run else truth), ids


def costs(errors: ErrorAnalysis) -> np.ndarray:
    """(I,) cost of each image in people: missed people + false positives + (1 - OKS) of each matched person."""
    columns = errors.images
    matched = columns["annotated"] - columns["missed"]
    return columns["annotated"] + columns["background"] - matched * np.nan_to_num(columns["similarity"])


def _image(errors: ErrorAnalysis, row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in errors.images.items()}


def _describe(image: Mapping[str, Any]) -> str:
    """The errors of an image as text."""
    parts = []
    if image["missed"]:
        parts.append(f"{image['missed']:.0f} of {image['annotated']:.0f} people missed")
    if image["background"]:
        parts.append(f"{image['background']:.0f} false positive{'s' if image['background'] > 1 else ''}")
    wrong = [f"{image[kind]:.0f} {kind}" for kind in JOINT_ERRORS if image[kind]]
    if wrong:
        parts.append(f"joints: {', '.join(wrong)}")
    if not math.isnan(image["similarity"]):
        parts.append(f"OKS {image['similarity']:.2f}")
    return "; ".join(parts) or "none"


def _pictures(
    run: Run, metrics: RunMetrics | None, image_errors: _ImageErrors | None, collection: _Collection
) -> list[tuple[str, str, str]]:
    """Data URI, name and errors of the images with the highest cost; annotations and detections are drawn."""
    if metrics is None or image_errors is None:
        return []
    readable_costs = image_errors.costs * (np.array(collection.statuses) == "ok")
    worst = [i for i in np.argsort(-readable_costs, kind="stable")[:_PICTURES] if readable_costs[i] > 0]
    row_of = {collection.ids[i]: int(image_errors.rows[i]) for i in worst}
    skeleton = table_skeleton(run.uri)
    truth, _ = _evaluated_truth(metrics, collection, skeleton)
    data_uris = {}
    try:
        for image_id, pixels, people in images_of(run, {collection.ids[i]: collection.shards[i] for i in worst}):
            row = row_of[image_id]
            annotated = truth.slice(row, row + 1).people
            counted = ~annotated.ignored
            boxes_xyxy = xywh_to_xyxy(annotated.boxes_xywh[counted])
            picture = draw_truth(pixels, annotated.keypoints[counted], boxes_xyxy, skeleton)
            data_uris[image_id] = _data_uri(draw_people(picture, people, skeleton))
    except (OSError, ValueError, ImageRefused) as error:
        # The images may have been deleted since they were annotated; the metrics are still valid.
        return [("", "pictures", f"the images can no longer be read: {error}")]
    return [(data_uris[i], i, _describe(_image(image_errors.errors, r))) for i, r in row_of.items() if i in data_uris]


def _data_uri(picture: np.ndarray) -> str:
    scale = min(1.0, _PICTURE_SIDE / max(picture.shape[:2]))
    size = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
    shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(shrunk)).decode()


def _table(collection: _Collection, image_errors: _ImageErrors | None) -> dict[str, Any]:
    """The failed images, those with the highest cost, and an even sample of the others."""
    failed = np.array(collection.statuses) != "ok"
    priority = failed * 1e9 + (image_errors.costs if image_errors is not None else 0)
    worst = np.argsort(-priority, kind="stable")
    others = worst[_WORST_IN_TABLE:]
    picked = np.unique(np.linspace(0, len(others) - 1, min(len(others), _OTHERS_IN_TABLE)).astype(int))
    shown = [*worst[:_WORST_IN_TABLE].tolist(), *others[picked].tolist()]
    columns = ["image", "status", "people"]
    if image_errors is not None:
        columns += ["annotated", "missed", "false positives", "OKS", "cost"]
    columns.append("errors")
    cells = []
    for i in shown:
        line: list[Any] = [collection.ids[i], collection.statuses[i], int(collection.people[i])]
        text = collection.errors[i]
        if image_errors is not None and image_errors.rows[i] >= 0:
            image = _image(image_errors.errors, int(image_errors.rows[i]))
            similarity = None if math.isnan(image["similarity"]) else round(image["similarity"], 3)
            line += [int(image[name]) for name in ("annotated", "missed", "background")]
            line += [similarity, round(float(image_errors.costs[i]), 3)]
            text = text or _describe(image)
        line += [None] * (len(columns) - 1 - len(line))
        cells.append([*line, text])
    return {"columns": columns, "rows": cells, "marked": failed[shown].tolist()}


def _comparison(metrics: RunMetrics, other: tuple[Run, RunMetrics]) -> dict[str, Any] | None:
    """Metrics of another run (before) and of this one (now), and the images whose cost changed."""
    other_run, other_metrics = other
    now, before = _analysis(metrics), _analysis(other_metrics)
    if now is None or before is None or metrics.keypoints is None or other_metrics.keypoints is None:
        return None
    numbers, numbers_before = metrics.keypoints.metrics.numbers, other_metrics.keypoints.metrics.numbers
    changes = [[name, numbers_before[name], value, value - numbers_before[name]] for name, value in numbers.items()]
    gain = costs(before.errors) - costs(now.errors)  # rows agree: both are evaluated against the same annotations
    changed = np.flatnonzero(np.abs(gain) > _UNCHANGED)
    by_size = changed[np.argsort(-np.abs(gain[changed]), kind="stable")]
    shown = by_size[: _WORST_IN_TABLE + _OTHERS_IN_TABLE].tolist()
    names = read_annotations(metrics.annotations, None).images["file_name"]
    rows = [
        [names[i], round(float(gain[i]), 3), _describe(_image(before.errors, i)), _describe(_image(now.errors, i))]
        for i in shown
    ]
    return {
        "other": other_run.uri,
        "better": int((gain[changed] > 0).sum()),
        "worse": int((gain[changed] < 0).sum()),
        "same": len(gain) - len(changed),
        "numbers": {"columns": ["", "before", "now", "change"], "rows": changes, "marked": [False] * len(changes)},
        "images": {
            "columns": ["image", "gain", "before", "now"],
            "rows": rows,
            "marked": (gain[shown] < 0).tolist(),
        },
    }
