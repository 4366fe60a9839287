"""Trials beside each other: a table for programs, and what a page shows of it."""

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
    """A trial and what came of it.

    Attributes:
        people: found in the annotated images.
        images_per_second, peak_megabytes: of the run of its networks; None where that wasn't measured.
        run: directory of that run.
    """

    trial: Trial
    metrics: Metrics
    people: int
    images_per_second: float | None
    peak_megabytes: float | None
    run: str


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Best AP first; equal ones in the order of the sweep."""
    return sorted(rows, key=lambda row: -row.metrics.ap)


def pareto(rows: Sequence[Row]) -> list[bool]:
    """Whether no other row is at least as good and as fast, and better in one of both; never without a speed."""

    def beaten(row: Row, speed: float) -> bool:
        return any(
            other.images_per_second is not None
            and other.metrics.ap >= row.metrics.ap
            and other.images_per_second >= speed
            and (other.metrics.ap, other.images_per_second) != (row.metrics.ap, speed)
            for other in rows
        )

    return [row.images_per_second is not None and not beaten(row, row.images_per_second) for row in rows]


def settings_tried(rows: Sequence[Row]) -> list[str]:
    """The settings in which the trials differ, or that a trial names."""
    return list(dict.fromkeys(name for row in rows for name in row.trial.varied))


def value_of(row: Row, name: str) -> Any:
    """A trial's value of a setting, its own or the shared one."""
    value: Any = row.trial.settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def leaderboard_table(rows: Sequence[Row]) -> pa.Table:
    """One row for each trial: its settings as JSON, its numbers, its run and its command."""
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
    """The page of ranked rows: a table, AP against speed, and what each setting that was tried does to AP.

    Args:
        annotations: by which trials were measured.
        images: how many of them there are.
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
    shown = []
    timed = [row for row in rows if row.images_per_second is not None]
    if len({row.run for row in timed}) > 1:
        speeds = [row.images_per_second or 0.0 for row in timed]
        svg = charts.points(speeds, [row.metrics.ap for row in timed], pareto(timed), "images/s", "AP")
        shown.append((svg, "AP against speed; the line joins trials that nothing beats in both"))
    for name in names:
        best: dict[str, float] = {}
        for row in rows:
            value = str(_shown(value_of(row, name)))
            best[value] = max(best.get(value, -1.0), row.metrics.ap)
        if len(best) > 1:
            values = sorted(best, key=_by_number)
            svg = charts.bars({"AP": [best[value] for value in values]}, values, "best AP")
            shown.append((svg, f"{name}: the best AP of the trials with each value"))
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
        charts=shown,
    )


def _shown(value: Any) -> Any:
    """A setting's value in a cell: numbers stay numbers, so that they sort as such."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
