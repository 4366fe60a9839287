"""Charts as SVG text, embedded in pages."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Numbers = Sequence[float] | np.ndarray

INK, FAINT, PAPER, GRID = "#1d2733", "#8a95a3", "#ffffff", "#e6e9ee"
BLUE, ORANGE, GREEN, RED, VIOLET = "#2f6fb5", "#e08a2c", "#3c9a5f", "#c8473f", "#7b5aa6"
SERIES = (BLUE, ORANGE, GREEN, RED, VIOLET)

_ON_DARK, _ON_LIGHT = "#fefefe", "#1d2734"  # on coloured cells, which are the same on light and dark pages
# Colours of a page that is light or dark.
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--line)", PAPER: "var(--paper)"}

_WIDE_FROM = 12  # a chart with more names on its axis is drawn wide
_MAX_LABELS = 15  # labelled points
_OFFSETS = ((5, 4), (5, -9), (-10, 4), (-10, -9))
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
    "grid.color": GRID,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "svg.hashsalt": "posemill",  # the same numbers give the same file
}


class Drawn(NamedTuple):
    """A chart on a page: SVG text, caption, and whether it takes the whole width."""

    svg: str
    caption: str
    wide: bool = False


def lines(
    series: Mapping[str, tuple[Numbers, Numbers]], x: str, y: str, unit_square: bool = False, wide: bool = False
) -> str:
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

    ends = (
        f"{name}: {y} {_number(ys[0])} at {x} {_number(xs[0])}, {_number(ys[-1])} at {_number(xs[-1])}"
        for name, (xs, ys) in series.items()
        if len(xs)
    )
    return _svg(draw, "; ".join(ends), wide)


class Band(NamedTuple):
    """A line with the range of its error: x values, y values and errors; nan leaves a gap."""

    xs: np.ndarray
    ys: np.ndarray
    errors: np.ndarray


def bands(series: Mapping[str, Band], marks: Mapping[str, Numbers], x: str, y: str) -> str:
    """A wide line chart with a band of one error around each line, and vertical lines at marks by name."""

    def draw(axes: Axes) -> None:
        for colour, (name, band) in zip(_colours(len(series)), series.items(), strict=True):
            axes.plot(band.xs, band.ys, label=name, color=colour, linewidth=1.6)
            axes.fill_between(band.xs, band.ys - band.errors, band.ys + band.errors, color=colour, alpha=0.18, lw=0)
        styles = ("--", ":", "-.")
        for i, (name, places) in enumerate(marks.items()):
            for number, place in enumerate(places):
                label = name if number == 0 else None
                axes.axvline(place, color=FAINT, linewidth=0.8, linestyle=styles[i % len(styles)], label=label)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _legend(axes, [*series, *marks], wide=True)

    ranges_ = (
        f"{name}: {_number(float(np.nanmin(band.ys)))} to {_number(float(np.nanmax(band.ys)))}"
        for name, band in series.items()
    )
    return _svg(draw, f"{y}: " + "; ".join(ranges_), wide=True)


class Span(NamedTuple):
    """A piece of a row of a timeline, its colour, and whether it is faint."""

    start: float
    end: float
    colour: str
    faint: bool = False


def timeline(rows: Mapping[str, Sequence[Span]], marks: Sequence[tuple[float, float]], x: str, marked: str) -> str:
    """A wide chart with a row of spans for each name, the first on top, and marks behind all of them.

    Args:
        marks: where they start and end.
        marked: what the marks are, for the legend.
    """

    def draw(axes: Axes) -> None:
        for position, spans in enumerate(rows.values()):
            for span in spans:
                alpha = 0.35 if span.faint else 1.0
                axes.barh(position, span.end - span.start, 0.7, span.start, color=span.colour, alpha=alpha)
        for number, (start, end) in enumerate(marks):
            axes.axvspan(start, end, color=RED, alpha=0.5, linewidth=1.0, label=marked if number == 0 else None)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x)
        if len(marks):
            _legend(axes, [marked, ""], wide=True)

    listed = (
        f"{name}: {_number(min(s.start for s in spans))} to {_number(max(s.end for s in spans))}"
        for name, spans in rows.items()
        if spans
    )
    return _svg(draw, f"by {x}: " + "; ".join(listed), wide=True)


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

    listed = (
        f"{name}, " * (len(values) > 1)
        + ", ".join(f"{' '.join(n.split())} {_number(v)}" for n, v in zip(names, row, strict=True))
        for name, row in values.items()
    )
    return _svg(draw, f"{y}: " + "; ".join(listed), wide=len(names) > _WIDE_FROM)


def histogram(values: Numbers, x: str, y: str, steps: Sequence[float]) -> str:
    """Histogram of values; values beyond the last step are counted in it.

    Args:
        steps: limits of the bins, ascending.
    """

    counts, _ = np.histogram(np.clip(values, steps[0], steps[-1]), steps)
    counted = np.issubdtype(np.asarray(values).dtype, np.integer)  # of counts, the bin from 6 to 8 is named 6-7
    names = [f"{a:g}" if counted and b == a + 1 else f"{a:g}-{b - counted:g}" for a, b in pairwise(steps)]
    names[-1] = f"{steps[-2]:g}+"

    def draw(axes: Axes) -> None:
        axes.bar(range(len(counts)), counts, 0.9, color=BLUE)
        axes.set_xticks(range(len(counts)), names, rotation=40, ha="right")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return _svg(draw, f"{y} by {x}: " + ", ".join(f"{n}: {count}" for n, count in zip(names, counts, strict=True)))


def steps(limits: Numbers, counts: Numbers, x: str, y: str) -> str:
    """Histogram from counts.

    Args:
        limits: of the bins, one more than `counts`.
    """

    def draw(axes: Axes) -> None:
        axes.bar(limits[:-1], counts, np.diff(limits) * 0.9, align="edge", color=BLUE)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    listed = (f"{a:.2g} to {b:.2g}: {count}" for (a, b), count in zip(pairwise(limits), counts, strict=True))
    return _svg(draw, f"{y} by {x}: " + ", ".join(listed))


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    row_name: str,
    column_name: str,
    label: str,
    notes: np.ndarray,
) -> str:
    """Heat map of values in 0..1.

    Args:
        values: (R, C); NaN cells stay white.
        rows, columns: R and C names.
        row_name, column_name: names of the axes.
        label: title of the chart.
        notes: (R, C) text of each cell.
    """

    def draw(axes: Axes) -> None:
        axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(column_name)
        axes.set_ylabel(row_name)
        axes.grid(visible=False)
        axes.set_title(label, fontsize=9)
        for (row, column), note in np.ndenumerate(notes):
            dark = np.isfinite(values[row, column]) and values[row, column] > 0.6
            axes.text(column, row, note, ha="center", va="center", fontsize=8, color=_ON_DARK if dark else _ON_LIGHT)

    listed = (
        f"{rows[r]} {row_name}, {columns[c]} {column_name}: {' '.join(note.split())}"
        for (r, c), note in np.ndenumerate(notes)
        if note
    )
    return _svg(draw, f"{label}: " + "; ".join(listed))


class Point(NamedTuple):
    """A point of a scatter chart: its place, a label, what it links to, and whether it is marked."""

    x: float
    y: float
    label: str
    link: str
    marked: bool = False


def points(shown: Sequence[Point], x: str, y: str) -> str:
    """Scatter chart of labelled points that link to places on the page; the axes show their range alone."""

    def draw(axes: Axes) -> None:
        for marked, colour in ((False, BLUE), (True, ORANGE)):
            group = [point for point in shown if point.marked == marked]
            if group:
                dots = axes.scatter([p.x for p in group], [p.y for p in group], color=colour, s=26)
                dots.set_urls([p.link for p in group])
        axes.margins(0.12)
        for number, point in enumerate(shown[:_MAX_LABELS]):
            offset = _OFFSETS[number % len(_OFFSETS)]  # labels of points at the same place lie beside each other
            text = axes.annotate(point.label, (point.x, point.y), offset, textcoords="offset points", fontsize=8)
            text.set_url(point.link)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    listed = (f"{point.label}: {_number(point.y)} at {_number(point.x)}" for point in shown)
    return _svg(draw, f"{y} by {x}: " + "; ".join(listed))


def ranges(values: Mapping[str, Numbers], y: str) -> str:
    """One column of dots for each name; the axis shows the range of the values alone."""
    names = list(values)

    def draw(axes: Axes) -> None:
        for position, name in enumerate(names):
            axes.scatter(np.full(len(values[name]), position), values[name], color=BLUE, s=14, alpha=0.6)
        axes.scatter(range(len(names)), [max(values[name]) for name in names], color=ORANGE, s=34)
        crowded = sum(map(len, names)) + len(names) > _MAX_LETTERS
        axes.set_xticks(range(len(names)), names, rotation=40 if crowded else 0, ha="right" if crowded else "center")
        axes.margins(x=0.12, y=0.12)
        axes.set_ylabel(y)

    listed = (f"{name}: best {_number(max(values[name]))}" for name in names)
    return _svg(draw, f"{y}: " + "; ".join(listed))


def _legend(axes: Axes, names: Sequence[str], wide: bool = False) -> None:
    """A legend above the axes, where it covers nothing, if there are several series."""
    if len(names) > 1:
        room = 2 * _MAX_LETTERS if wide else _MAX_LETTERS
        columns = len(names) if (max(map(len, names)) + 2) * len(names) < room else 1
        axes.legend(frameon=False, fontsize=8, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1))


def _colours(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "none"


def _svg(draw: Callable[[Axes], None], alternative: str, wide: bool = False) -> str:
    """SVG text of a chart.

    Args:
        alternative: what the chart shows, for those who cannot see it.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6 if wide else 4.6, 3.0), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # HTML has no XML header
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = svg.replace(' target="_blank"', "")  # links lead to places on the same page
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alternative)}" ', 1)
