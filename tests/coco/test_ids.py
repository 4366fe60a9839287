"""COCO image ids by the names of images."""

from pipeline.coco.ids import CocoIds


def test_ids_match_by_name_or_by_unique_file_name() -> None:
    ids = CocoIds([("a/x.jpg", 1), ("b/x.jpg", 2), ("y.jpg", 3)])
    assert ids.get("a/x.jpg") == 1
    assert ids.get("train.tar/y.jpg") == 3
    assert ids.get("c/x.jpg") is None, "two images have this file name"
    assert ids.get("z.jpg") is None
    assert len(ids) == 3


def test_the_whole_name_has_precedence_over_the_file_name() -> None:
    ids = CocoIds([("a/x.jpg", 1), ("x.jpg", 2)])
    assert ids.get("x.jpg") == 2
    assert ids.get("a/x.jpg") == 1
    assert ids.get("b/x.jpg") is None


def test_the_id_zero_is_an_id() -> None:
    assert CocoIds([("x.jpg", 0)]).get("folder/x.jpg") == 0


def test_without_images_no_name_has_an_id() -> None:
    assert CocoIds([]).get("x.jpg") is None
