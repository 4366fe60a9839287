"""COCO image ids: their values, and which image of a collection has which.

An annotated name and an image of a collection belong together if they share the longest path suffix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pipeline.coco.errors import AnnotationError

_NAMED_IMAGES = 3  # in messages
_MANY = -1  # in an index: several names have this suffix
_INT64 = 1 << 63


def image_id(value: Any, where: str) -> int | str:
    """An image id as a whole number if it is one, also as a float or as text; else the text.

    Args:
        value: of `id` or `image_id` in a file.
        where: file and entry, for error messages.

    Raises:
        AnnotationError: it is neither a whole number nor text.
    """
    if isinstance(value, str):
        return int(value) if value.isdecimal() and int(value) < _INT64 else value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value) if -_INT64 <= value < _INT64 else str(int(value))
    raise AnnotationError(f"{where} has the image id {value!r}; expected a whole number or text")


_Id = TypeVar("_Id", bound=int | str)


@dataclass(frozen=True)
class CocoIds(Generic[_Id]):
    """COCO ids of the images of a collection.

    Attributes:
        by_key: id by `image_id` of the collection's image.
        ambiguous: images that might be several annotated images, or share one with other images; they get no id.
    """

    by_key: Mapping[str, _Id] = field(default_factory=dict)
    ambiguous: tuple[str, ...] = ()

    def get(self, key: str) -> _Id | None:
        """The id of the image with this key; None if the annotations do not name it, or not unambiguously."""
        return self.by_key.get(key)

    def __len__(self) -> int:
        return len(self.by_key)

    def warnings(self) -> list[str]:
        """What the user must know about images without id, as lines of text."""
        if not self.ambiguous:
            return []
        named = ", ".join(self.ambiguous[:_NAMED_IMAGES]) + (", ..." if len(self.ambiguous) > _NAMED_IMAGES else "")
        return [
            f"{len(self.ambiguous)} images have no COCO id, because their names fit several annotated images, or an "
            f"annotated name fits several images: {named}"
        ]


def match_ids(images: Iterable[tuple[str, _Id]], keys: Iterable[str]) -> CocoIds[_Id]:
    """Match annotated images with the images of a collection.

    An image and an annotated name that are equal belong together. Of the others, each one's best partner shares the
    longest suffix of path components, at least the file name; a pair belongs together if each is the only best partner
    of the other. So folders may be missing or differ on either side, and a file name alone decides only if it is
    unique on both sides.

    Args:
        images: `file_name` and id of each annotated image.
        keys: `image_id` of each image of the collection, streamed.

    Raises:
        AnnotationError: the annotations use a name for two ids.

    >>> match_ids([("cam1/0.jpg", 7)], ["photos.tar/cam1/0.jpg", "photos.tar/cam2/0.jpg"]).by_key
    {'photos.tar/cam1/0.jpg': 7}
    """
    names, ids = _names(images)
    by_suffix = _index(names)
    # Images with another file name than all annotated ones cannot match: a large collection is not held in memory.
    candidates = {key: parts for key in keys if (parts := _parts(key)) and parts[-1:] in by_suffix}
    keys_by_suffix = _index(list(candidates.values()))
    by_parts = {parts: number for number, parts in enumerate(names)}
    equal: dict[int, int] = {}  # position of the image that equals each name
    for position, parts in enumerate(candidates.values()):
        if parts in by_parts:
            equal[by_parts[parts]] = _MANY if by_parts[parts] in equal else position
    matched: dict[str, _Id] = {}
    unsure: dict[str, tuple[str, ...]] = {}
    for position, (key, parts) in enumerate(candidates.items()):
        number = by_parts[parts] if parts in by_parts else by_suffix[_longest(parts, by_suffix)]
        partner = _MANY
        if number != _MANY:
            name = names[number]
            partner = equal[number] if number in equal else keys_by_suffix[_longest(name, keys_by_suffix)]
        if partner == position:
            matched[key] = ids[number]
        elif partner == _MANY:
            unsure[key] = parts
    found = set(matched.values())
    free = {suffix for name, id_ in zip(names, ids, strict=True) if id_ not in found for suffix in _suffixes(name)}
    # Where all names that an image might have belong to other images, it is simply not annotated.
    return CocoIds(matched, tuple(key for key, parts in unsure.items() if _longest(parts, by_suffix) in free))


def check_names(images: Iterable[tuple[str, int | str]]) -> None:
    """
    Raises:
        AnnotationError: the annotations use a name for two ids.
    """
    _names(images)


def _parts(name: str) -> tuple[str, ...]:
    """The components of a path or URI. A query after a file name, such as a signature, is not part of the name."""
    if "://" in name:
        address, _, query = name.partition("?")
        name = address if "." in address.rpartition("/")[2] else f"{address}?{query.replace('/', '%2F')}"
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _names(images: Iterable[tuple[str, _Id]]) -> tuple[list[tuple[str, ...]], list[_Id]]:
    """Components and id of each annotated name; an image that is listed twice with the same id counts once."""
    ids: dict[tuple[str, ...], _Id] = {}
    for name, number in images:
        parts = _parts(name)
        if ids.setdefault(parts, number) != number:
            raise AnnotationError(
                f"the annotations list the image {name} twice, with the ids {ids[parts]} and {number}"
            )
    return list(ids), list(ids.values())


def _suffixes(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The suffixes of a path, longest first."""
    return (parts[start:] for start in range(len(parts)))


def _index(paths: list[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """The position of the path with each suffix, `_MANY` where several have it."""
    index: dict[tuple[str, ...], int] = {}
    for position, parts in enumerate(paths):
        for suffix in _suffixes(parts):
            index[suffix] = _MANY if suffix in index else position
    return index


def _longest(parts: tuple[str, ...], index: Mapping[tuple[str, ...], int]) -> tuple[str, ...]:
    """The longest suffix of a path that the index has; there must be one."""
    return next(suffix for suffix in _suffixes(parts) if suffix in index)
