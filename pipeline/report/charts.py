"""Charts as SVG text, embedded in pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Numbers = Sequence[float] | np.ndarray

INK, FAINT, PAPER = "#1d2733", "#8a95a3", "#ffffff"
BLUE, ORANGE, GREEN, RED, VIOLET = "#2f6fb5", "#e08a2c", "#3c9a5f", "#c8473f", "#7b5aa6"
SERIES = (BLUE, ORANGE, GREEN, RED, VIOLET)

_WIDE_FROM = 12  # a chart with more names on its axis is drawn wide
_MAX_LETTERS = 54  # letters that fit side by side on an axis, in any browser's font

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and the browser can search it
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "axes.axisbelow": True,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "svg.hashsalt": "posemill",  # the same numbers give the same file
}


def lines(series: Mapping[str, tuple[Numbers, Numbers]], x: str, y: str, unit_square: bool = False) -> str:
    """Line chart with one line per series.

    Args:
        series: x values and y values by name.
        unit_square: limit both axes to 0..1.
    """

    def draw(axes: Axes) -> None:
        for colour, (name, (xs, ys)) in zip(_colours(len(series)), series.items(), strict=True):
            axes.plot(xs, ys, label=name, color=colour, linewidth=1.6)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if unit_square:
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.01)
        _legend(axes, list(series))

    return _svg(draw)


def bars(values: Mapping[str, Numbers], names: Sequence[str], y: str, stacked: bool = False) -> str:
    """Bar chart with one bar per name and series.

    Args:
        values: one value per name, by series.
        stacked: draw the series on top of each other, not side by side.
    """

    def draw(axes: Axes) -> None:
        positions, width = np.arange(len(names)), 0.8 if stacked else 0.8 / len(values)
        bottom = np.zeros(len(names))
        room = _MAX_LETTERS / max(1, len(names))  # letters between the centres of neighbouring names
        lengths = [max(map(len, name.splitlines()), default=0) for name in names]
        crowded = any((a + b) / 2 + 1 > room for a, b in pairwise(lengths))
        for number, (colour, (name, heights)) in enumerate(zip(_colours(len(values)), values.items(), strict=True)):
            shift = 0 if stacked else (number - (len(values) - 1) / 2) * width
            axes.bar(positions + shift, heights, width, bottom=bottom if stacked else 0, label=name, color=colour)
            bottom = bottom + np.nan_to_num(np.array(heights, float))
        axes.set_xticks(positions, names, rotation=40 if crowded else 0, ha="right" if crowded else "center")
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(y)
        _legend(axes, list(values))

    return _svg(draw, wide=len(names) > _WIDE_FROM)


def histogram(values: Numbers, x: str, y: str, steps: Sequence[float]) -> str:
    """Histogram of values; values beyond the last step are counted in it.

    Args:
        steps: limits of the bins, ascending.
    """

    def draw(axes: Axes) -> None:
        counts, _ = np.histogram(np.clip(values, steps[0], steps[-1]), steps)
        axes.bar(range(len(counts)), counts, 0.9, color=BLUE)
        counted = np.issubdtype(np.asarray(values).dtype, np.integer)  # of counts, the bin from 6 to 8 is named 6-7
        names = [f"{a:g}" if counted and b == a + 1 else f"{a:g}-{b - counted:g}" for a, b in pairwise(steps)]
        names[-1] = f"{steps[-2]:g}+"
        axes.set_xticks(range(len(counts)), names, rotation=40, ha="right")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return _svg(draw)


def heatmap(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, notes: np.ndarray) -> str:
    """Heat map of values in 0..1.

    Args:
        values: (R, C); NaN cells stay white.
        rows, columns: R and C names.
        label: title of the chart.
        notes: (R, C) text of each cell.
    """

    def draw(axes: Axes) -> None:
        axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        axes.set_title(label, fontsize=9)
        for (row, column), note in np.ndenumerate(notes):
            dark = np.isfinite(values[row, column]) and values[row, column] > 0.6
            axes.text(column, row, note, ha="center", va="center", fontsize=8, color=PAPER if dark else INK)

    return _svg(draw)


def points(xs: Sequence[float], ys: Sequence[float], marked: Sequence[bool], x: str, y: str) -> str:
    """Scatter chart; a line joins the marked points from left to right."""

    def draw(axes: Axes) -> None:
        chosen = sorted((a, b) for a, b, m in zip(xs, ys, marked, strict=True) if m)
        axes.scatter(xs, ys, color=FAINT, s=18)
        axes.plot([a for a, _ in chosen], [b for _, b in chosen], color=ORANGE, marker="o", linewidth=1.4)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return _svg(draw)


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """A legend above the axes, where it covers nothing, if there are several series."""
    if len(names) > 1:
        columns = len(names) if max(map(len, names)) * len(names) < _MAX_LETTERS else 1
        axes.legend(frameon=False, fontsize=8, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1))


def _colours(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _svg(draw: Callable[[Axes], None], wide: bool = False) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6 if wide else 4.6, 3.0), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]  # HTML has no XML header
