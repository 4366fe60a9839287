"""COCO results files, and the person category that they must use."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.coco import SKELETON, made_up
from support.paths import SHARED

from jobs.evaluate import main as evaluate
from pipeline.coco.annotations import read_annotations
from pipeline.coco.errors import AnnotationError
from pipeline.coco.results import read_results
from pipeline.evaluation import evaluate_keypoints

CASES = SHARED / "cases" / "evaluate"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs the files of ../shared/cases")


def test_a_streamed_file_equals_its_entries(tmp_path: Path) -> None:
    truth, poses, boxes = made_up(0)
    path = tmp_path / "results.json"
    for entries, skeleton in ((poses, SKELETON), (boxes, None)):
        annotations = read_annotations(truth, skeleton)
        path.write_text(json.dumps(entries))
        streamed, listed = (read_results(source, annotations, skeleton) for source in (str(path), entries))
        assert streamed.image_ids.tolist() == listed.image_ids.tolist() == [entry["image_id"] for entry in entries]
        for name, column in streamed.detections._asdict().items():
            np.testing.assert_array_equal(column, getattr(listed.detections, name), err_msg=name)


def test_results_of_other_categories_are_left_out() -> None:
    truth, poses, _ = made_up(0)
    annotations = read_annotations(truth, SKELETON)
    others = [{**poses[0], "category_id": 18}, {**poses[1], "category_id": 3}]
    assert len(read_results([*others, *poses], annotations, SKELETON).image_ids) == len(poses)
    without_category = [{k: v for k, v in entry.items() if k != "category_id"} for entry in poses]
    assert len(read_results(without_category, annotations, SKELETON).image_ids) == len(poses)


@pytest.mark.parametrize(("person_id", "category_ids", "listed"), [(1, (0,), "0"), (0, (1,), "1"), (5, (3, 1), "1, 3")])
def test_results_without_a_person_name_both_categories(person_id: int, category_ids: tuple, listed: str) -> None:
    truth, poses, _ = made_up(0)
    truth["categories"] = [{"id": person_id, "name": "person"}]
    truth["annotations"] = [{**entry, "category_id": person_id} for entry in truth["annotations"]]
    entries = [{**entry, "category_id": category_ids[i % len(category_ids)]} for i, entry in enumerate(poses)]
    message = f"category_id of the results is {listed}, the annotations' person is {person_id}$"
    with pytest.raises(AnnotationError, match=message):
        evaluate_keypoints(entries, truth, SKELETON)


def test_the_metrics_do_not_depend_on_the_id_of_the_person_category() -> None:
    truth, poses, _ = made_up(0)
    expected = evaluate_keypoints(poses, truth, SKELETON)
    renumbered = {
        "images": truth["images"],
        "annotations": [{**entry, "category_id": 0} for entry in truth["annotations"]],
        "categories": [{"id": 0, "name": "Person"}],
    }
    assert evaluate_keypoints([{**entry, "category_id": 0} for entry in poses], renumbered, SKELETON) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"results\.json: expected a JSON list of COCO results; it starts with '\{'"),
        ("", r"results\.json: expected a JSON list of COCO results"),
        ("[{]", r"results\.json: not valid JSON"),
        ("[7]", "results entry 0 is int, expected an object"),
    ],
)
def test_files_that_are_not_results_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    truth, _, _ = made_up(0)
    with pytest.raises(AnnotationError, match=message):
        read_results(str(path), read_annotations(truth, SKELETON), SKELETON)


def pycocotools_stats(truth: Path, results: Path) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        content = json.loads(truth.read_text())
        ground = COCO()
        ground.dataset = {"info": {}, **content}
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(json.loads(results.read_text())), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


@needs_cases
def test_the_person_category_may_be_0(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = CASES / "person_is_category_0"
    results = tmp_path / "results.json"
    shutil.copyfile(folder / "results.json", results)
    assert evaluate([str(results), "--annotations", str(folder / "truth.json")]) == 0
    assert "keypoints (coco17): AP 0.358 " in capsys.readouterr().out
    metrics = json.loads((tmp_path / "results.metrics.json").read_text())
    assert metrics["keypoints"]["ap"] == pycocotools_stats(folder / "truth.json", folder / "results.json")[0]


@needs_cases
def test_results_with_another_category_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = CASES / "ultralytics_predictions_category_0"
    results = tmp_path / "results.json"
    shutil.copyfile(folder / "results.json", results)
    assert evaluate([str(results), "--annotations", str(folder / "truth.json")]) == 1
    error = capsys.readouterr().err
    assert "category_id of the results is 0, the annotations' person is 1" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "results.metrics.json").exists()


@needs_cases
def test_the_columns_of_a_whole_body_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    printed = []
    for name in ("results133.json", "results_columns.json"):
        shutil.copyfile(CASES / name, tmp_path / name)
        assert evaluate([str(tmp_path / name), "--annotations", str(CASES / "truth.json")]) == 0
        printed.append(capsys.readouterr().out.splitlines()[:2])
    assert printed[0] == printed[1]
    assert printed[0][0].startswith("keypoints (wholebody133): AP 0.348 ")
    for part in ("body 0.756", "feet 0.855", "face 0.226", "left_hand 0.4", "right_hand 0.3"):
        assert f"AP {part}" in printed[0][0]


@needs_cases
def test_a_score_that_is_not_a_number_is_named_by_file_and_entry(capsys: pytest.CaptureFixture) -> None:
    folder = CASES / "score_nan"
    assert evaluate([str(folder / "results.json"), "--annotations", str(folder / "truth.json")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"evaluate: {folder / 'results.json'}: results entry 3 (image_id 1): score is not finite")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("seed", range(4))
def test_areas_of_results_with_boxes_are_those_of_pycocotools(seed: int, tmp_path: Path) -> None:
    truth, poses, _ = made_up(seed)
    r = np.random.default_rng(seed)
    poses = [{**pose, "bbox": (r.random(4) * 200).tolist()} for pose in poses]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(poses))
    metrics = evaluate_keypoints(poses, truth, SKELETON)
    assert list(metrics.numbers.values()) == pycocotools_stats(tmp_path / "truth.json", tmp_path / "results.json")


def with_ids(truth: dict, poses: list[dict], change) -> tuple[dict, list[dict]]:
    return {
        **truth,
        "images": [{**image, "id": change(image["id"])} for image in truth["images"]],
        "annotations": [{**entry, "image_id": change(entry["image_id"])} for entry in truth["annotations"]],
    }, [{**entry, "image_id": change(entry["image_id"])} for entry in poses]


@pytest.mark.parametrize("change", [float, str, "{:06d}".format, "frame_{}".format, lambda i: i if i % 2 else f"f{i}"])
def test_image_ids_may_be_floats_and_texts(change) -> None:
    truth, poses, _ = made_up(3)
    expected = evaluate_keypoints(poses, truth, SKELETON)
    changed_truth, changed_poses = with_ids(truth, poses, change)
    assert evaluate_keypoints(changed_poses, changed_truth, SKELETON) == expected
    unknown = [{**changed_poses[0], "image_id": "unknown"}]
    with pytest.raises(AnnotationError, match=r"entry 0 \(image_id unknown\): the annotations have no such image"):
        evaluate_keypoints(unknown, changed_truth, SKELETON)


def test_a_results_file_needs_no_file_names() -> None:
    truth, poses, _ = made_up(3)
    expected = evaluate_keypoints(poses, truth, SKELETON)
    nameless = {**truth, "images": [{"id": image["id"]} for image in truth["images"]]}
    assert evaluate_keypoints(poses, nameless, SKELETON) == expected
    with pytest.raises(AnnotationError, match="no file_name"):
        read_annotations(nameless, SKELETON).match_ids(["1.jpg"])


def test_an_image_that_is_listed_twice_counts_once() -> None:
    truth, poses, _ = made_up(3)
    expected = evaluate_keypoints(poses, truth, SKELETON)
    assert evaluate_keypoints(poses, {**truth, "images": truth["images"] * 2}, SKELETON) == expected
