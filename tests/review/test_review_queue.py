"""Review queues: which images are chosen, and the files for CVAT and Label Studio."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images import encode
from support.runs import judged_run

from jobs.reduce import main as reduce
from pipeline.review.queue import diverse, read_queue
from pipeline.run import Run

TRUE, FAR = (20.0, 30.0), (150.0, 90.0)
PLACES = {
    "found.jpg": ([TRUE], [TRUE]),
    "missed.jpg": ([TRUE, FAR], []),
    "invented.jpg": ([], [TRUE]),
    "two invented.jpg": ([], [TRUE, FAR]),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return judged_run(tmp_path / "run", PLACES)


def queue(run: Run) -> list[str]:
    return [reviewed.image_id for reviewed in read_queue(run)]


def test_images_are_chosen_by_their_errors(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert reduce([run.uri, "--review", "2", "--by", "false_positive"]) == 0
    assert queue(run) == ["two invented.jpg", "invented.jpg"]
    assert "2 images, listed in" in capsys.readouterr().out
    assert reduce([run.uri, "--review", "3", "--by", "worst"]) == 1
    assert "has a review queue, whose corrections may not have been read back" in capsys.readouterr().err
    shutil.rmtree(Path(run.uri) / "review")
    assert reduce([run.uri, "--review", "3", "--by", "worst"]) == 0
    assert queue(run)[:2] == ["missed.jpg", "two invented.jpg"]
    shutil.rmtree(Path(run.uri) / "review")
    assert reduce([run.uri, "--review", "9", "--by", "random"]) == 0
    assert sorted(queue(run)) == sorted(PLACES), "no more than there are"


def test_the_files_name_the_copies(run: Run) -> None:
    assert reduce([run.uri, "--review", "2", "--by", "false_positive"]) == 0
    folder = Path(run.uri) / "review"
    names = ["0001-two_invented.jpg", "0002-invented.jpg"]
    assert sorted(path.name for path in (folder / "images").iterdir()) == names
    assert cv2.imread(str(folder / "images" / names[0])).shape == (240, 320, 3)
    rows = list(csv.DictReader((folder / "images.csv").open()))
    assert [(r["name"], r["image_id"], r["by"], float(r["value"])) for r in rows] == [
        (names[0], "two invented.jpg", "false_positive", 2.0),
        (names[1], "invented.jpg", "false_positive", 1.0),
    ]
    cvat = json.loads((folder / "cvat-person_keypoints.json").read_text())
    assert sorted(image["file_name"] for image in cvat["images"]) == names
    assert len(cvat["annotations"]) == 3
    tasks = json.loads((folder / "label-studio.json").read_text())
    assert sorted(task["data"]["image"] for task in tasks) == names
    assert 'model_index="16"' in (folder / "label-studio.xml").read_text()


def test_a_prefix_makes_links_instead_of_copies(run: Run) -> None:
    flags = ["--by", "false_positive", "--url-prefix", "https://example.org/photos/"]
    assert reduce([run.uri, "--review", "1", *flags]) == 0
    folder = Path(run.uri) / "review"
    (task,) = json.loads((folder / "label-studio.json").read_text())
    assert task["data"]["image"] == "https://example.org/photos/two%20invented.jpg"
    assert not (folder / "images").exists()


def test_pictures_of_one_scene_are_chosen_once(tmp_path: Path) -> None:
    """Six frames of one scene have the lowest scores; another scene is chosen before a second frame."""
    r = np.random.default_rng(0)
    scenes = [cv2.resize(r.integers(0, 255, (8, 9, 3), np.uint8), (320, 240)) for _ in range(3)]
    places = {f"{scene}{n}.jpg": ([], [TRUE] * (3 - scene)) for scene in range(3) for n in range(6)}
    (tmp_path / "photos").mkdir()
    for name in places:
        noise = r.normal(0, 3, (240, 320, 3))
        frame = np.clip(scenes[int(name[0])] + noise, 0, 255).astype(np.uint8)
        (tmp_path / "photos" / name).write_bytes(encode(frame))
    run = judged_run(tmp_path / "run", places | {"annotated.jpg": ([TRUE], [TRUE])})
    assert reduce([run.uri, "--review", "4", "--by", "false_positive"]) == 0
    assert sorted(name[0] for name in queue(run)) == ["0", "0", "1", "2"]


def test_a_random_sample_gives_every_image_the_same_chance(tmp_path: Path) -> None:
    """30 equal frames and 10 other photographs: three of four chosen ones are frames, more or less."""
    r = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    names = [f"{'frame' if n < 30 else 'other'}{n}.jpg" for n in range(40)]
    for name in names[30:]:
        noise = cv2.resize(r.integers(0, 255, (8, 9, 3), np.uint8), (320, 240))
        (tmp_path / "photos" / name).write_bytes(encode(noise))
    run = judged_run(tmp_path / "run", {name: ([], []) for name in names})
    assert reduce([run.uri, "--review", "20", "--by", "random"]) == 0
    assert 12 <= sum(name.startswith("frame") for name in queue(run)) <= 18


def test_a_queue_of_images_that_are_gone_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(tmp_path / "photos")
    assert reduce([run.uri, "--review", "2", "--by", "worst"]) == 1
    assert "that are worth a review can still be read" in capsys.readouterr().err
    assert not (Path(run.uri) / "review").exists()


def test_diversity_gives_way_when_there_are_no_other_images() -> None:
    same, other = np.zeros(64, bool), np.ones(64, bool)
    hashes = {"a": same, "b": same, "c": other, "d": same}
    assert diverse(["a", "b", "c", "d"], hashes, 2) == ["a", "c"]
    assert diverse(["a", "b", "c", "d"], hashes, 3) == ["a", "c", "b"]


def test_a_queue_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = judged_run(tmp_path / "run", {"empty.jpg": ([], [])})
    assert reduce([run.uri, "--review", "3"]) == 1
    assert "has no image to review by uncertain" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        reduce([run.uri, "--by", "worst"])
    assert "--by and --url-prefix need --review N" in capsys.readouterr().err
    stored = json.loads((Path(run.uri) / "run.json").read_text())
    stored["settings"]["annotations"] = None
    (Path(run.uri) / "run.json").write_text(json.dumps(stored))
    assert reduce([run.uri, "--review", "3", "--by", "worst"]) == 1
    assert "--by worst needs a run with --annotations; use --by uncertain" in capsys.readouterr().err
