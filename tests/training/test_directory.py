import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.descriptions import TINY_DETECTOR
from support.paths import PROJECT
from support.training import arguments, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.detectors import build_detector
from pipeline.detectors.darknet import DarknetError
from pipeline.pose.estimator import PoseEstimator
from pipeline.pose.networks.recognition import recognise
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings, PoseSettings
from pipeline.weights.checkpoints import read_state_dict
from pipeline.weights.metadata import image_digest, read_safetensors_metadata, training_images


def history(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]


def test_training_writes_history_and_weights(collection, tmp_path: Path) -> None:
    output = run(tmp_path, cache=tmp_path / "people.npz")
    assert "fastpose_mobile_small with 17 joints, 10 people, 2 steps per epoch, on cpu" in output
    lines = history(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert "ap" not in lines[0]
    assert {"ap", "pck_body", "pck/left_knee"} <= set(lines[1]) & set(lines[2])
    for name in ("best", "last"):
        architecture = recognise(read_state_dict(tmp_path / "run" / f"{name}.safetensors"))
        assert architecture is not None
        assert architecture.name == "fastpose_mobile_small"
    assert "holds a training run; add --resume, or name another directory" in run(tmp_path, code=2)
    refused = run(tmp_path, code=2, resume="true", cache=tmp_path / "people.npz", **{"optimisation.seed": 5})
    assert "was started with other settings of optimisation" in refused
    # From the cache, without the images.
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    again = run(tmp_path, cache=tmp_path / "people.npz", output=tmp_path / "other", validation="none")
    assert "epoch 3: loss" in again


def test_a_cache_of_other_samples_is_refused(collection, tmp_path: Path) -> None:
    run(tmp_path, cache=tmp_path / "people.npz", validation="none")
    flags = {"cache": tmp_path / "people.npz", "output": tmp_path / "other", "validation": "none"}
    larger = run(tmp_path, code=2, **flags, **{"pose.input_size": "128x96"})
    assert "people.npz was made with input_size [64, 64], but this run has [128, 96]; name another" in larger
    weighted = f"[{{annotations: {tmp_path / 'train.json'}, images: {tmp_path / 'images'}, weight: 2}}]"
    assert "people.npz was made with sets [{'annotations': 'train.json'" in run(
        tmp_path, code=2, **flags, sets=weighted
    )
    collection["annotations"].pop()
    (tmp_path / "train.json").write_text(json.dumps(collection))
    assert "people.npz was made with sets" in run(tmp_path, code=2, **flags)
    (tmp_path / "people.npz").write_bytes(b"something else")
    assert "people.npz is not a file of training samples; name another" in run(tmp_path, code=2, **flags)
    assert not (tmp_path / "other").exists()


def test_a_run_of_an_earlier_version_is_resumed(collection, tmp_path: Path) -> None:
    """Settings that the earlier version did not have get their defaults."""
    run(tmp_path, validation="none")
    path = tmp_path / "run" / "train.json"
    settings = json.loads(path.read_text())
    del settings["optimisation"]["clip"], settings["about"]
    path.write_text(json.dumps(settings))
    run(tmp_path, validation="none", resume="true")
    assert "other settings of optimisation" in run(
        tmp_path, code=2, validation="none", resume="true", **{"optimisation.clip": 0.5}
    )


def test_training_ends_when_validations_bring_nothing_more(collection, tmp_path: Path) -> None:
    """With a learning rate near zero no validation is better than the first."""
    flags = {"optimisation.learning_rate": 1e-12, "optimisation.epochs": 8, "validate_every": 1}
    run(tmp_path, patience=2, **flags)
    assert [line["epoch"] for line in history(tmp_path)] == [1, 2, 3]
    run(tmp_path, patience=2, resume="true", **flags)
    assert len(history(tmp_path)) == 3, "over"
    run(tmp_path, patience=4, resume="true", **flags)
    assert len(history(tmp_path)) == 5


def test_a_detector_is_trained_more_on_its_mistakes(collection, tmp_path: Path) -> None:
    (tmp_path / "tiny.cfg").write_text(TINY_DETECTOR)
    flags = {"task": "detector", "detector.cfg": tmp_path / "tiny.cfg", "detector.input_size": 64, "validation": "none"}
    run(tmp_path, **flags)
    last = tmp_path / "run" / "last.safetensors"
    again = {"output": tmp_path / "again", "cache": tmp_path / "images.npz", "detector.weights": last}
    run(tmp_path, **flags, **again, **{"detector.hard_negatives": 2.0})
    assert (tmp_path / "again" / "last.safetensors").exists()
    assert "images.npz was made with hard_negatives 2.0, but this run has 3.0" in run(
        tmp_path, 2, **flags, **(again | {"output": tmp_path / "other"}), **{"detector.hard_negatives": 3.0}
    )


def test_a_run_with_unknown_settings_is_refused(collection, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.json").write_text(json.dumps({"mosaics": 3}))
    output = run(tmp_path, code=2, resume="true")
    assert "train.json does not fit this version (1 settings); train with the version that wrote it" in output


def test_a_killed_and_resumed_run_has_the_same_losses_and_weights(collection, tmp_path: Path) -> None:
    run(tmp_path, validation="none")
    expected = [line["loss"] for line in history(tmp_path)]
    killed = tmp_path / "killed"
    job = subprocess.Popen(
        [sys.executable, "jobs/train.py", *arguments(tmp_path, validation="none", output=killed)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 200
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    time.sleep(1.1)  # TensorBoard orders event files by the second in their names
    run(tmp_path, validation="none", output=killed, resume="true")
    lines = [json.loads(line) for line in (killed / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["loss"] for line in lines] == expected
    steps = [event.step for event in EventAccumulator(str(killed / "tensorboard")).Reload().Scalars("loss")]
    assert steps == list(range(1, 7)), "each step once"
    whole, resumed = (read_state_dict(folder / "last.safetensors") for folder in (tmp_path / "run", killed))
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][3]["keypoints"].pop(), r"annotation 3 has 50 keypoint values; 17 joints need 51"),
        (lambda c: c["images"][2].update(file_name="none.jpg"), "image 3, "),
    ],
)
def test_errors_name_the_annotation_or_the_image(change, message: str, collection, tmp_path: Path) -> None:
    change(collection)
    (tmp_path / "train.json").write_text(json.dumps(collection))
    output = run(tmp_path, code=2)
    assert output.startswith("train: ")
    assert message in output
    assert "train.json" in output


def test_wrong_settings_are_refused_before_training(collection, tmp_path: Path) -> None:
    missing = f"{{annotations: {tmp_path / 'train.json'}, images: {tmp_path / 'missing'}}}"
    for flags, message in (
        ({"validation": missing}, "missing"),
        (
            {"pose.decode": "combined"},
            "--pose.decode combined needs 68, 133 or 136 joints; --pose.skeleton coco17 has 17",
        ),
        (
            {"pose.decode": "offset"},
            "--pose.decode offset does not fit the output of fastpose_mobile_small; use argmax",
        ),
        ({"pose.name": "hourglass", "pose.conv_dim": 64}, "--pose.conv_dim 64: hourglass has no such option"),
    ):
        assert message in run(tmp_path, code=2, **flags)
        assert not (tmp_path / "run").exists()


def test_validation_settings_may_change_when_a_run_is_resumed(collection, tmp_path: Path) -> None:
    run(tmp_path, validation="none")
    run(tmp_path, resume="true", validate_every=1)


def test_joints_are_mapped_by_name(collection, tmp_path: Path) -> None:
    """A network of 26 joints is trained and validated on a file of 17."""
    run(tmp_path, **{"pose.skeleton": "halpe26", "optimisation.epochs": 2})
    assert 0 <= history(tmp_path)[-1]["pck_body"] <= 1
    assert "pck/left_big_toe" not in history(tmp_path)[-1] or history(tmp_path)[-1]["pck/left_big_toe"] is None
    teacher = tmp_path / "run" / "last.safetensors"
    flags = {"pose.teachers": teacher, "output": tmp_path / "other"}
    run(tmp_path, validation="none", **flags)  # the first 17 joints of the teacher
    refused = run(tmp_path, code=2, **{**flags, "output": tmp_path / "third", "pose.skeleton": "mpii16"})
    assert "its first joints must be those of --pose.skeleton mpii16" in refused


def test_weights_contain_their_decoding_and_input_size(collection, tmp_path: Path) -> None:
    run(tmp_path, validation="none", **{"pose.decode": "integral", "pose.norm": "softmax"})
    weights = str(tmp_path / "run" / "last.safetensors")
    poses = PoseEstimator.from_settings(PoseSettings(weights=weights), Compute.resolve("cpu", "float32", "torch"))
    assert poses.describe() == ["fastpose_mobile_small with 17 joints at 64x64, integral (softmax), torch"]
    assert training_images([weights]).digests == {image_digest(image["file_name"]) for image in collection["images"]}
    overridden = PoseSettings(weights=weights, decode="argmax", input_size=(96, 64))
    assert (
        "at 96x64, argmax" in PoseEstimator.from_settings(overridden, Compute.resolve("cpu", "float32")).describe()[0]
    )


def test_a_network_is_pruned_and_trained_further(collection, tmp_path: Path) -> None:
    run(tmp_path, validation="none")
    weights = tmp_path / "run" / "last.safetensors"
    flags = {"pose.weights": weights, "output": tmp_path / "pruned"}
    output = run(tmp_path, **flags, **{"pose.prune": 0.3, "pose.teachers": weights})
    assert "fastpose_mobile_small with 17 joints, conv_dim=88, pruned to 1872 channels in 11 places" in output
    poses = PoseSettings(weights=str(tmp_path / "pruned" / "last.safetensors"))
    assert "pruned to" in PoseEstimator.from_settings(poses, Compute.resolve("cpu", "float32", "torch")).describe()[0]
    resumed = run(tmp_path, **flags, resume="true", **{"pose.prune": 0.3, "pose.teachers": weights})
    assert resumed.splitlines()[-1].startswith("weights:")
    flags["output"] = tmp_path / "third"
    assert "--pose.prune 0.001 removes nothing" in run(tmp_path, code=2, **flags, **{"pose.prune": 0.001})


@pytest.mark.parametrize("task", ["pose", "detector"])
def test_train_plain_continues_a_run(task: str, collection, tmp_path: Path) -> None:
    """It trains the same weights with torch, torchvision, numpy and OpenCV alone; --resume then writes them."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(TINY_DETECTOR)
    detector_flags = {"task": "detector", "detector.cfg": cfg, "detector.input_size": 64}
    cache = tmp_path / "samples.npz"
    flags = {"cache": cache} | (detector_flags if task == "detector" else {})
    run(tmp_path, **flags)
    interrupted = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.directory.TrainRun.append_history", lambda *_: _interrupt())
        run(tmp_path, output=interrupted, **flags)
    assert torch.load(interrupted / "checkpoint.pt", weights_only=True)["step"] == 2
    code = (
        "import sys\n"
        "for name in ('ray', 'pydantic', 'fsspec', 'pyarrow', 'safetensors', 'yaml', 'simplejpeg', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "import pathlib, runpy\n"
        "runpy.run_path('infra/weights/train_plain.py')['main'](*map(pathlib.Path, sys.argv[1:]))\n"
    )
    plain = subprocess.run(
        [sys.executable, "-c", code, str(interrupted), str(cache), *([str(cfg)] if task == "detector" else [])],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "epoch 3: loss" in plain.stdout
    assert "epoch 3: loss" in run(tmp_path, output=interrupted, resume="true", **flags)
    whole, other = (read_state_dict(folder / "last.safetensors") for folder in (tmp_path / "run", interrupted))
    assert all(torch.equal(tensor, other[key]) for key, tensor in whole.items())


@pytest.mark.parametrize(
    "settings", [{"task": "pose", "pose": {"teachers": ["a"]}}, {"task": "detector", "detector": {"teacher": "a"}}]
)
def test_train_plain_refuses_runs_with_a_teacher(settings: dict, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps(settings))
    (tmp_path / "cache.npz").write_bytes(b"")
    command = [sys.executable, "infra/weights/train_plain.py", str(tmp_path), str(tmp_path / "cache.npz")]
    plain = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert plain.returncode == 1
    assert "uses a teacher network, which needs more packages" in plain.stderr


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_errors_in_flags_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "jobs/train.py", "--optimisation.lerning_rate", "1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean --optimisation.learning_rate?" in done.stderr
    done = subprocess.run([sys.executable, "jobs/train.py"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--sets is empty" in done.stderr


def test_a_trained_detector_needs_only_its_weights_file(collection, tmp_path: Path) -> None:
    (tmp_path / "tiny.cfg").write_text(TINY_DETECTOR)
    flags = {"task": "detector", "detector.cfg": tmp_path / "tiny.cfg", "detector.input_size": 64}
    output = run(tmp_path, cache=tmp_path / "images.npz", about="dots of this test", **flags)
    assert "tiny.cfg, 10 images, 2 steps per epoch, on cpu" in output
    assert {"ap", "ap50", "ar"} <= set(history(tmp_path)[-1])
    weights = tmp_path / "run" / "last.safetensors"
    metadata = read_safetensors_metadata(weights)
    assert metadata["cfg"] == TINY_DETECTOR
    assert metadata["about"] == "dots of this test"
    assert metadata["epoch"] == "3 of 3"
    assert json.loads(metadata["detector"])["cfg"] == "tiny.cfg", "the name without the folder"
    settings = DetectorSettings(name="darknet", weights=str(weights), confidence=0.0)
    (boxes,) = build_detector(settings, Compute.resolve("cpu", "float32")).detect([np.zeros((90, 120, 3), np.uint8)])
    assert boxes.xyxy.shape[1] == 4
    with pytest.raises(DarknetError, match=r"last\.safetensors does not fit .*yolov3|does not fit"):
        build_detector(settings.model_copy(update={"cfg": str(_other_cfg(tmp_path))}), Compute.resolve("cpu"))
    assert "--detector.cfg has classes=80; a person detector needs classes=1" in run(
        tmp_path, code=2, output=tmp_path / "many", **(flags | {"detector.cfg": _other_cfg(tmp_path)})
    )


def _other_cfg(tmp_path: Path) -> Path:
    path = tmp_path / "other.cfg"
    path.write_text(TINY_DETECTOR.replace("classes=1", "classes=80").replace("filters=6", "filters=85"))
    return path


def test_predictions_and_tensorboard_events(collection, tmp_path: Path) -> None:
    run(tmp_path)
    picture = cv2.imread(str(tmp_path / "run" / "predictions.jpg"))
    assert picture.shape == (3 * 320, 4 * 320, 3)  # ten images, four per row
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 7))
    assert [event.step for event in events.Scalars("epoch/ap")] == [4, 6]
    assert [event.step for event in events.Images("predictions")] == [4, 6]


def test_teachers_and_pseudo_labels(collection, tmp_path: Path) -> None:
    run(tmp_path, validation="none")
    teacher = tmp_path / "run" / "last.safetensors"
    run(tmp_path, validation="none", output=tmp_path / "distilled", **{"pose.teachers": f"{teacher},{teacher}"})
    plain = history(tmp_path)[0]["loss"]
    distilled = json.loads((tmp_path / "distilled" / "history.jsonl").read_text().splitlines()[0])["loss"]
    assert distilled != plain
    # Of ten people, five keep their labels and five have boxes only.
    for annotation in collection["annotations"][:5]:
        annotation.update(keypoints=[0] * 51, num_keypoints=0)
    (tmp_path / "train.json").write_text(json.dumps(collection))
    assert "17 joints, 5 people" in run(tmp_path, validation="none", output=tmp_path / "half")
    for score, people in ((0.4, 5), (0.6, 10)):
        state = read_state_dict(teacher)
        state["conv_out.weight"].zero_()
        state["conv_out.bias"].fill_(score)
        save_file(state, tmp_path / "labeller.safetensors")
        sets = (
            f"[{{annotations: {tmp_path / 'train.json'}, images: {tmp_path / 'images'}, "
            f"pseudo_labels: {{weights: {tmp_path / 'labeller.safetensors'}, least_score: 0.5}}}}]"
        )
        output = run(tmp_path, validation="none", output=tmp_path / f"score{score}", sets=sets)
        assert f"17 joints, {people} people" in output
