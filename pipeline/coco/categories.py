"""The person category of a COCO file: one rule for evaluation, given boxes, training and sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.coco.errors import AnnotationError

PERSON = "person"
USUAL_PERSON_ID = 1  # in COCO's own files, and in everything that is written here


class PersonCategory:
    """The category named "person" in any letter case, else the only category of the file.

    A file without `categories` may use one category id; an entry without `category_id` is a person.

    Attributes:
        id: the category's id; None until the first entry of a file without `categories`.
    """

    def __init__(self, categories: Iterable[Mapping[str, Any]], source: str) -> None:
        """
        Args:
            categories: of the file; empty where it has none.
            source: the file, for error messages.

        Raises:
            AnnotationError: no category, or more than one, is a person.
        """
        if not isinstance(categories, Iterable) or isinstance(categories, str | Mapping):
            raise AnnotationError(f"{source}: `categories` is {type(categories).__name__}, expected a list")
        categories = list(categories)
        named = [c for c in categories if isinstance(c, Mapping) and str(c.get("name", "")).lower() == PERSON]
        chosen = named or categories
        if len(chosen) > 1 or (chosen and not (isinstance(chosen[0], Mapping) and "id" in chosen[0])):
            listed = ", ".join(
                f"{c.get('id')} {c.get('name')!r}" if isinstance(c, Mapping) else repr(c) for c in categories[:10]
            )
            more = ", ..." if len(categories) > 10 else ""
            raise AnnotationError(
                f"{source}: exactly one category must be named 'person'; its categories are {listed}{more}"
            )
        self.id: int | None = chosen[0]["id"] if chosen else None
        self._named = bool(chosen)
        self._source = source

    def accepts(self, entry: Mapping[str, Any]) -> bool:
        """Whether an annotation or result is of a person.

        Raises:
            AnnotationError: a file without `categories` uses a second category id.
        """
        category = entry.get("category_id")
        if category is None:
            return True
        if self.id is None:
            self.id = category
        if category == self.id:
            return True
        if not self._named:
            raise AnnotationError(
                f"{self._source}: uses category_id {self.id} and {category}, but has no `categories` to identify the "
                "person category; add them"
            )
        return False


def person_entries(content: Mapping[str, Any], source: str) -> list[dict[str, Any]]:
    """The annotations of people in the content of a file.

    Args:
        source: the file, for error messages.

    Raises:
        AnnotationError: there are no annotations, or no category is a person, see `PersonCategory`.
    """
    category = PersonCategory(content.get("categories") or (), source)
    if "annotations" not in content:
        raise AnnotationError(f"{source}: has images, but no `annotations`")
    return [entry for entry in content["annotations"] if category.accepts(entry)]
