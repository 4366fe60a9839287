import json
from pathlib import Path

import pytest
from support.coco import SKELETON, made_up

from jobs.evaluate import main
from pipeline.evaluation import evaluate_keypoints


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, list[dict], list[dict], dict]:
    truth, poses, boxes = made_up(1)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return tmp_path, poses, boxes, truth


def evaluate(folder: Path, results: object, capsys, code: int = 0) -> str:
    (folder / "results.json").write_text(json.dumps(results))
    assert main([str(folder / "results.json"), "--annotations", str(folder / "truth.json"), "--errors"]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_keypoints_and_boxes_are_evaluated(files, capsys) -> None:
    folder, poses, boxes, truth = files
    expected = evaluate_keypoints(poses, truth, SKELETON)
    output = evaluate(folder, [*poses, poses[0]], capsys)
    assert f"keypoints (coco17): AP {expected.ap:.3f}"[:25] in output
    assert "evaluated on 12 annotated images" in output
    assert "note: 1 results entries occur more than once" in output
    assert "joints of matched people: good " in output
    assert "AP after repairing one kind after another: miss " in output
    assert "missed 1.000" in output
    assert "person boxes: AP" in evaluate(folder, boxes, capsys)


def test_metrics_and_errors_are_written_beside_the_results(files, capsys) -> None:
    folder, poses, boxes, truth = files
    expected = evaluate_keypoints(poses, truth, SKELETON)
    output = evaluate(folder, poses, capsys)
    assert f"metrics:   {folder / 'results.metrics.json'}" in output
    metrics = json.loads((folder / "results.metrics.json").read_text())
    assert metrics["keypoints"].items() >= expected.numbers.items()
    interval, people = metrics["keypoints"]["ap_interval"], metrics["keypoints"]["people"]
    assert interval["value"] == pytest.approx(expected.ap)
    assert interval["low"] <= expected.ap <= interval["high"]
    assert people["annotated"] == people["found"] + people["missed"]
    assert "95 % intervals: AP " in output
    assert (metrics["boxes"], metrics["skeleton"]) == (None, "coco17")
    assert (metrics["annotated_images"], metrics["annotations"]) == (12, str(folder / "truth.json"))
    errors = json.loads((folder / "results.errors.json").read_text())
    assert errors["ap"] == pytest.approx(expected.ap)
    assert set(errors) >= {"joints", "shares", "alone", "cumulative", "background", "missed", "pck", "groups"}
    assert errors["cumulative"]["missed"] == pytest.approx(1)
    assert {tuple(group) for group in errors["groups"]} == {("grouping", "label", "people", "ap")}
    assert len(errors["joints"]["good"]) == 17

    (folder / "results.json").write_text(json.dumps(poses))
    assert main([str(folder / "results.json"), "--annotations", str(folder / "truth.json")]) == 0
    assert not (folder / "results.errors.json").exists(), "the errors of an earlier evaluation are deleted"
    evaluate(folder, boxes, capsys)
    metrics = json.loads((folder / "results.metrics.json").read_text())
    assert (metrics["keypoints"], metrics["skeleton"]) == (None, None)
    assert 0 < metrics["boxes"]["ap"] < 1
    assert sorted(path.name for path in folder.iterdir()) == ["results.json", "results.metrics.json", "truth.json"]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"annotations": []}, "expected a JSON list of COCO results; it starts with '{'"),
        ([{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}], "entry 0 has 1 joints; known skeletons: coco17 17"),
        ([{"image_id": 77, "keypoints": [1] * 51, "score": 1}], r"entry 0 (image_id 77): the annotations have no such"),
    ],
)
def test_an_entry_that_cannot_be_evaluated_is_named(results: object, message: str, files, capsys) -> None:
    assert message in evaluate(files[0], results, capsys, code=1)


def test_a_results_file_needs_annotations(files, capsys) -> None:
    assert main([str(files[0] / "results.json")]) == 2
    assert "needs --annotations" in capsys.readouterr().err
