"""The extra columns of people, from parts to tables, formats and suppression."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from support.runs import planned_run, write_part

from pipeline import storage
from pipeline.formats import export
from pipeline.people import ARRAYS, People
from pipeline.run import Run
from pipeline.run.columns import IMAGE_KEYS, PERSON_COLUMNS, people_from_arrow, people_to_arrow
from pipeline.run.images import images_with_people
from pipeline.run.reduction import reduce_run
from pipeline.run.tables import read_candidates, read_table
from pipeline.skeletons import SKELETONS
from pipeline.suppression import PoseNMS, pose_nms

SKELETON = SKELETONS["coco17"]
COUNTS = [[2, 0], [0, 0], [1, 3]]  # people of each image, by shard; the second shard has none


def people(count: int, seed: int) -> People:
    """People with a feature vector, an id that no float can hold, and angles."""
    r = np.random.default_rng(seed)
    corner = r.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corner, corner + r.uniform(20, 200, (count, 2))], axis=1)
    keypoints, scores = r.uniform(0, 400, (count, 17, 2)), r.uniform(0.5, 1, (count, 17))
    extra = {
        "feature": r.normal(size=(count, 128)).astype(np.float32),
        "track_id": 2**53 + 1 + r.integers(0, 100, count),
        "angles": r.uniform(-180, 180, (count, 3)),
    }
    return People(boxes, r.random(count), keypoints, scores, r.random(count), extra)


def assert_equal(a: People, b: People) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert list(a.extra) == list(b.extra)
    for name, array in a.extra.items():
        assert (array.dtype, array.shape) == (b.extra[name].dtype, b.extra[name].shape), name
        np.testing.assert_array_equal(array, b.extra[name], err_msg=name)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Run, dict[str, People]]:
    """A reduced run, and its people by image id."""
    run = planned_run(tmp_path, 6, shard_size=2)
    people_by_id = {}
    for number, (shard, counts) in enumerate(zip(run.manifest().counts, COUNTS, strict=True)):
        people_of_images = [people(count, 10 * number + i) for i, count in enumerate(counts)]
        ids = write_part(run, shard, people_of_images, candidates=True, coco_ids=True)
        people_by_id |= dict(zip(ids, people_of_images, strict=True))
    reduce_run(run)
    return run, people_by_id


def test_tables_have_the_extra_columns(run: tuple[Run, dict[str, People]]) -> None:
    tables = list(read_table(run[0].uri, "people"))
    assert tables[0].column_names[-3:] == ["feature", "track_id", "angles"]
    read = People.concatenate([people_from_arrow(table) for table in tables])
    assert_equal(read, People.concatenate(list(run[1].values())))


def test_images_come_with_the_extra_columns_of_their_people(run: tuple[Run, dict[str, People]]) -> None:
    for image, read in images_with_people(run[0]):
        assert_equal(read, run[1][image["image_id"]])


def test_candidates_have_the_extra_columns(run: tuple[Run, dict[str, People]]) -> None:
    for shard, counts in zip(run[0].manifest().counts, COUNTS, strict=True):
        _, lengths, candidates = read_candidates(run[0].uri, shard, len(counts), run[0].fingerprint)
        assert lengths.tolist() == counts
        assert_equal(candidates, People.concatenate([run[1][f"{shard}/{i}.jpg"] for i in range(len(counts))]))


def test_a_part_without_people_has_the_same_schema(run: tuple[Run, dict[str, People]]) -> None:
    schemas = [
        pq.read_schema(io.BytesIO(storage.read_bytes(run[0].part_uri(shard)))).remove_metadata()
        for shard in run[0].manifest().counts
    ]
    assert schemas[0].equals(schemas[1])
    assert schemas[0].equals(schemas[2])
    assert {"feature", "track_id", "angles"} <= {field.name for field in schemas[1].field("people").type.value_type}


@pytest.mark.parametrize("name", ["coco", "alphapose"])
def test_formats_with_further_keys_have_the_extra_columns(name: str, run: tuple[Run, dict[str, People]]) -> None:
    entries = json.loads(storage.read_bytes(export(run[0], name)))
    expected = People.concatenate(list(run[1].values()))
    assert len(entries) == len(expected)
    for column, array in expected.extra.items():
        assert [entry[column] for entry in entries] == array.tolist()
    assert all(len(entry["keypoints"]) == 51 for entry in entries)


@pytest.mark.parametrize("name", ["openpose", "cmu", "yolo", "label_studio", "cvat"])
def test_other_formats_accept_extra_columns(name: str, run: tuple[Run, dict[str, People]]) -> None:
    assert storage.exists(export(run[0], name))


@pytest.mark.parametrize("kind", ["pose", "oks", "soft_oks", "box", "none"])
def test_suppression_keeps_the_extra_values_of_the_picked_candidate(kind: str) -> None:
    """Of each pair of equal poses, one candidate remains (all of them, without suppression)."""
    four = people(4, 0)
    doubled = People.concatenate([four, four])
    distinct = {**doubled.extra, "track_id": np.arange(8)}
    candidates = People(**{name: getattr(doubled, name) for name in ARRAYS}, extra=distinct)
    kept, rows = pose_nms(candidates, PoseNMS(kind=kind), SKELETON.oks_sigmas)  # type: ignore[arg-type]
    assert len(kept) == len(rows) >= 4
    picked = kept.extra["track_id"]
    assert len(set(picked.tolist())) == len(kept)
    for person, (own, cluster) in enumerate(zip(picked.tolist(), rows, strict=True)):
        assert own in cluster
        for name, array in candidates.extra.items():
            np.testing.assert_array_equal(kept.extra[name][person], array[own])
        np.testing.assert_array_equal(kept.boxes[person], candidates.boxes[own])


@pytest.mark.parametrize("name", [*IMAGE_KEYS, *(column.name for column in PERSON_COLUMNS)])
def test_an_extra_column_cannot_have_the_name_of_another(name: str) -> None:
    two = people(2, 0)
    clash = People(**{array: getattr(two, array) for array in ARRAYS}, extra={name: np.zeros(2)})
    with pytest.raises(ValueError, match=rf"People\.extra\['{name}'\]: a column of that name exists"):
        people_to_arrow(clash)


DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "bool")
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)


@st.composite
def any_people(draw: st.DrawFn) -> People:
    count, joints = draw(st.integers(0, 4)), draw(st.integers(1, 5))

    def array(*shape: int, dtype: str = "float32") -> np.ndarray:
        return draw(arrays_of.arrays(dtype, (count, *shape)))

    extra = {
        name: array(*draw(st.lists(st.integers(1, 3), max_size=3)), dtype=draw(st.sampled_from(DTYPES)))
        for name in draw(st.sets(NAMES, max_size=3))
    }
    return People(array(4), array(), array(joints, 2), array(joints), array(), extra)


@given(any_people())
@settings(max_examples=200, deadline=None)
def test_arrow_is_a_round_trip(original: People) -> None:
    table = people_to_arrow(original)
    assert table.num_rows == len(original)
    assert_equal(people_from_arrow(table), original)


@given(any_people())
@settings(max_examples=50, deadline=None)
def test_a_parquet_file_is_a_round_trip(original: People) -> None:
    file = io.BytesIO()
    pq.write_table(people_to_arrow(original), file)
    assert_equal(people_from_arrow(pq.read_table(io.BytesIO(file.getvalue()))), original)
