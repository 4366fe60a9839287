"""The people and the pixels of some images of a reduced run, for pictures and review."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from pipeline.errors import UserError
from pipeline.images import ImageRefused
from pipeline.people import People
from pipeline.run.columns import people_from_arrow
from pipeline.run.directory import Run
from pipeline.run.tables import read_table, table_skeleton
from pipeline.sources import read_items


def people_of(run: Run, image_ids: set[str]) -> dict[str, People]:
    """The people of some images of a reduced run, by image id."""
    nobody = People.empty(len(table_skeleton(run.uri)))
    people_by_id = dict.fromkeys(image_ids, nobody)
    for table in read_table(run.uri, "people"):
        ids = np.array(table["image_id"].to_pylist(), dtype=object)
        present = image_ids.intersection(ids)
        people = people_from_arrow(table) if present else People.empty(0)
        for image_id in present:
            people_by_id[image_id] = people[ids == image_id]
    return people_by_id


def pixels_of(run: Run, chosen: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Read images of a run again: image id and (H, W, 3) uint8 RGB pixels of each that can still be read.

    Left out are images that were deleted or replaced, and those of containers that have changed or cannot be read.

    Args:
        chosen: image id to shard.
    """
    limits = run.settings.images.limits
    wanted = frozenset(chosen)
    done = set(run.manifest().counts) - set(chosen.values())
    for shard in run.manifest().shards(without=done):
        with contextlib.suppress(OSError, UserError):
            for item in read_items(shard, wanted, limits):
                if item.status == "ok":
                    with contextlib.suppress(ImageRefused):
                        yield item.key, item.decode(limits).pixels
