"""The last lines that a job prints: counts, the networks and weights, and the paths of the tables."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.run.reduction import Reduction
from pipeline.run.tables import table_metadata
from pipeline.settings.tree import GIVEN


def summary(run: Run, reduction: Reduction) -> list[str]:
    """Lines of text for a terminal."""
    totals = reduction.totals
    settings = run.settings
    statuses = ", ".join(f"{count} {status}" for status, count in totals.statuses.most_common())
    shards = "1 shard" if totals.shards == 1 else f"{totals.shards} shards"
    unit = "frames" if run.manifest().only_frames else "images"
    lines = [f"{totals.images} {unit} ({statuses}), {totals.people} people, in {shards}"]
    if not reduction.complete:
        lines.append(
            f"INCOMPLETE: {len(reduction.missing)} shards with {sum(reduction.missing.values())} {unit} are missing"
        )
    detector = settings.detector
    described = detector.name + (f", weights {detector.weights}" if detector.weights else "")
    if detector.name == GIVEN:
        described = f"none, boxes given by {detector.boxes or settings.annotations}"
    elif detector.name == "whole_image":
        described = "none, every whole image taken as one person"
    lines.append(f"detector:  {described}")
    networks = table_metadata(run.uri).get("networks", [])
    for network, named in zip(networks, settings.pose_networks(), strict=False):
        lines.append(f"network:   {network}, weights {named.weights or 'RANDOM'}")
    if detector.name == GIVEN and not totals.with_coco_id:
        lines.append("NO PEOPLE DETECTED: the file of given boxes names none of the collection's images")
    lines.append(f"tables:    {run.path('tables', 'images')}")
    lines.append(f"           {run.path('tables', 'people')}")
    return lines
