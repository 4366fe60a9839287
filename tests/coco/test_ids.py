"""COCO image ids: their values, and which image of a collection has which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.coco.errors import AnnotationError
from pipeline.coco.ids import image_id, match_ids


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, 7), (0, 0), (7.0, 7), ("7", 7), ("000007", 7), ("cam1_7", "cam1_7"), ("7.0", "7.0"), (1 << 70, str(1 << 70))],
)
def test_ids_are_whole_numbers_or_texts(value: object, expected: object) -> None:
    assert image_id(value, "x") == expected


@pytest.mark.parametrize("value", [None, True, 1.5, float("nan"), float("inf"), [1], {}])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(
        AnnotationError, match=r"x\.json: images\[3\] has the image id .*expected a whole number or text"
    ):
        image_id(value, "x.json: images[3]")


@pytest.mark.parametrize(
    ("names", "keys", "expected", "ambiguous"),
    [
        # equal names, folders missing or different on either side
        (["a/x.jpg"], ["a/x.jpg"], {"a/x.jpg": 0}, []),
        (["x.jpg"], ["train.tar/y/x.jpg"], {"train.tar/y/x.jpg": 0}, []),
        (["images/val/x.jpg"], ["x.jpg"], {"x.jpg": 0}, []),
        (["val2017/x.jpg"], ["images/x.jpg"], {"images/x.jpg": 0}, []),
        (["./a/x.jpg"], ["p.tar/./a/x.jpg"], {"p.tar/./a/x.jpg": 0}, []),
        (["cam1\\x.jpg", "cam2\\x.jpg"], ["cam1/x.jpg", "cam2/x.jpg"], {"cam1/x.jpg": 0, "cam2/x.jpg": 1}, []),
        (["x.jpg"], ["https://host/x.jpg?X-Amz-Signature=1"], {"https://host/x.jpg?X-Amz-Signature=1": 0}, []),
        (["https://d/uc?id=A", "https://d/uc?id=B"], ["https://d/uc?id=B"], {"https://d/uc?id=B": 1}, []),
        # sequences with the same file names
        (["s1/0.jpg", "s2/0.jpg"], ["t.tar/v/s1/0.jpg", "t.tar/v/s2/0.jpg"],
         {"t.tar/v/s1/0.jpg": 0, "t.tar/v/s2/0.jpg": 1}, []),
        (["v/s1/0.jpg", "v/s2/0.jpg"], ["s1/0.jpg", "s2/0.jpg"], {"s1/0.jpg": 0, "s2/0.jpg": 1}, []),
        # the other camera is not annotated
        (["cam1/0.jpg"], ["cam1/0.jpg", "cam2/0.jpg"], {"cam1/0.jpg": 0}, []),
        (["cam1/0.jpg"], ["p/cam1/0.jpg", "p/cam2/0.jpg"], {"p/cam1/0.jpg": 0}, []),
        (["0.jpg"], ["0.jpg", "cam2/0.jpg"], {"0.jpg": 0}, []),
        (["s1/0.jpg", "s2/0.jpg"], ["s1/0.jpg", "s2/0.jpg", "s3/0.jpg"], {"s1/0.jpg": 0, "s2/0.jpg": 1}, []),
        # nobody can tell
        (["0.jpg"], ["cam1/0.jpg", "cam2/0.jpg"], {}, ["cam1/0.jpg", "cam2/0.jpg"]),
        (["cam1/0.jpg", "cam2/0.jpg"], ["0.jpg"], {}, ["0.jpg"]),
        (["cam1/0.jpg", "cam2/0.jpg"], ["x/0.jpg"], {}, ["x/0.jpg"]),
        (["a/0.jpg", "b/0.jpg"], ["a/0.jpg", "x/0.jpg"], {"a/0.jpg": 0}, ["x/0.jpg"]),
        (["a.jpg"], ["a.jpg", "./a.jpg"], {}, ["a.jpg", "./a.jpg"]),
        # a second member of that name in an archive is another image
        (["a.jpg"], ["t.tar/a.jpg", "t.tar/a.jpg#2"], {"t.tar/a.jpg": 0}, []),
        ([], ["a.jpg"], {}, []),
        (["b.jpg"], ["a.jpg"], {}, []),
    ],
)  # fmt: skip
def test_images_and_annotated_names(names: list, keys: list, expected: dict, ambiguous: list) -> None:
    matched = match_ids([(name, number) for number, name in enumerate(names)], keys)
    assert matched.by_key == expected
    assert list(matched.ambiguous) == ambiguous
    assert len(matched) == len(expected)
    assert [matched.get(key) for key in keys] == [expected.get(key) for key in keys]
    assert bool(matched.warnings()) == bool(ambiguous)


def test_the_warning_counts_and_names_ambiguous_images() -> None:
    (warning,) = match_ids([("0.jpg", 1)], [f"cam{i}/0.jpg" for i in range(5)]).warnings()
    assert warning.startswith("5 images have no COCO id")
    assert warning.endswith("cam0/0.jpg, cam1/0.jpg, cam2/0.jpg, ...")


def test_a_name_with_two_ids_is_refused_and_a_repeated_entry_is_not() -> None:
    assert match_ids([("a.jpg", 1), ("a.jpg", 1)], ["a.jpg"]).by_key == {"a.jpg": 1}
    with pytest.raises(AnnotationError, match=r"list the image a\.jpg twice, with the ids 1 and 2"):
        match_ids([("a.jpg", 1), ("a.jpg", 2)], ["a.jpg"])


_PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(_PATHS, unique=True, max_size=8), st.lists(_PATHS, unique=True, max_size=8))
def test_no_id_is_given_twice_and_every_pair_shares_the_file_name(names: list[str], keys: list[str]) -> None:
    matched = match_ids([(name, number) for number, name in enumerate(names)], keys).by_key
    assert len(set(matched.values())) == len(matched)
    for key, number in matched.items():
        assert key.split("/")[-1] == names[number].split("/")[-1]
    assert all(matched[name] == names.index(name) for name in set(names) & set(keys))
