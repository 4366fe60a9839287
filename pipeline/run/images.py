"""The people and the pixels of some images of a reduced run, for pictures and review."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from pipeline.images import ImageRefused
from pipeline.people import People
from pipeline.run.columns import people_from_arrow
from pipeline.run.directory import Run
from pipeline.run.tables import read_table, table_skeleton
from pipeline.sources import read_items


def people_of(run: Run, image_ids: set[str]) -> dict[str, People]:
    """The people of some images of a reduced run, by image id."""
    people_by_id = {image_id: People.empty(len(table_skeleton(run.uri))) for image_id in image_ids}
    for table in read_table(run.uri, "people"):
        ids = np.array(table["image_id"].to_pylist(), dtype=object)
        present = image_ids.intersection(ids)
        people = people_from_arrow(table) if present else People.empty(0)
        for image_id in present:
            people_by_id[image_id] = people[ids == image_id]
    return people_by_id


def pixels_of(run: Run, chosen: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Read images of a run again: image id and (H, W, 3) uint8 RGB pixels of each that is still there.

    Args:
        chosen: image id to shard.

    Raises:
        OSError, UserError: the storage failed, or a container has changed since it was annotated.
    """
    limits = run.settings.images.limits
    wanted = frozenset(chosen)
    done = set(run.manifest().counts) - set(chosen.values())
    for shard in run.manifest().shards(without=done):
        for item in read_items(shard, wanted, limits):
            if item.status == "ok":
                with contextlib.suppress(ImageRefused):  # the file was replaced
                    yield item.key, item.decode(limits).pixels
