"""COCO image ids by the names of images."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import storage


class CocoIds:
    """COCO image ids by the names of images: by the whole name, else by the file name where that is unique."""

    def __init__(self, images: Iterable[tuple[str, int]]) -> None:
        """
        Args:
            images: `file_name` and id of each.
        """
        self._by_name: dict[str, int] = {}
        self._by_basename: dict[str, int | None] = {}
        for name, number in images:
            self._by_name[name] = number
            base = storage.basename(name)
            self._by_basename[base] = None if base in self._by_basename else number

    def get(self, key: str) -> int | None:
        """The id of the image with this key; None if the annotations do not name it."""
        if key in self._by_name:
            return self._by_name[key]
        return self._by_basename.get(storage.basename(key))

    def __len__(self) -> int:
        return len(self._by_name)
