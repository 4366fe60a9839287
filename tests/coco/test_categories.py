"""The person category of COCO files."""

import pytest

from pipeline.coco.categories import PersonCategory, person_entries
from pipeline.coco.errors import AnnotationError


@pytest.mark.parametrize("name", ["person", "Person", "PERSON"])
def test_the_category_named_person_is_a_person_in_any_letter_case(name: str) -> None:
    category = PersonCategory([{"id": 3, "name": "bicycle"}, {"id": 7, "name": name}], "a.json")
    assert category.id == 7
    assert category.accepts({"category_id": 7})
    assert not category.accepts({"category_id": 3})
    assert not category.accepts({"category_id": 1})


def test_the_only_category_is_a_person_under_any_name() -> None:
    category = PersonCategory([{"id": 0, "name": "skier"}], "a.json")
    assert category.id == 0
    assert category.accepts({"category_id": 0})
    assert not category.accepts({"category_id": 1})


def test_several_categories_without_a_person_are_refused_and_listed() -> None:
    categories = [{"id": 1, "name": "man"}, {"id": 2, "name": "woman"}]
    message = r"^a\.json: exactly one category must be named 'person'; its categories are 1 'man', 2 'woman'$"
    with pytest.raises(AnnotationError, match=message):
        PersonCategory(categories, "a.json")


def test_a_long_list_of_categories_is_cut() -> None:
    with pytest.raises(AnnotationError, match=r"9 'c9', \.\.\.$"):
        PersonCategory([{"id": i, "name": f"c{i}"} for i in range(80)], "a.json")


def test_two_categories_named_person_are_refused() -> None:
    with pytest.raises(AnnotationError, match="exactly one category must be named 'person'"):
        PersonCategory([{"id": 1, "name": "person"}, {"id": 2, "name": "Person"}], "a.json")


@pytest.mark.parametrize("categories", [[{"name": "person"}], ["person"], [None]])
def test_a_category_without_an_id_is_refused(categories: list) -> None:
    with pytest.raises(AnnotationError, match=r"^a\.json: exactly one category must be named 'person'"):
        PersonCategory(categories, "a.json")


def test_without_categories_a_single_category_id_is_a_person() -> None:
    category = PersonCategory([], "a.json")
    assert category.id is None
    assert category.accepts({"category_id": 4})
    assert category.id == 4
    assert category.accepts({"category_id": 4})


def test_without_categories_a_second_category_id_is_refused() -> None:
    category = PersonCategory([], "a.json")
    category.accepts({"category_id": 4})
    with pytest.raises(AnnotationError, match=r"^a\.json: uses category_id 4 and 5, but has no `categories`"):
        category.accepts({"category_id": 5})


@pytest.mark.parametrize("categories", [[], [{"id": 7, "name": "person"}]])
def test_an_entry_without_category_id_is_a_person(categories: list) -> None:
    category = PersonCategory(categories, "a.json")
    assert category.accepts({})
    assert category.accepts({"category_id": None})


def test_person_entries_leaves_out_other_categories() -> None:
    annotations = [{"id": 1, "category_id": 2}, {"id": 2, "category_id": 1}, {"id": 3}]
    content = {"categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}], "annotations": annotations}
    assert [entry["id"] for entry in person_entries(content, "a.json")] == [1, 3]
