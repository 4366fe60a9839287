"""The leaderboard of a sweep, as a table and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.evaluation import Metrics
from pipeline.report import charts
from pipeline.report.page import render
from pipeline.sweep.trials import Trial


@dataclass(frozen=True)
class Row:
    """A trial and its outcome.

    Attributes:
        people: number of detected people in the annotated images.
        images_per_second, peak_megabytes: of the run with its networks; None if not measured.
        run: URI of that run.
    """

    trial: Trial
    metrics: Metrics
    people: int
    images_per_second: float | None
    peak_megabytes: float | None
    run: str


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Rows by descending AP; equal ones keep the order of the sweep."""
    return sorted(rows, key=lambda row: -row.metrics.ap)


def pareto(rows: Sequence[Row]) -> list[bool]:
    """Whether each row is on the Pareto front of AP and speed; rows without a measured speed are not."""

    def dominated(row: Row, speed: float) -> bool:
        return any(
            other.images_per_second is not None
            and other.metrics.ap >= row.metrics.ap
            and other.images_per_second >= speed
            and (other.metrics.ap, other.images_per_second) != (row.metrics.ap, speed)
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
    front = pareto(rows)
    columns: dict[str, list[Any]] = {
        name: [json.dumps(value_of(row, name), default=str) for row in rows] for name in names
    }
    for name in rows[0].metrics.numbers:
        columns[name] = [row.metrics.numbers[name] for row in rows]
    columns |= {
        "people": [row.people for row in rows],
        "images_per_second": [row.images_per_second for row in rows],
        "peak_megabytes": [row.peak_megabytes for row in rows],
        "pareto": front,
        "run": [row.run for row in rows],
        "command": [row.trial.command for row in rows],
    }
    return pa.table(columns)


def leaderboard_page(rows: Sequence[Row], annotations: str, images: int) -> bytes:
    """The page of ranked rows: a table, a chart of AP and speed, and a chart of the best AP by value of each setting.

    Args:
        rows: by descending AP, at least one.
        annotations: URI of the annotations that trials are evaluated against.
        images: number of annotated images.
    """
    names = settings_tried(rows)
    front = pareto(rows)
    columns = [*names, "AP", "AP50", "AP75", "AR", "people", "images/s", "peak MB", "command"]
    cells = [
        [
            *(_shown(value_of(row, name)) for name in names),
            row.metrics.ap, row.metrics.ap50, row.metrics.ap75, row.metrics.ar, row.people, row.images_per_second,
            row.peak_megabytes, row.trial.command,
        ]
        for row in rows
    ]  # fmt: skip
    drawn = []
    timed = [row for row in rows if row.images_per_second is not None]
    if len({row.run for row in timed}) > 1:
        speeds = [row.images_per_second or 0.0 for row in timed]
        svg = charts.points(speeds, [row.metrics.ap for row in timed], pareto(timed), "images/s", "AP")
        drawn.append((svg, "AP and speed of each trial; the line joins the Pareto front"))
    for name in names:
        best: dict[str, float] = {}
        for row in rows:
            value = str(_shown(value_of(row, name)))
            best[value] = max(best.get(value, -1.0), row.metrics.ap)
        if len(best) > 1:
            values = sorted(best, key=_by_number)
            svg = charts.bars({"AP": [best[value] for value in values]}, values, "best AP")
            drawn.append((svg, f"{name}: best AP of the trials with each value"))
    return render(
        "leaderboard.html",
        title="Sweep",
        trials=len(rows),
        images=images,
        annotations=annotations,
        boxes=", ".join(sorted({row.trial.settings.detector.name for row in rows})),
        best=rows[0],
        spread=rows[0].metrics.ap - rows[-1].metrics.ap,
        data={"columns": columns, "rows": cells, "marked": front},
        charts=drawn,
    )


def _shown(value: Any) -> Any:
    """The value of a setting in a table cell: numbers stay numbers and sort as such."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
