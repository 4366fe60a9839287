"""A run is evaluated against annotations of more images than it contains."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.images import encode, gradient
from support.runs import judged_run, make_run, make_truth

from jobs.evaluate import main
from pipeline.run import Run
from pipeline.weights.metadata import TRAINING_IMAGES, encode_training_images, image_digest


@pytest.fixture
def half(tmp_path: Path) -> tuple[Run, Path, Path]:
    """A run over the first half of the annotated images, their annotations, and those of all."""
    (tmp_path / "photos").mkdir()
    names = [f"{i}.jpg" for i in range(20)]
    for name in names:
        (tmp_path / "photos" / name).write_bytes(encode(gradient(60, 120)))
    everything = make_truth(tmp_path, names, people=2).rename(tmp_path / "all.json")
    first = make_truth(tmp_path, names[:10], people=2)
    content = json.loads(everything.read_text())
    kept = {image["id"] for image in content["images"][:10]}
    some = {
        "images": content["images"][:10],
        "annotations": [entry for entry in content["annotations"] if entry["image_id"] in kept],
    }
    first.write_text(json.dumps(some))
    return make_run(tmp_path / "run", first, tmp_path / "photos"), first, everything


def evaluated(run: Run, annotations: Path, *flags: str) -> dict:
    assert main([run.uri, "--annotations", str(annotations), *flags]) == 0
    return json.loads(Path(run.path("metrics.json")).read_text())


def test_images_outside_the_run_count_as_missed_unless_left_out(half: tuple, capsys: pytest.CaptureFixture) -> None:
    run, first, everything = half
    expected = evaluated(run, first)
    assert "10 of 10 annotated images are in the run" in capsys.readouterr().out
    missed = evaluated(run, everything)
    assert "10 of 20 annotated images are in the run, the others count as missed (--only" in capsys.readouterr().out
    assert missed["keypoints"]["ar"] == pytest.approx(expected["keypoints"]["ar"] / 2, abs=0.01)
    only = evaluated(run, everything, "--only-images-in-run")
    assert "10 of 20 annotated images are in the run, the others are left out" in capsys.readouterr().out
    assert only["keypoints"] == expected["keypoints"]
    assert (only["annotated_images"], only["images_in_run"]) == (20, 10)


def test_the_page_of_a_part_has_the_errors_of_that_part(half: tuple, capsys: pytest.CaptureFixture) -> None:
    run, first, everything = half
    evaluated(run, first, "--report")
    expected = json.loads(Path(run.path("errors.json")).read_text())
    evaluated(run, everything, "--report", "--only-images-in-run")
    assert json.loads(Path(run.path("errors.json")).read_text()) == expected
    assert Path(run.path("report.html")).exists()


def test_flags_that_do_not_fit_are_refused(half: tuple, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, first, everything = half
    flags = ["--annotations", str(everything), "--only-images-in-run"]
    assert main([run.uri, *flags, "--compare", run.uri]) == 2
    assert "--compare cannot be combined with --only-images-in-run" in capsys.readouterr().err
    assert main([str(first), *flags]) == 2
    assert "need a run, not a results file" in capsys.readouterr().err


def test_images_that_the_weights_were_trained_on_are_counted_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The poses are perfect on the four training images, and far off on the other two."""
    weights = tmp_path / "mine.safetensors"
    trained = encode_training_images(image_digest(f"elsewhere/{name}.png") for name in "abcd")
    save_file({"weight": np.zeros(2)}, weights, {TRAINING_IMAGES: trained})
    places = {f"{name}.jpg": ([(20.0, 30.0)], [(20.0, 30.0)]) for name in "abcd"}
    places |= {f"{name}.jpg": ([(20.0, 30.0)], [(150.0, 90.0)]) for name in "ef"}
    run = judged_run(tmp_path / "run", places)
    settings = run.settings.model_dump(mode="json")
    settings["pose"]["weights"] = str(weights)
    stored = json.loads(Path(run.path("run.json")).read_text())
    Path(run.path("run.json")).write_text(json.dumps({**stored, "settings": settings}))
    truth = tmp_path / "truth.json"
    everything = evaluated(run, truth, "--report")
    output = capsys.readouterr().out
    assert "note: 4 of 6 evaluated images were in the training of the run's weights, by their file names" in output
    assert (everything["evaluated_images"], everything["images_seen"]) == (6, 4)
    assert "4 of 6 evaluated images were in the training" in Path(run.path("report.html")).read_text()
    unseen = evaluated(run, truth, "--report", "--exclude-seen")
    output = capsys.readouterr().out
    assert "2 images evaluated" in output
    assert "note:" not in output
    assert (unseen["evaluated_images"], unseen["images_seen"]) == (2, 0)
    assert unseen["keypoints"]["people"]["annotated"] == unseen["boxes"]["people"]["annotated"] == 2
    assert everything["keypoints"]["ap"] > 0.5
    assert unseen["keypoints"]["ap"] == 0
    assert main([run.uri, "--compare", run.uri, "--exclude-seen"]) == 0
    only_seen = json.loads(truth.read_text())
    kept = {image["id"] for image in only_seen["images"] if image["file_name"] in ("a.jpg", "b.jpg")}
    for key, name in (("images", "id"), ("annotations", "image_id")):
        only_seen[key] = [entry for entry in only_seen[key] if entry[name] in kept]
    truth.write_text(json.dumps(only_seen))
    assert main([run.uri, "--annotations", str(truth), "--exclude-seen"]) == 1
    assert "no image of" in capsys.readouterr().err
