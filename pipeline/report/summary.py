"""The last lines of a job: what there is, what it was made with, where it lies."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation import RunMetrics
from pipeline.fleet.reduce import Reduction
from pipeline.run import Run


def summary(
    run: Run, reduction: Reduction, metrics: RunMetrics | None = None, pictures: Sequence[str] = ()
) -> list[str]:
    """Lines for a person to read."""
    totals = reduction.totals
    settings = run.settings
    statuses = ", ".join(f"{count} {status}" for status, count in totals.statuses.most_common())
    lines = [f"{totals.images} images ({statuses}), {totals.people} people, in {totals.shards} shards"]
    if not reduction.complete:
        lines.append(
            f"INCOMPLETE: {len(reduction.missing)} shards with {sum(reduction.missing.values())} images are missing"
        )
    detector = settings.detector
    found_by = f"detector {detector.name}" + (f" ({detector.weights})" if detector.weights else "")
    if detector.name == "given":
        found_by = f"boxes given by {detector.boxes or settings.annotations}"
    elif detector.name == "whole_image":
        found_by = "every whole image taken as one person"
    height, width = settings.pose.input_size
    lines.append(f"made with: {found_by}")
    lines.append(f"           {settings.pose.name} {height}x{width}, weights {settings.pose.weights or 'RANDOM'}")
    if metrics is not None:
        lines += metrics.lines()
    lines.append(f"tables:    {run.path('tables', 'images')}")
    lines.append(f"           {run.path('tables', 'people')}")
    if totals.with_coco_id:
        lines.append(f"results:   {run.path('coco_results.json')}")
    if pictures:
        lines.append(f"pictures:  {run.path('pictures')} ({len(pictures)})")
    return lines
