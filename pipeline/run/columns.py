"""The columns of a person in parts and tables: the only definition, for writing and for reading."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.people import People

APPEARANCE = "appearance"  # an extra column, see `pipeline.appearance`
IMAGE_KEYS = ("image_id", "coco_id", "person")  # of tables/people, before the columns of the person


class PersonColumn(NamedTuple):
    """One column: its name in parts and tables, and the array of `People` that it holds."""

    name: str
    array: str


PERSON_COLUMNS = (
    PersonColumn("box", "boxes"),
    PersonColumn("box_score", "box_scores"),
    PersonColumn("keypoints", "keypoints"),
    PersonColumn("keypoint_scores", "keypoint_scores"),
    PersonColumn("pose_score", "pose_scores"),
)
_NAMES = tuple(column.name for column in PERSON_COLUMNS)


def people_to_arrow(people: People) -> pa.Table:
    """One row per person: the columns above, then the extra ones. A (N, 4) array becomes fixed-size lists of 4.

    Raises:
        ValueError: an extra column has the name of another column.
    """
    arrays = {column.name: _to_arrow(getattr(people, column.array)) for column in PERSON_COLUMNS}
    if taken := [name for name in people.extra if name in arrays or name in IMAGE_KEYS]:
        raise ValueError(f"People.extra[{taken[0]!r}]: a column of that name exists")
    return pa.table(arrays | {name: _to_arrow(array) for name, array in people.extra.items()})


def people_from_arrow(table: pa.Table) -> People:
    """The people of rows of tables/people, or of a part; the columns `IMAGE_KEYS` are left out."""
    arrays = {column.array: list_values(table[column.name]) for column in PERSON_COLUMNS}
    extra = {name: list_values(table[name]) for name in table.column_names if name not in (*IMAGE_KEYS, *_NAMES)}
    return People(**arrays, extra=extra)


def _to_arrow(array: np.ndarray) -> pa.Array:
    column = pa.array(array.reshape(-1), pa.from_numpy_dtype(array.dtype))
    for size in reversed(array.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def list_values(column: pa.ChunkedArray) -> np.ndarray:
    """A column without nulls as an array; fixed-size lists of 4 become (N, 4)."""
    array, shape = column.combine_chunks(), []
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(len(column), *shape)
