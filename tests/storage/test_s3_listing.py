"""Listings of prefixes that are too large for one answer of the server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from support.faults import FAULTS
from support.s3 import S3Server

from pipeline import storage
from pipeline.storage import s3_listing
from pipeline.storage.s3_listing import _Folder


def write_tree(folder: str, names: list[str]) -> list[str]:
    for name in names:
        storage.write_bytes(f"{folder}/{name}", name.encode())
    return sorted(names)


def listed(folder: str) -> list[str]:
    return [entry.uri.removeprefix(f"{folder}/") for entry in storage.list_files(folder)]


def tree(seed: int, count: int) -> list[str]:
    """Paths up to four folders deep, with names that sort before and after a slash."""
    random = np.random.default_rng(seed)
    parts = ["a", "a-", "a.b", "a0", "b", "é", "z z"]
    paths = {"/".join(random.choice(parts, random.integers(1, 5))) + f"{n}.jpg" for n in range(count)}
    return sorted(paths)


@pytest.mark.parametrize("page", [1, 3, 10, 1000])
@pytest.mark.parametrize("enough", [1, 4, 256])
def test_every_object_is_listed_once_and_in_order(
    page: int, enough: int, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_listing, "_PAGE", page)
    monkeypatch.setattr(s3_listing, "_ENOUGH", enough)
    monkeypatch.setattr(s3_listing, "_PAGES_AHEAD", 2)
    for number, names in enumerate((tree(page, 40), [f"deep/er/{i:03d}.jpg" for i in range(12)], ["x/1", "y/1"])):
        expected = write_tree(f"{s3_folder}/{number}", names)
        assert listed(f"{s3_folder}/{number}") == expected


def test_folders_of_a_large_prefix_are_listed_concurrently(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_tree(s3_folder, [f"{i:02d}/{j}.jpg" for i in range(20) for j in range(4)])
    monkeypatch.setattr(s3_listing, "_PAGE", 4)
    monkeypatch.setattr(s3_listing, "_ENOUGH", 8)
    asked, now, most = Counter(), [0], [0]
    lock, page = threading.Lock(), _Folder.page

    def counted(folder: _Folder, **options: object) -> dict:
        with lock:
            asked[folder.prefix] += 1
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        try:
            return page(folder, **options)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(_Folder, "page", counted)
    small = f"{s3_folder}/07"
    assert listed(small) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert asked.total() == 1, "a small folder needs one request"
    # The folders do not fit into one answer of four entries: it is listed from first to last.
    assert listed(s3_folder) == names
    assert most[0] == 1
    monkeypatch.setattr(s3_listing, "_PAGE", 30)
    asked.clear()
    assert listed(s3_folder) == names
    assert most[0] > 4
    assert asked.total() == 1 + 1 + 20, "the first answer, the folders, and each of them"


def test_a_reader_that_stops_early_leaves_no_thread(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_tree(s3_folder, [f"{i:02d}/{j}.jpg" for i in range(20) for j in range(6)])
    monkeypatch.setattr(s3_listing, "_PAGE", 25)
    monkeypatch.setattr(s3_listing, "_PAGES_AHEAD", 1)
    before = threading.active_count()
    entries = storage.list_files(s3_folder)
    assert [entry.uri.removeprefix(f"{s3_folder}/") for entry in islice(entries, 3)] == names[:3]
    entries.close()
    assert threading.active_count() <= before


def test_failed_requests_are_repeated(s3_under_fire: S3Server, s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_tree(s3_folder, [f"{i:02d}/{j}.jpg" for i in range(20) for j in range(6)])
    monkeypatch.setattr(s3_listing, "_PAGE", 25)
    s3_under_fire.faults.kinds = tuple(kind for kind in FAULTS if kind != "stall")
    s3_under_fire.faults.share = 0.3
    found = listed(s3_folder)
    s3_under_fire.faults.share = 0.0
    assert found == names
