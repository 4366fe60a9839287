"""Corrected labels are read back from exports of CVAT and Label Studio, and the run is evaluated against them."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.runs import POSE, judged_run

from jobs.evaluate import main as evaluate
from jobs.reduce import main as reduce
from pipeline.run import Run
from pipeline.skeletons import SKELETONS

PLACES = {name: ([], [(20.0, 30.0), (150.0, 90.0)]) for name in ("a.jpg", "b.jpg", "sub/c.jpg", "d.jpg")}
JOINTS = SKELETONS["coco17"].joints


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose review queue has all images."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    run = judged_run(tmp_path / "run", PLACES)
    assert reduce([run.uri, "--review", "4"]) == 0
    return run


def names(run: Run) -> dict[str, str]:
    """Name of each image in the queue, by image id."""
    lines = (Path(run.uri) / "review" / "images.csv").read_text().splitlines()[1:]
    return {line.split(",")[1]: line.split(",")[0] for line in lines}


def label_studio_export(run: Run) -> list[dict]:
    """The tasks as a person submits them: in `a` one person is deleted, `b` is skipped, in `c` a joint is moved."""
    tasks = json.loads((Path(run.uri) / "review" / "label-studio.json").read_text())
    known = names(run)
    exported = []
    for task in tasks:
        name = task["data"]["image"]
        result = task["predictions"][0]["result"]
        skipped = name == known["b.jpg"]
        if name == known["a.jpg"]:
            result = [r for r in result if not r["id"].startswith("person1")]
        if name == known["sub/c.jpg"]:
            for region in result:
                if region["id"] == "person0_left_wrist":
                    region["value"]["x"] += 10
        if name == known["d.jpg"]:
            continue  # not exported
        # An upload gets a prefix. Points that are drawn anew have no parent.
        drawn = [{k: v for k, v in r.items() if k != "parentID"} for r in result]
        task["data"]["image"] = f"/data/upload/3/1a2b3c4d-{name}"
        exported.append({**task, "annotations": [{"result": drawn, "was_cancelled": skipped}]})
    return exported


def test_label_studio_corrections_show_how_far_off_the_labels_were(run: Run, tmp_path: Path, capsys) -> None:
    (tmp_path / "export.json").write_text(json.dumps(label_studio_export(run)))
    assert evaluate([run.uri, "--corrections", str(tmp_path / "export.json")]) == 0
    corrected = json.loads((Path(run.uri) / "review" / "corrected.json").read_text())
    assert [image["file_name"] for image in corrected["images"]] == ["a.jpg", "sub/c.jpg"]
    metrics = json.loads((Path(run.uri) / "review" / "metrics.json").read_text())
    people = metrics["keypoints"]["people"]
    assert (people["annotated"], people["found"], people["false_positives"]) == (3, 3, 1)
    assert metrics["annotated_images"] == 2
    errors = json.loads((Path(run.uri) / "review" / "errors.json").read_text())
    wrong = {kind: sum(counts.values()) for kind, counts in errors["joints"].items()}
    assert wrong["good"] == 3 * 17 - 1, "one wrist was moved"
    assert not (Path(run.uri) / "metrics.json").exists(), "the metrics of the run are others"


def test_cvat_corrections_are_read_with_its_order_of_joints(run: Run, tmp_path: Path, capsys) -> None:
    """CVAT sorts joints as its label does, and exports all images of the task."""
    content = json.loads((Path(run.uri) / "review" / "cvat-person_keypoints.json").read_text())
    order = np.random.default_rng(0).permutation(17)
    content["categories"][0]["keypoints"] = [JOINTS[i] for i in order]
    for annotation in content["annotations"]:
        annotation["keypoints"] = np.reshape(annotation["keypoints"], (17, 3))[order].ravel().tolist()
    deleted = content["annotations"].pop()
    (tmp_path / "export.json").write_text(json.dumps(content))
    assert evaluate([run.uri, "--corrections", str(tmp_path / "export.json")]) == 0
    metrics = json.loads((Path(run.uri) / "review" / "metrics.json").read_text())
    assert metrics["annotated_images"] == 4
    assert metrics["keypoints"]["ap"] == pytest.approx(1, abs=0.02)
    assert metrics["keypoints"]["people"]["false_positives"] == 1
    corrected = json.loads((Path(run.uri) / "review" / "corrected.json").read_text())
    first = np.reshape(corrected["annotations"][0]["keypoints"], (17, 3))[:, :2]
    assert min(np.abs(first - (POSE + place)).max() for place in PLACES["a.jpg"][1]) < 0.01
    assert deleted["image_id"] in {image["id"] for image in content["images"]}
    assert (
        "note: the labels of 3 of 4 images are as they were uploaded; if nobody has looked" in capsys.readouterr().out
    )


def test_the_best_threshold_is_named(tmp_path: Path, capsys) -> None:
    """People with a box score under 0.6 are all wrong."""
    run = judged_run(tmp_path / "run", {f"{i}.jpg": ([], [(20.0, 30.0), (150.0, 90.0)]) for i in range(4)}, [0.9, 0.5])
    assert reduce([run.uri, "--review", "4"]) == 0
    content = json.loads((Path(run.uri) / "review" / "cvat-person_keypoints.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["bbox"][0] == 20]
    (tmp_path / "export.json").write_text(json.dumps(content))
    assert evaluate([run.uri, "--corrections", str(tmp_path / "export.json")]) == 0
    output = capsys.readouterr().out
    assert "--detector.confidence 0.4: recall 1.000 (0.250 to 1.000), precision 0.500" not in output
    assert "--detector.confidence 0.4: recall 1.000, precision 0.500, F1 0.667" in output
    assert "--detector.confidence 0.5: recall 1.000, precision 1.000, F1 1.000" in output
    assert "best F1: --detector.confidence 0.5 instead of 0.4" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"people": []}, "it is neither COCO keypoints of CVAT nor JSON of Label Studio"),
        ([{"data": {}}], "is not an export of CVAT (COCO Keypoints 1.0) or of Label Studio (JSON): KeyError('image')"),
        ([{"data": {"image": "x"}, "annotations": ["x"]}], "is not an export of CVAT"),
        (
            {"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": [{"id": 1}]},
            "is not an export of CVAT (COCO Keypoints 1.0) or of Label Studio (JSON): KeyError('image_id')",
        ),
        ({"images": [{"id": 1, "file_name": "x.jpg"}]}, "has no corrected image of the review queue"),
        (
            {"images": [], "categories": [{"id": 1, "keypoints": ["nose", "tail"]}]},
            "it has other joints than the run's skeleton coco17: left_ankle, left_ear, left_elbow",
        ),
    ],
)
def test_other_files_are_refused(run: Run, content, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "export.json").write_text(json.dumps(content))
    assert evaluate([run.uri, "--corrections", str(tmp_path / "export.json")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_run_without_a_queue_is_refused(tmp_path: Path, capsys) -> None:
    run = judged_run(tmp_path / "run", {"a.jpg": ([], [])})
    (tmp_path / "export.json").write_text("[]")
    assert evaluate([run.uri, "--corrections", str(tmp_path / "export.json")]) == 1
    assert "has no review queue; write one with jobs/reduce.py" in capsys.readouterr().err
