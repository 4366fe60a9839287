"""The reduction of runs in this process, without Ray."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.runs import planned_run, write_part

from pipeline import storage
from pipeline.errors import UserError
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.reduction import IncompleteRun, fold_here, reduce_run, stored_reduction
from pipeline.run.tables import Totals, read_table, table_metadata, table_skeleton


def people(count: int) -> People:
    r = np.random.default_rng(count)
    return People(
        r.random((count, 4)), r.random(count), r.random((count, 17, 2)), r.random((count, 17)), r.random(count)
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three shards of two images without parts."""
    return planned_run(tmp_path, 6, shard_size=2)


def names(run: Run, table: str) -> list[str]:
    return [storage.basename(entry.uri) for entry in storage.list_files(run.path("tables", table))]


def images(run: Run) -> list[str]:
    return [image for table in read_table(run.uri, "images", ["image_id"]) for image in table["image_id"].to_pylist()]


def test_a_complete_run_is_reduced(run: Run) -> None:
    ids = [id_ for shard in run.manifest().counts for id_ in write_part(run, shard, [people(2), people(1)])]
    assert stored_reduction(run) is None, "not reduced yet"
    reduction = reduce_run(run)
    assert reduction.complete
    assert reduction.missing == {}
    assert reduction.totals == Totals(shards=3, images=6, people=9, statuses=Counter(ok=6))
    assert images(run) == ids
    assert sum(table.num_rows for table in read_table(run.uri, "people")) == 9
    assert stored_reduction(run) == reduction
    assert stored_reduction(Run.open(run.uri)) == reduction


def test_missing_parts_are_refused_and_named(run: Run) -> None:
    first, second, third = run.manifest().counts
    write_part(run, first, [people(2), people(1)])
    storage.write_bytes(run.quarantine_uri(third), b'{"reason": "decoder crashed"}')
    with pytest.raises(IncompleteRun) as refused:
        reduce_run(run)
    message = str(refused.value)
    assert message.startswith(f"{run.uri} is incomplete: 2 of 3 shards have no part, 4 images: ")
    assert f"{second} (2 images); {third} (2 images, decoder crashed)" in message
    assert stored_reduction(run) is None
    assert not storage.exists(run.path("totals.json"))


def test_many_missing_shards_are_counted(tmp_path: Path) -> None:
    with pytest.raises(IncompleteRun, match=r"8 of 8 shards have no part, 8 images: .*; and 3 more$"):
        reduce_run(planned_run(tmp_path, 8, shard_size=1))


def test_an_incomplete_run_is_reduced_on_request(run: Run) -> None:
    first, second, third = run.manifest().counts
    for shard in (first, third):
        write_part(run, shard, [people(2), people(0)])
    reduction = reduce_run(run, allow_partial=True)
    assert not reduction.complete
    assert reduction.missing == {second: 2}
    assert reduction.totals == Totals(shards=2, images=4, people=4, statuses=Counter(ok=4))
    assert stored_reduction(run) is None, "an incomplete reduction is not final"
    totals = json.loads(storage.read_bytes(run.path("totals.json")))
    assert (totals["complete"], totals["missing"], totals["missing_images"]) == (False, [second], 2)
    ids = write_part(run, second, [people(1), people(1)])
    complete = reduce_run(run)
    assert complete.complete
    assert set(ids) <= set(images(run))
    assert stored_reduction(run) == complete


def test_a_run_without_parts_has_empty_totals(run: Run) -> None:
    reduction = reduce_run(run, allow_partial=True)
    assert reduction.totals == Totals()
    assert len(reduction.missing) == 3
    assert list(read_table(run.uri, "images")) == []
    assert table_metadata(run.uri) == {}
    with pytest.raises(UserError, match=r"has no tables yet; build them with jobs/reduce\.py"):
        table_skeleton(run.uri)


def test_table_files_of_an_earlier_reduction_are_deleted(run: Run) -> None:
    for shard in run.manifest().counts:
        write_part(run, shard, [people(1), people(1)])
    for table in ("images", "people"):
        storage.write_bytes(run.path("tables", table, "00000-of-00007.parquet"), b"old")
        storage.write_bytes(run.path("tables", table, ".unfinished"), b"another driver")
    reduce_run(run)
    for table in ("images", "people"):
        assert [name for name in names(run, table) if not name.startswith(".")] == ["00000-of-00001.parquet"]
        assert storage.exists(run.path("tables", table, ".unfinished"))


def test_the_reduction_of_other_settings_is_not_used(run: Run) -> None:
    for shard in run.manifest().counts:
        write_part(run, shard, [people(1), people(1)])
    reduce_run(run)
    totals = json.loads(storage.read_bytes(run.path("totals.json")))
    storage.write_bytes(run.path("totals.json"), json.dumps({**totals, "fingerprint": "another"}).encode())
    assert stored_reduction(run) is None


def test_a_damaged_part_is_named(run: Run) -> None:
    first, *others = run.manifest().counts
    for shard in others:
        write_part(run, shard, [people(1), people(1)])
    storage.write_bytes(run.part_uri(first), b"damaged")
    with pytest.raises(UserError, match=f"{first}.parquet is damaged"):
        reduce_run(run)
    write_part(run, first, [people(1)])
    with pytest.raises(UserError, match=f"{first}.parquet has 1 images, the manifest has 2"):
        reduce_run(run)
    assert not storage.exists(run.path("totals.json"))


def test_any_order_of_folds_gives_the_same_reduction(run: Run) -> None:
    for number, shard in enumerate(run.manifest().counts):
        write_part(run, shard, [people(number), people(1)])
    expected = reduce_run(run)
    assert reduce_run(run, fold_all=lambda run, folds: reversed(list(fold_here(run, folds)))) == expected
