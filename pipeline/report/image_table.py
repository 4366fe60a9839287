"""The table of images of a page, and the table of failed images by reason."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

import numpy as np

from pipeline.evaluation.image_errors import ImageErrors
from pipeline.review.ranking import Suspicion, uncertainty
from pipeline.run.statistics import Statistics

_FIRST, _SAMPLE = 300, 200
_EXAMPLES = 3


def listed_rows(statistics: Statistics, suspicion: Suspicion, errors: ImageErrors | None) -> list[int]:
    """The images of the table: failed ones, the worst or most unusual, and an even sample of the others."""
    badness = errors.costs if errors is not None else suspicion.strength + uncertainty(statistics)
    order = np.argsort(-(~statistics.ok * 1e9 + badness), kind="stable")
    others = order[_FIRST:]
    picked = np.unique(np.linspace(0, len(others) - 1, min(len(others), _SAMPLE)).astype(int))
    return [*order[:_FIRST].tolist(), *others[picked].tolist()]


def image_table(
    rows: list[int], statistics: Statistics, suspicion: Suspicion, errors: ImageErrors | None
) -> dict[str, Any]:
    """The table of these images; failed images have no number of people, and are marked."""
    doubt = uncertainty(statistics)
    columns = ["image", "status", "people", "certainty"]
    if errors is not None:
        columns += ["annotated", "missed", "false positives", "OKS", "cost"]
    columns += ["unusual", "errors or reason"]
    cells = []
    for row in rows:
        ok = bool(statistics.ok[row])
        count = int(statistics.num_people[row])
        line: list[Any] = [statistics.ids[row], str(statistics.statuses[row]), count if ok else None]
        line.append(round(1 - float(doubt[row]), 3) if count else None)
        text = statistics.errors[row]
        if errors is not None:
            image = errors.image(row)
            line += [None] * 5 if image is None else _numbers(image, float(errors.costs[row]))
            text = text or errors.describe(row)
        cells.append([*line, suspicion.reasons.get(row, ""), text])
    return {"columns": columns, "rows": cells, "marked": (~statistics.ok[rows]).tolist()}


def _numbers(image: dict[str, float], cost: float) -> list[Any]:
    similarity = None if math.isnan(image["similarity"]) else round(image["similarity"], 3)
    return [*(int(image[name]) for name in ("annotated", "missed", "background")), similarity, round(cost, 3)]


def failure_table(statistics: Statistics) -> dict[str, Any] | None:
    """Failed images grouped by status and reason, with examples; None without any.

    Reasons that differ in numbers only are one.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in np.flatnonzero(~statistics.ok).tolist():
        reason = re.sub(r"\d+", "N", statistics.errors[row] or "")
        groups[str(statistics.statuses[row]), reason].append(row)
    if not groups:
        return None
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    rows = [
        [status, reason, len(members), ", ".join(statistics.ids[row] for row in members[:_EXAMPLES])]
        for (status, reason), members in ordered
    ]
    return {"columns": ["status", "reason", "images", "for example"], "rows": rows, "marked": [False] * len(rows)}
