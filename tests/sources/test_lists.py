"""Lists of images in the forms that people write."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.sources import image, plan, read

from pipeline import storage
from pipeline.errors import UserError
from pipeline.sources.lists import read_list


def names_of(tmp_path, name: str, data: bytes, column: str | None = None) -> list[str]:
    (tmp_path / name).write_bytes(data)
    return list(read_list(str(tmp_path / name), column))


@pytest.mark.parametrize(
    "text",
    [
        "plain.jpg\nUP.JPG\na.b.c.jpg\n\n",
        "file_name\nplain.jpg\nUP.JPG\na.b.c.jpg\n",
        "label, file_name\n1, plain.jpg\n2, UP.JPG\n3, a.b.c.jpg",
        "3,plain.jpg\n4,UP.JPG\n5,a.b.c.jpg",
        'file_name,caption\n"plain.jpg","x, y"\n"UP.JPG","' + "z" * 200_000 + '"\n"a.b.c.jpg",""\n',
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_tables_with_and_without_a_header(tmp_path, text: str, delimiter: str) -> None:
    name = "list.csv" if delimiter == "," else "list.tsv"
    data = text.replace('"x, y"', "x").replace(",", delimiter).encode()
    assert names_of(tmp_path, name, data) == ["plain.jpg", "UP.JPG", "a.b.c.jpg"]


def test_a_table_without_header_and_with_two_names_per_row_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="several cells of its first row name images"):
        names_of(tmp_path, "list.csv", b"a.jpg,mask.png\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_encodings_are_known_by_their_byte_order_mark(tmp_path, encoding: str, suffix: str) -> None:
    text = '{"url": "ä.jpg"}\n' if suffix == "jsonl" else "ä.jpg\nb.jpg\n"
    data = text.encode(encoding)
    if encoding == "utf-16-le" and suffix != "jsonl":  # without a mark it is not recognised, but not misread either
        data = text.encode("latin-1")
        with pytest.raises(UserError, match=r"list\..* is not UTF-8 text"):
            names_of(tmp_path, f"list.{suffix}", data)
    elif encoding != "utf-16-le":
        assert names_of(tmp_path, f"list.{suffix}", data)[0] == "ä.jpg"


def test_lines_end_at_line_ends_only_and_names_keep_their_spaces(tmp_path) -> None:
    names = [" leading.jpg", "trailing.jpg ", "a\u2028b.jpg", "a\x85b.jpg", "a\x0cb.jpg"]
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(image(i))
    assert names_of(tmp_path, "list.txt", "\r\n".join(names).encode()) == names
    items = read(plan(str(tmp_path), str(tmp_path / "list.txt"), image_root=str(tmp_path / "in")))
    assert [item.data for item in items] == [image(i) for i in range(len(names))]
    assert names_of(tmp_path, "list.csv", b"file_name\n" + b'"a\x0cb.jpg"\n') == ["a\x0cb.jpg"]


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        (['{"url": "a.jpg", "text": "x"}', "", '{"url": "b.jpg"}'], None),
        (['{"x": 1, "photo": "a.jpg"}', '{"photo": "b.jpg", "x": 2}'], None),
        (['{"url": "no.jpg", "photo": "a.jpg"}', '{"url": "no.jpg", "photo": "b.jpg"}'], "photo"),
        (['"a.jpg"', '"b.jpg"'], None),
    ],
)
def test_json_lines(tmp_path, lines: list[str], column: str | None) -> None:
    assert names_of(tmp_path, "list.jsonl", "\n".join(lines).encode(), column) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("7", "line 2 is int; expected an object"),
        ('{"url": 3}', "line 2 has"),
        ('{"image": ["x"]}', "no text columns"),
    ],
)
def test_errors_name_the_line(tmp_path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        names_of(tmp_path, "list.jsonl", f'{{"url": "a.jpg"}}\n{line}\n'.encode())


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_lists_of_any_text_type(tmp_path, kind: pa.DataType) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"url": pa.array(["a.jpg", "b.jpg"]).cast(kind)}), sink)
    assert names_of(tmp_path, "list.parquet", sink.getvalue()) == ["a.jpg", "b.jpg"]


def test_names_with_the_same_hash_are_all_kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SameHash(str):
        def __hash__(self) -> int:
            return 1

    from pipeline.sources.lists import unique

    assert list(unique([SameHash("a"), SameHash("b"), SameHash("a")])) == ["a", "b"]


def test_a_list_whose_first_entries_are_gone_is_read(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "last.jpg"), image(0))
    storage.write_bytes(
        storage.join(folder, "list.txt"), "".join(f"{i}.jpg\n" for i in range(300)).encode() + b"last.jpg"
    )
    items = read(plan(folder, storage.join(folder, "list.txt")))
    assert [item.status for item in items] == ["missing"] * 300 + ["ok"]
    storage.write_bytes(storage.join(folder, "list.txt"), "".join(f"{i}.jpg \n" for i in range(30)).encode())
    with pytest.raises(UserError, match=r"none of the listed images exists .*30 of 30 checked.*trailing spaces"):
        plan(folder, storage.join(folder, "list.txt"))


def test_a_coco_file_that_lists_an_image_twice_names_it_once(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(image(0))
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "a.jpg"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": []}))
    assert [item.key for item in read(plan(str(tmp_path), str(tmp_path / "coco.json")))] == ["a.jpg"]


def test_the_column_with_images_is_found_behind_other_binary_columns(tmp_path) -> None:
    digests = pa.array([bytes(np.random.default_rng(i).bytes(32)) for i in range(3)], pa.binary())
    images = [image(i) for i in range(3)]
    struct = pa.array([{"bytes": data, "path": "a.jpg"} for data in images])
    for column, kind in ((struct, "struct"), (pa.array([None, *images[1:]], pa.binary()), "binary")):
        pq.write_table(pa.table({"sha256": digests, "image": column}), tmp_path / f"{kind}.parquet")
        items = read(plan(str(tmp_path), str(tmp_path / f"{kind}.parquet")))
        assert [item.data for item in items][1:] == images[1:]
    (first, *_) = read(plan(str(tmp_path), str(tmp_path / "binary.parquet"), image_column="sha256"))
    assert first.data == digests[0].as_py()


def test_an_unbalanced_quote_never_drops_rows(tmp_path) -> None:
    rows = ["path,caption", "a.jpg,fine", 'b.jpg,"unbalanced', "c.jpg,x"]
    with pytest.raises(UserError, match=r"list\.csv is not a table in text form, or is damaged"):
        names_of(tmp_path, "list.csv", "\n".join(rows).encode())
    text = "\n".join(row.replace(",", "\t") for row in rows)
    assert names_of(tmp_path, "list.tsv", text.encode()) == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.jpg \nb.jpg\n", ["a.jpg ", "b.jpg"]),
        ("img001\nimg002\n", ["img001", "img002"]),
        ("image\nimg001\nimg002\n", ["img001", "img002"]),
        ("photo\na.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
    ],
)
def test_the_first_name_of_one_column_is_no_header(tmp_path, text: str, names: list[str]) -> None:
    assert names_of(tmp_path, "list.csv", text.encode()) == names


def test_lines_of_spaces_name_no_image(tmp_path) -> None:
    assert names_of(tmp_path, "list.txt", b"a.jpg\n   \n\t\nb.jpg") == ["a.jpg", "b.jpg"]
