"""The leaderboard of a sweep, as a table and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evaluation.intervals import Estimate
from pipeline.evaluation.operating_point import OperatingPoint
from pipeline.report import charts
from pipeline.report.charts import Drawn, Point
from pipeline.report.evaluation_charts import threshold_chart
from pipeline.report.page import render
from pipeline.sweep.candidates import Outcome
from pipeline.sweep.trials import Trial


@dataclass(frozen=True)
class Row:
    """A trial and its outcome.

    Attributes:
        is_first: whether it is the first trial of the sweep.
        f1_change, ap_change: F1 and AP minus those of the first trial, on the same images.
        images_per_second, peak_megabytes: measured with exactly these settings; None if they were not run.
        run: URI of the run whose candidates were used.
        command: annotates with these settings.
    """

    trial: Trial
    outcome: Outcome
    is_first: bool
    f1_change: Estimate
    ap_change: Estimate
    images_per_second: float | None
    peak_megabytes: float | None
    run: str
    command: str


@dataclass(frozen=True)
class ThresholdCurve:
    """The people found and the false positives of the best trial with other thresholds of the box score.

    Attributes:
        setting: name of the threshold.
        chosen: threshold of the trial.
        points: by threshold.
    """

    setting: str
    chosen: float
    points: dict[float, OperatingPoint]


def changes(outcome: Outcome, first: Outcome) -> tuple[Estimate, Estimate]:
    """F1 and AP minus those of the first trial, with intervals of the paired differences over resampled images."""
    return (
        Estimate.of(outcome.f1 - first.f1, outcome.resampled_f1 - first.resampled_f1),
        Estimate.of(outcome.metrics.ap - first.metrics.ap, outcome.resampled_ap - first.resampled_ap),
    )


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Rows by descending F1, then AP; equal ones keep the order of the sweep.

    AP alone would rank a trial with many false positives of low scores as high as one without.
    """
    return sorted(rows, key=lambda row: (-np.nan_to_num(row.outcome.f1, nan=-1.0), -row.outcome.metrics.ap))


def pareto(rows: Sequence[Row]) -> list[bool]:
    """Whether each row is on the Pareto front of F1 and speed; rows without a measured speed are not."""

    def dominated(row: Row, speed: float) -> bool:
        return any(
            other.images_per_second is not None
            and other.outcome.f1 >= row.outcome.f1
            and other.images_per_second >= speed
            and (other.outcome.f1, other.images_per_second) != (row.outcome.f1, speed)
            for other in rows
        )

    return [row.images_per_second is not None and not dominated(row, row.images_per_second) for row in rows]


def settings_tried(rows: Sequence[Row]) -> list[str]:
    """The names of all settings that a trial varies."""
    return list(dict.fromkeys(name for row in rows for name in row.trial.varied))


def value_of(row: Row, name: str) -> Any:
    """The value of a setting in a trial, varied or not."""
    value: Any = row.trial.settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def leaderboard_table(rows: Sequence[Row]) -> pa.Table:
    """One row per trial: its settings as JSON, its metrics, its run and its command."""
    names = settings_tried(rows)
    columns: dict[str, list[Any]] = {
        name: [json.dumps(value_of(row, name), default=str) for row in rows] for name in names
    }
    columns["f1"] = [row.outcome.f1 for row in rows]
    for name in rows[0].outcome.metrics.numbers:
        columns[name] = [row.outcome.metrics.numbers[name] for row in rows]
    for metric in ("f1_change", "ap_change"):
        for bound in ("value", "low", "high"):
            name = metric if bound == "value" else f"{metric}_{bound}"
            columns[name] = [getattr(getattr(row, metric), bound) for row in rows]
    for name in ("recall", "precision", "false_positives_per_image"):
        columns[name] = [getattr(row.outcome.people.rates, name) for row in rows]
    columns |= {
        "people": [row.outcome.num_people for row in rows],
        "images_per_second": [row.images_per_second for row in rows],
        "peak_megabytes": [row.peak_megabytes for row in rows],
        "pareto": pareto(rows),
        "run": [row.run for row in rows],
        "command": [row.command for row in rows],
    }
    return pa.table(columns)


def leaderboard_page(rows: Sequence[Row], annotations: str, curve: ThresholdCurve | None) -> bytes:
    """The page of ranked rows: a table, and charts whose points link to its rows.

    Args:
        rows: ranked, at least one.
        annotations: URI of the annotations that trials are evaluated against.
        curve: of the best trial; None if it has no threshold.
    """
    names = settings_tried(rows)
    front = pareto(rows)
    measured = any(row.images_per_second is not None for row in rows)
    columns = ["rank", *names, "F1", "F1 change", "AP", "AP change", "recall", "precision", "false positives per image"]
    columns += ["AP50", "AR", "people", *(["images/s", "peak MB"] if measured else []), "command"]
    cells = []
    for rank, row in enumerate(rows, 1):
        metrics, people = row.outcome.metrics, row.outcome.people
        cells.append(
            [
                rank,
                *(_shown(value_of(row, name)) for name in names),
                *(row.outcome.f1, _change(row, row.f1_change), metrics.ap, _change(row, row.ap_change)),
                *(people.rates.recall, people.rates.precision, people.rates.false_positives_per_image),
                *(metrics.ap50, metrics.ar, row.outcome.num_people),
                *((row.images_per_second, row.peak_megabytes) if measured else ()),
                row.command,
            ]
        )
    cells = [[None if isinstance(v, float) and np.isnan(v) else v for v in line] for line in cells]
    ids = [_id(rank) for rank in range(1, len(rows) + 1)]
    people = rows[0].outcome.people
    return render(
        "leaderboard.html",
        title="Sweep",
        trials=len(rows),
        images=len(people.annotated),
        num_annotated=int(people.annotated.sum()),
        annotations=annotations,
        boxes=", ".join(sorted({row.trial.settings.detector.name for row in rows})),
        best=rows[0],
        certain=_certain(rows[0], len(rows)),
        first=next(
            ", ".join(f"{name} {_shown(value)}" for name, value in row.trial.varied.items())
            for row in rows
            if row.is_first
        ),
        measured=measured,
        data={"columns": columns, "rows": cells, "marked": [False] * len(rows), "ids": ids},
        charts=_charts(rows, front, curve),
    )


def _change(row: Row, change: Estimate) -> str:
    return "first trial" if row.is_first else f"{change:+.3f}"


def _certain(best: Row, trials: int) -> str:
    """Whether the best trial is better than the first one, in words."""
    if best.is_first:
        return "The first trial of the sweep ranks first."
    if best.f1_change.low > 0:
        return (
            "Its F1 is higher than that of the first trial: the interval of the difference does not include 0. The "
            f"best of {trials} trials looks better than it is; check it on other images."
        )
    return "Its F1 may be higher than that of the first trial by chance: the interval of the difference includes 0."


def _charts(rows: Sequence[Row], front: Sequence[bool], curve: ThresholdCurve | None) -> list[Drawn]:
    def dots(x: Any, y: Any, chosen: Sequence[Row], marked: Sequence[bool]) -> list[Point]:
        ranks = {id(row): rank for rank, row in enumerate(rows, 1)}
        return [
            Point(x(row), y(row), str(ranks[id(row)]), f"#{_id(ranks[id(row)])}", mark)
            for row, mark in zip(chosen, marked, strict=True)
            if np.isfinite(x(row)) and np.isfinite(y(row))
        ]

    best = [rank == 0 for rank in range(len(rows))]
    drawn = []
    if len(rows) > 1:
        shown = dots(lambda r: r.outcome.people.rates.recall, lambda r: r.outcome.people.rates.precision, rows, best)
        drawn.append(Drawn(charts.points(shown, "recall", "precision"), "Recall and precision; numbers are ranks"))
        shown = dots(
            lambda r: r.outcome.people.rates.false_positives_per_image, lambda r: r.outcome.metrics.ap, rows, best
        )
        svg = charts.points(shown, "false positives per image", "AP")
        drawn.append(Drawn(svg, "AP and false positives; numbers are ranks"))
    timed = [i for i, row in enumerate(rows) if row.images_per_second is not None]
    if len(timed) > 1:
        chosen = [rows[i] for i in timed]
        shown = dots(lambda r: r.images_per_second, lambda r: r.outcome.f1, chosen, [front[i] for i in timed])
        svg = charts.points(shown, "images/s", "F1")
        drawn.append(Drawn(svg, "F1 and speed, where it was measured; the Pareto front is orange"))
    if curve is not None and len(curve.points) > 1:
        caption = f"Rank 1 with other thresholds ({curve.setting}); its own is {curve.chosen:g}"
        drawn.append(threshold_chart(curve.points, caption))
    for name in settings_tried(rows):
        values: dict[str, list[float]] = {}
        for row in rows:
            if np.isfinite(row.outcome.f1):
                values.setdefault(str(_shown(value_of(row, name))), []).append(row.outcome.f1)
        if len(values) > 1:
            ordered = {value: values[value] for value in sorted(values, key=_by_number)}
            drawn.append(
                Drawn(charts.ranges(ordered, "F1"), f"{name}: F1 of the trials with each value, the best orange")
            )
    return drawn


def _id(rank: int) -> str:
    return f"rank-{rank}"


def _shown(value: Any) -> Any:
    """The value of a setting in a table cell: numbers stay numbers and sort as such."""
    if isinstance(value, tuple | list):
        return ", ".join(str(_shown(item)) for item in value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
