"""The last lines of a job: what there is, what it was made with, where it lies."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.run.reduction import Reduction
from pipeline.run.tables import table_metadata
from pipeline.settings.tree import GIVEN


def summary(run: Run, reduction: Reduction) -> list[str]:
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
    if detector.name == GIVEN:
        found_by = f"boxes given by {detector.boxes or settings.annotations}"
    elif detector.name == "whole_image":
        found_by = "every whole image taken as one person"
    lines.append(f"made with: {found_by}")
    networks = table_metadata(run.uri).get("networks", [])
    for network, named in zip(networks, settings.pose.networks(), strict=False):
        lines.append(f"           {network}, weights {named.weights or 'RANDOM'}")
    if detector.name == GIVEN and not totals.with_coco_id:
        lines.append("NO IMAGE of the collection is named in the file of given boxes, so nobody could be found")
    lines.append(f"tables:    {run.path('tables', 'images')}")
    lines.append(f"           {run.path('tables', 'people')}")
    return lines
