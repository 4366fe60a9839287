"""The page of a run: what there is, how good it is, why it isn't better, and the images that went worst."""

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
from pipeline.coco.annotations import read_annotations
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.curves import RECALLS, Curves
from pipeline.evaluation.errors import ERRORS, JOINT_ERRORS, SCORE_STEPS, ErrorAnalysis
from pipeline.evaluation.evaluate import Analysis
from pipeline.evaluation.groups import CROSSED, LABELLED, OVERLAPPED, GroupResult
from pipeline.evaluation.matching import THRESHOLDS
from pipeline.images import ImageRefused
from pipeline.report import charts
from pipeline.report.draw import draw_people, draw_truth, encode_picture, images_of
from pipeline.report.page import render
from pipeline.run import Run
from pipeline.run.tables import people_from_arrow, read_table, table_metadata, table_skeleton
from pipeline.skeletons import Skeleton

_WORST_IN_TABLE, _OTHERS_IN_TABLE = 1000, 500
_PICTURES, _PICTURE_SIDE = 12, 640
_PEOPLE_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 101)
_SIZE_STEPS = (0, 16, 32, 64, 128, 256, 512, 1024)
_CURVES = (0.5, 0.75, 0.9)
_MOST_BARS = 40  # joints that fit into one chart
_SAME = 0.005  # of a person: images that change by less are as before

Chart = tuple[str, str, bool]  # SVG, caption, wide


@dataclass(frozen=True)
class _Collection:
    """What the tables say of the images, as columns over all of them."""

    ids: list[str]
    statuses: list[str]
    errors: list[str | None]
    shards: list[str]
    people: np.ndarray
    sizes: np.ndarray  # of all people: square root of the box's area, pixels


def write_report(run: Run, metrics: RunMetrics | None = None, other: tuple[Run, RunMetrics] | None = None) -> str:
    """Write `report.html` of a reduced run and return its URI.

    Args:
        metrics: with its errors; None without annotations.
        other: a run to compare with, measured by the same annotations.
    """
    collection = _read(run)
    judged = _judged(metrics, collection)
    page = render(
        "report.html",
        title=storage.basename(run.uri.rstrip("/")) or run.uri,
        run=run,
        networks=table_metadata(run.uri).get("networks", []),
        statuses=Counter(collection.statuses).most_common(),
        people=int(collection.people.sum()),
        metrics=metrics,
        measured=_measured(metrics),
        error_charts=_error_charts(metrics, table_skeleton(run.uri)),
        group_charts=_group_charts(metrics),
        groups=_group_table(metrics),
        collection_charts=_collection_charts(run, collection),
        pictures=_pictures(run, metrics, judged, collection),
        table_data=_table(collection, judged),
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
        boxes = people_from_arrow(table).boxes
        sizes.append(np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)))
    return _Collection(
        ids, statuses, errors, shards, np.concatenate([np.zeros(0, int), *people]), np.concatenate(sizes)
    )


def _errors(metrics: RunMetrics | None) -> Analysis | None:
    return metrics.keypoints.analysis if metrics is not None and metrics.keypoints is not None else None


def _measured(metrics: RunMetrics | None) -> list[tuple[str, Mapping[str, float]]]:
    """Name and numbers of what was measured."""
    if metrics is None:
        return []
    named = [("keypoints", metrics.keypoints), ("person boxes", metrics.boxes)]
    return [(name, m.metrics.numbers) for name, m in named if m is not None]


def _error_charts(metrics: RunMetrics | None, skeleton: Skeleton) -> list[Chart]:
    analysis = _errors(metrics)
    if analysis is None or metrics is None or metrics.keypoints is None:
        return []
    errors = analysis.errors
    gains = {
        "alone": [errors.alone[kind] - errors.ap for kind in ERRORS],
        "one after another": [after - before for before, after in pairwise([errors.ap, *errors.cumulative.values()])],
    }
    found = [
        (_precision(metrics.keypoints.metrics.curves), "Precision and recall of people", False),
        (charts.bars(gains, ERRORS, "AP gained"), "What repairing each kind of error would gain", False),
        (_calibration(errors), "How far scores can be trusted: joints of people who were found", False),
    ]
    if len(skeleton) <= _MOST_BARS:
        totals = np.maximum(np.sum(list(errors.joints.values()), axis=0), 1)
        shares = {kind: errors.joints[kind] / totals for kind in ("good", *JOINT_ERRORS)}
        svg = charts.bars(shares, skeleton.joints, "share", stacked=True)
        found.append((svg, "Joints of people who were found", True))
        if errors.pck:
            pck = {length: [p.joints[joint] for joint in skeleton.joints] for length, p in errors.pck.items()}
            svg = charts.bars(pck, skeleton.joints, "share")
            found.append((svg, "Correct keypoints (PCK) within each length", True))
    return found


def _precision(curves: Curves) -> str:
    everybody = np.maximum(curves.precision[curves.subsets.index("all")], 0)
    chosen = {t: int(np.abs(THRESHOLDS - t).argmin()) for t in _CURVES}
    series = {f"OKS {t:g}": (RECALLS, everybody[row]) for t, row in chosen.items()}
    return charts.lines(series, "recall", "precision", unit_square=True)


def _calibration(errors: ErrorAnalysis) -> str:
    near, elsewhere, unlabelled = errors.calibration.T
    labelled, everywhere = near + elsewhere, near + elsewhere + unlabelled
    scores, some, any_ = (SCORE_STEPS[:-1] + SCORE_STEPS[1:]) / 2, labelled > 0, everywhere > 0
    series = {
        "near its place, of labelled joints": (scores[some], near[some] / labelled[some]),
        "not labelled, of all": (scores[any_], unlabelled[any_] / everywhere[any_]),
        "as sure as it is right": ([0, 1], [0, 1]),
    }
    return charts.lines(series, "score of a joint", "share", unit_square=True)


def _group_charts(metrics: RunMetrics | None) -> list[Chart]:
    analysis = _errors(metrics)
    if analysis is None:
        return []
    by_question: dict[str, list[GroupResult]] = {}
    for s in analysis.groups:
        by_question.setdefault(s.grouping, []).append(s)
    found = []
    for question, answers in by_question.items():
        if question == CROSSED.name:
            shape = (len(OVERLAPPED.labels), len(LABELLED.labels))
            values = np.array([s.ap if s.people else np.nan for s in answers]).reshape(shape)
            notes = np.array([f"{s.ap:.2f}\n{s.people}" if s.people else "" for s in answers]).reshape(shape)
            svg = charts.heatmap(values, OVERLAPPED.labels, LABELLED.labels, "AP, and how many people", notes)
            found.append((svg, question, False))
        elif sum(s.people > 0 for s in answers) > 1:
            names = [f"{s.label}\n{s.people}" for s in answers]
            svg = charts.bars({"AP": [max(s.ap, 0.0) for s in answers]}, names, "AP")
            found.append((svg, f"{question}, and how many people", False))
    return found


def _group_table(metrics: RunMetrics | None) -> dict[str, Any] | None:
    analysis = _errors(metrics)
    if analysis is None:
        return None
    rows = [[s.grouping, s.label, s.people, s.ap] for s in analysis.groups if s.people]
    return {"columns": ["by", "answer", "people", "AP"], "rows": rows, "marked": [False] * len(rows)}


def _collection_charts(run: Run, collection: _Collection) -> list[Chart]:
    found = [
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
        found.append((svg, "Images annotated over time, as the parts were written", False))
    return found


@dataclass(frozen=True)
class _Judged:
    """What is wrong in the images of the tables.

    Attributes:
        errors: over all annotated images.
        rows: of each image of the tables, its row there; -1 without annotations.
        costs: of each image of the tables, as `costs`; 0 without annotations.
    """

    errors: ErrorAnalysis
    rows: np.ndarray
    costs: np.ndarray


def _judged(metrics: RunMetrics | None, collection: _Collection) -> _Judged | None:
    analysis = _errors(metrics)
    if analysis is None or metrics is None:
        return None
    truth = read_annotations(metrics.annotations, None)
    ids = truth.coco_ids()
    numbers = np.array([-1 if (number := ids.get(i)) is None else number for i in collection.ids])
    known = numbers >= 0
    # The errors' images are those of the annotations, by ascending id.
    rows = np.where(known, np.searchsorted(truth.ids, numbers), -1)
    return _Judged(analysis.errors, rows, np.where(known, costs(analysis.errors)[rows], 0.0))


def costs(errors: ErrorAnalysis) -> np.ndarray:
    """(I,) how far each image's people are from all found rightly, in people."""
    columns = errors.images
    right = columns["annotated"] - columns["missed"]
    return columns["annotated"] + columns["background"] - right * np.nan_to_num(columns["similarity"])


def _image(errors: ErrorAnalysis, row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in errors.images.items()}


def _reason(image: Mapping[str, Any]) -> str:
    """In words what went wrong."""
    parts = []
    if image["missed"]:
        parts.append(f"{image['missed']:.0f} of {image['annotated']:.0f} people missed")
    if image["background"]:
        parts.append(f"{image['background']:.0f} found who are nobody")
    wrong = [f"{image[kind]:.0f} {kind}" for kind in JOINT_ERRORS if image[kind]]
    if wrong:
        parts.append(f"joints: {', '.join(wrong)}")
    if not math.isnan(image["similarity"]):
        parts.append(f"OKS {image['similarity']:.2f}")
    return "; ".join(parts) or "nothing"


def _pictures(
    run: Run, metrics: RunMetrics | None, judged: _Judged | None, collection: _Collection
) -> list[tuple[str, str, str]]:
    """Data URI, name and reason of the images that went worst, with truth and prediction."""
    if metrics is None or judged is None:
        return []
    readable = np.array(collection.statuses) == "ok"
    worst = [
        i for i in np.argsort(-judged.costs * readable, kind="stable")[:_PICTURES] if judged.costs[i] * readable[i] > 0
    ]
    row_of = {collection.ids[i]: int(judged.rows[i]) for i in worst}
    skeleton = table_skeleton(run.uri)
    truth = read_annotations(metrics.annotations, skeleton)
    found = {}
    try:
        for image_id, pixels, people in images_of(run, {collection.ids[i]: collection.shards[i] for i in worst}):
            row = row_of[image_id]
            annotated = truth.slice(row, row + 1).people
            counted = ~annotated.ignored
            boxes = annotated.boxes_xywh[counted]
            boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
            picture = draw_truth(pixels, annotated.keypoints[counted], boxes, skeleton)
            found[image_id] = _data_uri(draw_people(picture, people, skeleton))
    except (OSError, ValueError, ImageRefused) as error:
        # The photographs may have gone since they were annotated; the numbers haven't.
        return [("", "pictures", f"the images cannot be read any more: {error}")]
    return [(found[i], i, _reason(_image(judged.errors, row))) for i, row in row_of.items() if i in found]


def _data_uri(picture: np.ndarray) -> str:
    scale = min(1.0, _PICTURE_SIDE / max(picture.shape[:2]))
    size = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
    shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(encode_picture(shrunk)).decode()


def _table(collection: _Collection, judged: _Judged | None) -> dict[str, Any]:
    """The images with the most trouble, and some of the others, evenly."""
    failed = np.array(collection.statuses) != "ok"
    trouble = failed * 1e9 + (judged.costs if judged is not None else 0)
    worst = np.argsort(-trouble, kind="stable")
    others = worst[_WORST_IN_TABLE:]
    picked = np.unique(np.linspace(0, len(others) - 1, min(len(others), _OTHERS_IN_TABLE)).astype(int))
    shown = [*worst[:_WORST_IN_TABLE].tolist(), *others[picked].tolist()]
    columns = ["image", "status", "people"]
    if judged is not None:
        columns += ["annotated", "missed", "nobody", "OKS", "cost"]
    columns.append("what is wrong")
    cells = []
    for i in shown:
        line: list[Any] = [collection.ids[i], collection.statuses[i], int(collection.people[i])]
        reason = collection.errors[i]
        if judged is not None and judged.rows[i] >= 0:
            image = _image(judged.errors, int(judged.rows[i]))
            similarity = None if math.isnan(image["similarity"]) else round(image["similarity"], 3)
            line += [int(image[name]) for name in ("annotated", "missed", "background")]
            line += [similarity, round(float(judged.costs[i]), 3)]
            reason = reason or _reason(image)
        line += [None] * (len(columns) - 1 - len(line))
        cells.append([*line, reason])
    return {"columns": columns, "rows": cells, "marked": failed[shown].tolist()}


def _comparison(metrics: RunMetrics, other: tuple[Run, RunMetrics]) -> dict[str, Any] | None:
    """What this run does better and worse than another, in all and image by image."""
    other_run, other_metrics = other
    here, there = _errors(metrics), _errors(other_metrics)
    if here is None or there is None or metrics.keypoints is None or other_metrics.keypoints is None:
        return None
    ours, theirs = metrics.keypoints.metrics.numbers, other_metrics.keypoints.metrics.numbers
    numbers = [[name, theirs[name], ours[name], ours[name] - theirs[name]] for name in ours]
    gain = costs(there.errors) - costs(here.errors)  # both are measured by the same annotations
    changed = np.flatnonzero(np.abs(gain) > _SAME)
    most = changed[np.argsort(-np.abs(gain[changed]), kind="stable")][: _WORST_IN_TABLE + _OTHERS_IN_TABLE].tolist()
    names = read_annotations(metrics.annotations, None).images["file_name"]
    rows = [
        [names[i], round(float(gain[i]), 3), _reason(_image(there.errors, i)), _reason(_image(here.errors, i))]
        for i in most
    ]
    return {
        "other": other_run.uri,
        "better": int((gain[changed] > 0).sum()),
        "worse": int((gain[changed] < 0).sum()),
        "same": len(gain) - len(changed),
        "numbers": {"columns": ["", "before", "now", "change"], "rows": numbers, "marked": [False] * len(numbers)},
        "images": {
            "columns": ["image", "gain", "before", "now"],
            "rows": rows,
            "marked": (gain[most] < 0).tolist(),
        },
    }
