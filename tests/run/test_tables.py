import io
import json
from collections import Counter

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.people import People
from pipeline.run.columns import people_from_arrow
from pipeline.run.tables import (
    Fold,
    ImageRow,
    Totals,
    encode_part,
    fold_parts,
    plan_folds,
    read_footer,
    read_table,
    skeleton_metadata,
)
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]


def people(n: int, seed: int) -> People:
    r = np.random.default_rng(seed)
    return People(r.random((n, 4)), r.random(n), r.random((n, 17, 2)), r.random((n, 17)), r.random(n))


def write_part(
    folder: str, shard: str, counts: list[int], candidates: bool = False, **metadata: object
) -> list[People]:
    detected = [people(n, i) for i, n in enumerate(counts)]
    rows = [ImageRow(f"{shard}/{i}.jpg", f"/x/{i}.jpg", i, "ab", 640, 480, 1) for i in range(len(counts))]
    if counts and counts[-1] == 0:
        rows[-1] = ImageRow(f"{shard}/gone.jpg", "/x/gone.jpg", None, status="missing", error="no such file")
    data = encode_part(
        rows,
        detected,
        detected if candidates else None,
        People.empty(17),
        {"shard": shard, "fingerprint": "f", "skeleton": skeleton_metadata(SKELETON), **metadata},
    )
    storage.write_bytes(storage.join(folder, "parts", f"{shard}.parquet"), data)
    return detected


def test_a_part_reads_back(folder: str) -> None:
    detected = write_part(folder, "s0", [2, 3, 0], candidates=True)
    table = pq.read_table(io.BytesIO(storage.read_bytes(storage.join(folder, "parts", "s0.parquet"))))
    assert table.column_names[-2:] == ["people", "candidates"]
    assert read_footer(table.schema)["skeleton"]["joints"][0] == "nose"
    rows = table.to_pylist()
    assert [len(row["people"]) for row in rows] == [2, 3, 0]
    np.testing.assert_array_equal(np.float32(rows[1]["people"][1]["keypoints"]), detected[1].keypoints[1])
    np.testing.assert_array_equal(np.float32(rows[1]["people"][1]["box"]), detected[1].boxes[1])
    assert rows[2]["status"] == "missing"


def test_folding_keeps_every_row_and_counts_them(folder: str) -> None:
    detected = write_part(folder, "s0", [2, 1, 3]) + write_part(folder, "s1", []) + write_part(folder, "s2", [1, 0])
    counts = {"s0": 3, "s1": 0, "s2": 2}
    folds = plan_folds(dict.fromkeys(counts, 100), counts, 256)
    assert [f.parts for f in folds] == [counts]
    totals = fold_parts(folder, folds[0], "f")
    assert totals == Totals(3, 5, 7, 4, Counter(ok=4, missing=1))
    tables = list(read_table(folder, "people"))
    merged = np.concatenate([people_from_arrow(t).keypoints for t in tables])
    np.testing.assert_array_equal(merged, np.concatenate([p.keypoints for p in detected]))
    images = [row for t in read_table(folder, "images") for row in t.to_pylist()]
    assert [row["num_people"] for row in images] == [2, 1, 3, 1, 0]
    assert [row["shard"] for row in images] == ["s0"] * 3 + ["s2"] * 2
    assert read_footer(tables[0].schema)["skeleton"]["name"] == "coco17"


def test_duckdb_and_pandas_read_the_tables(tmp_path) -> None:
    detected = write_part(str(tmp_path), "s0", [2, 1])
    fold_parts(str(tmp_path), Fold("0.parquet", {"s0": 2}), "f")
    path = tmp_path / "tables" / "people" / "0.parquet"
    rows = duckdb.sql(
        f"select person, keypoints[10][2], keypoint_scores[10] from '{path}' order by image_id, person"
    ).fetchall()
    assert rows[1] == (
        1,
        pytest.approx(detected[0].keypoints[1, 9, 1]),
        pytest.approx(detected[0].keypoint_scores[1, 9]),
    )
    import pandas

    frame = pandas.read_parquet(path)
    np.testing.assert_array_equal(
        np.stack(frame["keypoint_scores"].to_list()), np.concatenate([p.keypoint_scores for p in detected])
    )
    ((metadata,),) = duckdb.sql(f"select value from parquet_kv_metadata('{path}') where key = 'posemill'").fetchall()
    assert json.loads(metadata)["skeleton"]["joints"][9] == "left_wrist"


def test_folds_have_the_given_size_and_are_deterministic() -> None:
    counts = {f"s{i}": 10 for i in range(10)}
    sizes = {shard: 400_000 for shard in counts if shard != "s4"}
    folds = plan_folds(sizes, counts, 1)
    assert [list(f.parts) for f in folds] == [["s0", "s1"], ["s2", "s3"], ["s5", "s6"], ["s7", "s8"], ["s9"]]
    assert folds[0].name == "00000-of-00005.parquet"
    assert plan_folds({}, counts, 1) == []
    assert len(plan_folds({"s0": 9_000_000}, counts, 1)) == 1


def test_parts_of_another_run_or_length_are_refused(folder: str) -> None:
    write_part(folder, "s0", [1, 1])
    with pytest.raises(ValueError, match=r"s0\.parquet has 2 images, the manifest has 3"):
        fold_parts(folder, Fold("0.parquet", {"s0": 3}), "f")
    with pytest.raises(ValueError, match="belongs to another run"):
        fold_parts(folder, Fold("0.parquet", {"s0": 2}), "g")
    uri = storage.join(folder, "parts", "s0.parquet")
    storage.write_bytes(uri, storage.read_bytes(uri)[:-9])
    with pytest.raises(ValueError, match=r"s0\.parquet is damaged"):
        fold_parts(folder, Fold("0.parquet", {"s0": 2}), "f")
    assert not storage.exists(storage.join(folder, "tables", "people", "0.parquet"))


def test_totals_add_in_any_order() -> None:
    a, b, c = Totals(1, 2, 3, 4, Counter(ok=2)), Totals(5, 6, 7, 8, Counter(ok=1, poison=1)), Totals()
    assert a + b + c == c + b + a == Totals(6, 8, 10, 12, Counter(ok=3, poison=1))


def test_parts_of_earlier_versions_have_no_frames(tmp_path) -> None:
    write_part(str(tmp_path), "s0", [2, 1])
    path = tmp_path / "parts" / "s0.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["video", "frame", "pts", "seconds"]), path)
    fold_parts(str(tmp_path), Fold("0.parquet", {"s0": 2}), "f")
    (images,) = read_table(str(tmp_path), "images")
    assert images["video"].to_pylist() == images["seconds"].to_pylist() == [None, None]
    assert images["num_people"].to_pylist() == [2, 1]
