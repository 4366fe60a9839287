"""The page of a run: verdict, pictures of the errors, videos, metrics, comparison, groups, and all images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import storage
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.image_errors import ImageErrors, TruthOfImages
from pipeline.evaluation.thresholds import people_by_threshold
from pipeline.report import verdict
from pipeline.report.charts import Drawn
from pipeline.report.collection_charts import collection_charts
from pipeline.report.comparison import compare, label
from pipeline.report.evaluation_charts import error_charts, group_charts, threshold_chart
from pipeline.report.galleries import Gallery, event_gallery, galleries
from pipeline.report.image_table import failure_table, image_table, listed_rows
from pipeline.report.page import render
from pipeline.report.pictures import JOINT_CLASSES, LARGE, SMALL, overlays, pictures
from pipeline.report.video_section import read_videos
from pipeline.review.ranking import suspicion
from pipeline.run import Run
from pipeline.run.statistics import Statistics
from pipeline.run.tables import image_ids, table_skeleton
from pipeline.skeletons import Skeleton

_COMPARED_PICTURES = 12


def write_report(run: Run, metrics: RunMetrics | None = None, other: tuple[Run, RunMetrics] | None = None) -> str:
    """Write `report.html` of a reduced run and return its URI.

    Args:
        metrics: with error analysis; None without annotations.
        other: a run to compare with, evaluated against the same annotations.
    """
    statistics, skeleton = Statistics.read(run), table_skeleton(run.uri)
    errors = ImageErrors.of(metrics, statistics, skeleton)
    truth = None if errors is None else _truth(errors, statistics)
    unusual = suspicion(statistics)
    videos = read_videos(run)
    shown = [*galleries(statistics, unusual, errors), *event_gallery(statistics, videos.event_images)]
    rows = listed_rows(statistics, unusual, errors)
    comparison = compare(run, metrics, *other, errors.truth) if other and metrics and errors else None
    compared = _compared_ids(comparison, truth, statistics) if comparison and truth else []
    sides = _sides(statistics, shown, rows, compared)
    shards = dict(zip(statistics.ids, statistics.shards, strict=True))
    drawn = dict(pictures(run, {i: shards[i] for i in sides}, sides, truth, skeleton))
    before = {}
    if comparison and truth and other:
        before = overlays(other[0], _other_ids(other[0], truth, drawn.keys() & set(compared)), truth, skeleton)
        comparison["pairs"] = [i for i in compared[:_COMPARED_PICTURES] if i in before]
        comparison["images"]["pictures"] = [i if i in before else None for i in compared]
    table = image_table(rows, statistics, unusual, errors)
    table["pictures"] = [statistics.ids[row] if statistics.ids[row] in drawn else None for row in rows]
    evaluation = _analysed(metrics)
    page = render(
        "report.html",
        title=storage.basename(run.uri.rstrip("/")) or run.uri,
        run=run,
        counts=verdict.counts(run, statistics),
        sentences=verdict.sentences(metrics, statistics, len(unusual.reasons)),
        rates=verdict.rates(metrics),
        provenance=verdict.provenance(run),
        metrics=metrics,
        evaluated=_evaluated(metrics),
        galleries=[
            {
                "name": g.name,
                "title": g.title,
                "note": g.note,
                "total": g.total,
                "shown": len(g.rows),
                "items": _captioned(g.rows, g.captions, statistics, drawn),
            }
            for g in shown
        ],
        lost_pictures=len(sides) - len(drawn),
        drawing={
            "pictures": drawn,
            "before": before,
            "limbs": skeleton.limbs,
            "joints": skeleton.joints,
            "classes": JOINT_CLASSES,
        },
        error_charts=[*_threshold_chart(run, errors, skeleton), *error_charts(evaluation, skeleton)]
        if evaluation and errors
        else [],
        group_charts=group_charts(evaluation.analysis.groups) if evaluation and evaluation.analysis else [],
        groups=_group_table(evaluation),
        videos=videos,
        collection_charts=collection_charts(run, statistics),
        failures=failure_table(statistics),
        table_data=table,
        sampled=len(statistics.ids) > len(rows),
        comparison=comparison,
    )
    uri = run.path("report.html")
    storage.write_bytes(uri, page)
    return uri


def _compared_ids(comparison: dict[str, Any], truth: TruthOfImages, statistics: Statistics) -> list[str | None]:
    """The image of each row of a comparison; None if it was not read: it might end the process that decodes it."""
    id_of_name = {truth.annotations.images["file_name"][row]: image_id for image_id, row in truth.rows.items()}
    readable = {image_id for image_id, ok in zip(statistics.ids, statistics.ok, strict=True) if ok}
    named = [id_of_name.get(line[0]) for line in comparison["images"]["rows"]]
    return [image_id if image_id in readable else None for image_id in named]


def _sides(
    statistics: Statistics, shown: Sequence[Gallery], rows: Sequence[int], compared: Sequence[str | None]
) -> dict[str, int]:
    """The longer side in pixels of every picture of the page, by image id: large in galleries, small behind rows."""
    large = [statistics.ids[row] for gallery in shown for row in gallery.rows]
    large += [image_id for image_id in compared[:_COMPARED_PICTURES] if image_id is not None]
    small = [statistics.ids[row] for row in rows if statistics.ok[row]]
    small += [image_id for image_id in compared if image_id is not None]
    return dict.fromkeys(small, SMALL) | dict.fromkeys(large, LARGE)


def _threshold_chart(run: Run, errors: ImageErrors, skeleton: Skeleton) -> list[Drawn]:
    if not run.settings.detector.has_confidence:
        return []
    points = people_by_threshold(run, errors.truth, errors.ids, skeleton)
    return [threshold_chart(points, f"Higher thresholds (--detector.confidence); the run's own is {min(points):g}")]


def _analysed(metrics: RunMetrics | None) -> Evaluation | None:
    """The evaluation of poses with its error analysis, if there is one."""
    if metrics is None or metrics.keypoints is None or metrics.keypoints.analysis is None:
        return None
    return metrics.keypoints


def _evaluated(metrics: RunMetrics | None) -> list[tuple[str, dict[str, float]]]:
    """The metrics of poses and of boxes by name, with a heading each."""
    if metrics is None:
        return []
    named = [("Keypoints", metrics.keypoints), ("Person boxes", metrics.boxes)]
    return [
        (name, {label(key): value for key, value in m.metrics.numbers.items()}) for name, m in named if m is not None
    ]


def _truth(errors: ImageErrors, statistics: Statistics) -> TruthOfImages:
    rows = {image_id: int(row) for image_id, row in zip(statistics.ids, errors.rows, strict=True) if row >= 0}
    return TruthOfImages(errors.truth, rows)


def _other_ids(other: Run, truth: TruthOfImages, wanted: set[str]) -> dict[str, str]:
    """The id that each wanted image has in another run, by its id in this one; those it lacks are left out."""
    numbers = truth.annotations.ids
    ids = truth.annotations.match_ids(image_ids(other.uri))
    other_of = {number: key for key, number in ids.by_key.items()}
    found = {i: other_of.get(int(numbers[truth.rows[i]])) for i in wanted}
    return {i: key for i, key in found.items() if key is not None}


def _captioned(
    rows: list[int], captions: list[str], statistics: Statistics, drawn: dict[str, Any]
) -> list[dict[str, str]]:
    named = zip((statistics.ids[row] for row in rows), captions, strict=True)
    return [{"id": image_id, "caption": caption} for image_id, caption in named if image_id in drawn]


def _group_table(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None or evaluation.analysis is None:
        return None
    rows = [[r.grouping, r.label, r.people, r.ap] for r in evaluation.analysis.groups if r.people]
    return {"columns": ["grouping", "group", "people", "AP"], "rows": rows, "marked": [False] * len(rows)}
