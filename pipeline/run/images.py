"""The images of a reduced run with their people, and the pixels of some of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.images import ImageRefused
from pipeline.people import People
from pipeline.run.columns import people_from_arrow
from pipeline.run.directory import Run
from pipeline.run.tables import WEAK, read_file, read_table, table_names, table_skeleton
from pipeline.sources import read_items

_COLUMNS = [
    "image_id", "uri", "coco_id", "status", "width", "height", "video", "frame", "seconds", "num_people"
]  # fmt: skip


def images_with_people(
    run: Run,
    names: Mapping[str, str] | None = None,
    further: Sequence[str] = (),
    start: int = 0,
    failed: bool = False,
    weak: bool = False,
) -> Iterator[tuple[dict[str, Any], People]]:
    """Each image with status `ok`, in the order of the tables, with its people.

    tables/people has the order and the files of tables/images, so both are read side by side.

    Args:
        names: image id to exported name of the images that are wanted; by default all, under their ids.
        further: columns of tables/images that are read beside the usual ones.
        start: number of the first file that is read. The key `file` of a row is the number of its file.
        failed: also images with other statuses, which have nobody.
        weak: also the people of tables/weak, after the others: from the number `num_people` of a row on.
    """
    nobody = People.empty(len(table_skeleton(run.uri)))
    for file, name in enumerate(table_names(run.uri, "images")[start:], start):
        readers = {"num_people": _PeopleReader(run, "people", name, nobody)}
        if weak:
            readers["num_weak"] = _PeopleReader(run, WEAK, name, nobody)
        for table in read_file(run.uri, "images", name, [*_COLUMNS, *further, *(["num_weak"] if weak else [])]):
            for row in table.to_pylist():
                read = [reader.next(row[count] or 0) for count, reader in readers.items()]
                people = [people for people in read if len(people)]
                if (failed or row["status"] == "ok") and (names is None or row["image_id"] in names):
                    if names is not None:
                        row["image_id"] = names[row["image_id"]]
                    row["file"] = file
                    yield row, People.concatenate(people) if people else read[0]


class _PeopleReader:
    """The people of one file of a table, in order."""

    def __init__(self, run: Run, table: str, file: str, nobody: People) -> None:
        self._tables = read_file(run.uri, table, file)
        self._current = nobody
        self._position = 0

    def next(self, count: int) -> People:
        """The next people, of one image."""
        parts = [self._current[:0]]
        while count:
            if self._position == len(self._current):
                self._current, self._position = people_from_arrow(next(self._tables)), 0
            taken = self._current[self._position : self._position + count]
            self._position += len(taken)
            count -= len(taken)
            parts.append(taken)
        return parts[0] if len(parts) == 1 else People.concatenate(parts[1:])


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
