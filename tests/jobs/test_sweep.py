"""The sweep job on the photographs of the demo, against annotations derived from a run on them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.cluster import Cluster, wait_for
from support.paths import DEMO, DEMO_BOXES

from jobs import evaluate, sweep


@pytest.fixture(scope="module")
def scene(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four candidate boxes for each person, and annotations close to the poses that a run detects."""
    cluster.behave()
    folder = tmp_path_factory.mktemp("sweep")
    truth = json.loads(DEMO_BOXES.read_text())
    r = np.random.default_rng(0)
    boxes = []
    for annotation in truth["annotations"]:
        for score in (0.9, 0.6, 0.5, 0.15):
            moved = (np.array(annotation["bbox"]) * (1 + r.normal(0, 0.06, 4))).tolist()
            boxes.append({"image_id": annotation["image_id"], "category_id": 1, "bbox": moved, "score": score})
    (folder / "boxes.json").write_text(json.dumps(boxes))
    cluster.run("annotate", f"--output={folder / 'first'}", "--detector.name=given", f"--detector.boxes={DEMO_BOXES}")
    results = json.loads((folder / "first" / "coco_results.json").read_text())
    annotations = []
    for number, entry in enumerate(results):
        joints = np.array(entry["keypoints"]).reshape(-1, 3)
        joints[:, :2] += r.normal(0, 6, (len(joints), 2))
        joints[:, 2] = 2
        first, last = joints[:, :2].min(axis=0), joints[:, :2].max(axis=0)
        box = [*first.tolist(), *(last - first).tolist()]
        annotations.append(
            {
                "id": number,
                "image_id": entry["image_id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": box[2] * box[3],
                "keypoints": joints.ravel().tolist(),
                "num_keypoints": len(joints),
            }
        )
    (folder / "truth.json").write_text(json.dumps({**truth, "annotations": annotations}))
    return folder


def flags(scene: Path, output: str) -> list[str]:
    return [
        f"--base.input.uri={scene / 'truth.json'}",
        f"--base.input.image_root={DEMO / 'photos'}",
        "--base.detector.name=given",
        f"--base.detector.boxes={scene / 'boxes.json'}",
        f"--annotations={scene / 'truth.json'}",
        f"--output={scene / output}",
    ]


def test_trials_on_candidates_equal_a_new_run(cluster: Cluster, scene: Path) -> None:
    grid = "{suppression.kind: [pose, oks, none], suppression.score: [sum, product], suppression.max_people: [2, null]}"
    output = cluster.run("sweep", *flags(scene, "grid"), f"--grid={grid}")
    assert "12 trials, best F1 first:" in output
    rows = pq.read_table(scene / "grid" / "leaderboard.parquet").to_pylist()
    assert len({row["ap"] for row in rows}) > 3, "the settings must make a difference"
    assert [row["f1"] for row in rows] == sorted((row["f1"] for row in rows), reverse=True)
    assert all(row["images_per_second"] is None for row in rows), "7 images are no measurement"
    assert (
        len({row["ap"] - row["ap_change"] for row in rows}) == len({row["f1"] - row["f1_change"] for row in rows}) == 1
    )
    assert (
        len({row["command"] for row in rows}) == len({row["command"].rpartition("--output=")[2] for row in rows}) == 12
    )
    check_by_annotating(cluster, rows[-1])


def check_by_annotating(cluster: Cluster, row: dict) -> None:
    """Run the command of a row as it is, and check that the metrics of the new run are those of the row."""
    command = shlex.split(row["command"])
    assert command[:3] == ["uv", "run", "jobs/annotate.py"]
    cluster.run("annotate", *command[3:])
    run = command[-1].removeprefix("--output=")
    metrics = json.loads((Path(run) / "metrics.json").read_text())["keypoints"]
    assert {name: row[name] for name in metrics} == metrics
    assert evaluate.main([run, "--errors"]) == 0
    people = json.loads((Path(run) / "metrics.json").read_text())["keypoints"]["people"]
    assert people["recall"]["value"] == row["recall"]
    assert people["precision"]["value"] == row["precision"]
    assert people["false_positives_per_image"]["value"] == row["false_positives_per_image"]


@pytest.mark.slow
def test_thresholds_of_a_detector_equal_a_new_run(cluster: Cluster, scene: Path) -> None:
    common = [flag for flag in flags(scene, "thresholds") if "detector" not in flag]
    cluster.run("sweep", *common, "--grid={detector.confidence: [0.45, 0.2], suppression.kind: [pose, none]}")
    rows = pq.read_table(scene / "thresholds" / "leaderboard.parquet").to_pylist()
    assert len({row["people"] for row in rows}) > 2, "the thresholds must make a difference"
    assert len(list((scene / "thresholds" / "runs").iterdir())) == 1
    strict = next(r for r in rows if r["detector.confidence"] == "0.45" and "pose" in r["suppression.kind"])
    check_by_annotating(cluster, strict)
    assert strict["ap"] > 0
    page = (scene / "thresholds" / "leaderboard.html").read_text()
    assert "with other thresholds (detector.confidence)" in page


@pytest.mark.slow
def test_runs_are_reused(cluster: Cluster, scene: Path) -> None:
    def parts() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in (scene / "networks").glob("runs/*/parts/*")}

    cluster.run("sweep", *flags(scene, "networks"), "--trials=[{pose.flip_test: false}]", "--limit=3")
    before = parts()
    assert len(before) == 1
    output = cluster.run(
        "sweep", *flags(scene, "networks"), "--trials=[{pose.flip_test: false}, {pose.flip_test: true}]", "--limit=3"
    )
    after = parts()
    assert len(after) == 2
    assert before.items() <= after.items(), "existing parts are reused"
    assert "pose.flip_test True" in output
    (limited,) = (scene / "networks").glob("annotations-3-*.json")
    assert len(json.loads(limited.read_text())["images"]) == 3
    rows = pq.read_table(scene / "networks" / "leaderboard.parquet").to_pylist()
    assert str(limited) in rows[0]["command"], "the command annotates the images of the sweep alone"
    check_by_annotating(cluster, rows[0])


@pytest.mark.slow
def test_a_killed_sweep_resumes(cluster: Cluster, scene: Path) -> None:
    """Killed in the second of two runs: the existing parts are reused, and the leaderboard is that of a whole sweep."""
    trials = ["--trials=[{pose.flip_test: false}, {pose.flip_test: true}]", "--base.input.shard_size=1"]
    cluster.run("sweep", *flags(scene, "whole"), *trials)
    folder = scene / "killed"
    cluster.behave(sleep=1.0)
    job = cluster.start("sweep", *flags(scene, "killed"), *trials, "--base.fleet.workers=1")
    wait_for(lambda: len(list(folder.glob("runs/*"))) == 2 and len(list(folder.glob("runs/*/parts/*"))) > 7, 120)
    job.kill()
    job.communicate()
    wait_for(lambda: not cluster.workers())
    cluster.behave()
    before = {str(p): p.stat().st_mtime_ns for p in folder.glob("runs/*/parts/*")}
    assert not (folder / "leaderboard.parquet").exists()
    cluster.run("sweep", *flags(scene, "killed"), *trials)
    after = {str(p): p.stat().st_mtime_ns for p in folder.glob("runs/*/parts/*")}
    assert before.items() < after.items(), "existing parts are reused"

    def leaderboard(name: str) -> list[tuple]:
        rows = pq.read_table(scene / name / "leaderboard.parquet").to_pylist()
        return [(row["pose.flip_test"], row["ap"], row["people"]) for row in rows]

    assert leaderboard("killed") == leaderboard("whole")


def test_trials_on_a_stored_run(cluster: Cluster, scene: Path) -> None:
    (run,) = (scene / "grid" / "runs").iterdir()
    common = [f"--run={run}", f"--annotations={scene / 'truth.json'}", f"--output={scene / 'stored'}"]
    assert "2 trials" in cluster.run("sweep", *common, "--grid={suppression.kind: [pose, oks]}")
    rows = pq.read_table(scene / "stored" / "leaderboard.parquet").to_pylist()
    assert all("--detector.name=given" in row["command"] for row in rows), "trials share the settings of the run"
    grid = pq.read_table(scene / "grid" / "leaderboard.parquet").to_pylist()
    (plain,) = {
        r["ap"]
        for r in grid
        if '"pose"' in r["suppression.kind"]
        and '"sum"' in r["suppression.score"]
        and r["suppression.max_people"] == "null"
    }
    assert {row["suppression.kind"]: row["ap"] for row in rows}['"pose"'] == plain
    refused = cluster.run("sweep", *common, "--grid={pose.flip_test: [true]}", code=1)
    assert "pose.flip_test cannot be tried on the candidates of" in refused
    without = [f"--run={scene / 'first'}", *common[1:]]
    refused = cluster.run("sweep", *without, "--grid={suppression.kind: [pose]}", code=1)
    assert "has no candidates; annotate with --output.candidates" in refused
    assert "suppression.gama is unknown" in cluster.run("sweep", *common, "--grid={suppression.gama: [1]}", code=2)


def test_networks_that_do_not_fit_are_refused_before_ray_starts(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sweep, "connect", None)  # calling it would fail
    (tmp_path / "truth.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}')
    common = [f"--base.input.uri={DEMO / 'photos'}", f"--annotations={tmp_path / 'truth.json'}"]
    flags = [*common, f"--output={tmp_path / 'out'}", "--trials=[{pose.skeleton: halpe26}]"]
    assert sweep.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep: --pose.skeleton halpe26 has 26 joints, but the network is movenet_pyramid")
    assert len(error.splitlines()) == 1
