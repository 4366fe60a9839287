"""Listings of S3 prefixes, in path order. Folders below a large prefix are listed concurrently."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipeline.process.queue import BoundedQueue
from pipeline.storage.filesystems import with_retries
from pipeline.storage.objects import Entry

_PAGE = 1000  # entries of an answer, the most that S3 gives
_AT_A_TIME = 16  # folders
_PAGES_AHEAD = 10  # of each folder, so that at most 160,000 entries are in memory
_ENOUGH = 256  # folders; with fewer, those below them are looked for


def list_s3(fs: Any, path: str, protocol: str) -> Iterator[Entry]:
    """Every object below a prefix, sorted by the characters of the path.

    Answers with 1,000 entries come one after another, each takes a while, and the next cannot be asked for before. So
    the folders below a prefix with more entries are found first, and listed concurrently.

    Args:
        fs: of s3fs.
        path: bucket and prefix.
        protocol: of the entries' URIs.
    """
    bucket, _, key = path.partition("/")
    folder = _Folder(fs, f"{protocol}://{bucket}", key.rstrip("/") + "/" if key else "")
    first = folder.page()
    if not first.get("IsTruncated"):
        yield from folder.entries(first)
        return
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        branches = _branches(folder, pool)
        if branches == [folder]:
            yield from chain(folder.entries(first), *folder.pages(first["NextContinuationToken"]))
        else:
            yield from _concurrently(branches, pool)


@dataclass(frozen=True)
class _Folder:
    """What lies below a prefix of a bucket."""

    fs: Any
    bucket_uri: str
    prefix: str

    def page(self, **options: Any) -> dict[str, Any]:
        """An answer of the server."""
        bucket = self.bucket_uri.rpartition("/")[2]
        request = {"Bucket": bucket, "Prefix": self.prefix, "MaxKeys": _PAGE, **options}
        answer: dict[str, Any] = with_retries(
            f"{self.bucket_uri}/{self.prefix}".rstrip("/"), lambda: self.fs.call_s3("list_objects_v2", **request)
        )
        return answer

    def pages(self, token: str | None = None) -> Iterator[list[Entry]]:
        """All objects below, page by page."""
        page = self.page(**({} if token is None else {"ContinuationToken": token}))
        yield self.entries(page)
        while page.get("IsTruncated"):
            page = self.page(ContinuationToken=page["NextContinuationToken"])
            yield self.entries(page)

    def entries(self, page: dict[str, Any]) -> list[Entry]:
        return [
            Entry(
                f"{self.bucket_uri}/{item['Key']}",
                item["Size"],
                item.get("ETag", "").strip('"'),
                item["LastModified"].timestamp(),
            )
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")  # folder markers, which storage consoles create
        ]

    def children(self) -> list[Entry | _Folder]:
        """Its objects and folders in order; itself alone if there are too many for one answer."""
        page = self.page(Delimiter="/")
        if page.get("IsTruncated"):
            return [self]
        named: dict[str, Entry | _Folder] = {entry.uri: entry for entry in self.entries(page)}
        for item in page.get("CommonPrefixes", ()):
            named[f"{self.bucket_uri}/{item['Prefix']}"] = _Folder(self.fs, self.bucket_uri, item["Prefix"])
        return [named[uri] for uri in sorted(named)]


def _branches(folder: _Folder, pool: ThreadPoolExecutor) -> list[Entry | _Folder]:
    """Objects and folders that together are a folder, in order; itself alone if it cannot be split."""
    branches: list[Entry | _Folder] = [folder]
    whole: set[_Folder] = set()  # folders that cannot be split
    while len(split := [b for b in branches if isinstance(b, _Folder) and b not in whole]) in range(1, _ENOUGH):
        children = dict(zip(split, pool.map(_Folder.children, split), strict=True))
        whole |= {parent for parent, found in children.items() if found == [parent]}
        branches = list(chain.from_iterable(children.get(b, [b]) if isinstance(b, _Folder) else [b] for b in branches))
    return branches


def _concurrently(branches: Iterable[Entry | _Folder], pool: ThreadPoolExecutor) -> Iterator[Entry]:
    """The entries of all branches in order."""
    ahead: deque[Iterable[list[Entry]]] = deque()
    queues: deque[BoundedQueue[list[Entry]]] = deque(maxlen=_AT_A_TIME + 1)
    try:
        for branch in branches:
            if isinstance(branch, Entry):
                ahead.append([[branch]])
            else:
                queue: BoundedQueue[list[Entry]] = BoundedQueue(_PAGES_AHEAD, _PAGES_AHEAD * _PAGE)
                queues.append(queue)
                pool.submit(_fill, queue, branch)
                ahead.append(queue)
            if len(ahead) > _AT_A_TIME:
                yield from chain.from_iterable(ahead.popleft())
        while ahead:
            yield from chain.from_iterable(ahead.popleft())
    finally:
        for queue in queues:  # if the reader stops early
            queue.close()


def _fill(queue: BoundedQueue[list[Entry]], folder: _Folder) -> None:
    with queue.filling():
        for page in folder.pages():
            queue.put(page, len(page))
