import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PROJECT, encode

from jobs.train import main
from pipeline.checkpoints import read_state_dict
from pipeline.pose.networks.recognise import recognise
from pipeline.skeletons import SKELETONS

JOINTS = SKELETONS["coco17"].joints


@pytest.fixture
def collection(tmp_path: Path) -> dict:
    """Ten annotated pictures of coloured dots."""
    r = np.random.default_rng(0)
    colours = r.integers(60, 256, (17, 3))
    images, annotations = [], []
    (tmp_path / "images").mkdir()
    for number in range(10):
        pixels = np.zeros((120, 120, 3), np.uint8)
        joints = r.uniform(20, 100, (17, 2))
        for (x, y), colour in zip(joints.astype(int), colours, strict=True):
            pixels[y - 4 : y + 5, x - 4 : x + 5] = colour
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encode(pixels, quality=95))
        images.append({"id": number + 1, "file_name": f"{number}.jpg", "width": 120, "height": 120, "source": "dots"})
        annotations.append(
            {
                "id": number, "image_id": number + 1, "category_id": 1, "iscrowd": 0, "area": 9000,
                "bbox": [12, 12, 96, 96], "num_keypoints": 17,
                "keypoints": [float(v) for x, y in joints for v in (x, y, 2)],
            }
        )  # fmt: skip
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(JOINTS), "skeleton": []}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return content


def arguments(tmp_path: Path, **flags: object) -> list[str]:
    annotated = f"{{annotations: {tmp_path / 'train.json'}, images: {tmp_path / 'images'}}}"
    told = {
        "output": tmp_path / "run",
        "sets": f"[{annotated}]",
        "validation": annotated,
        "training.input_size": "64x64",
        "training.batch": 5,
        "training.epochs": 3,
        "training.bf16": "false",
        "validate_every": 2,
        "checkpoint_every": 1,
        "compute.device": "cpu",
        **flags,
    }
    return [f"--{name}={value}" for name, value in told.items()]


def run(tmp_path: Path, code: int = 0, **flags: object) -> str:
    """The job in this process; what it printed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        assert main(arguments(tmp_path, **flags)) == code, text.getvalue()
    return text.getvalue()


def history(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]


def test_from_annotations_to_weights_that_load(collection, tmp_path: Path) -> None:
    output = run(tmp_path, cache=tmp_path / "people.npz")
    assert "fastpose_mobile_small with 17 joints, 10 people, 2 steps an epoch, on cpu" in output
    lines = history(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert "ap" not in lines[0]
    assert {"ap", "pck_body", "pck/left_knee"} <= set(lines[1]) & set(lines[2])
    for name in ("best", "last"):
        architecture = recognise(read_state_dict(tmp_path / "run" / f"{name}.safetensors"))
        assert architecture is not None
        assert architecture.name == "fastpose_mobile_small"
    assert "holds a training run; --resume goes on with it" in run(tmp_path, code=1)
    other = run(tmp_path, code=1, resume="true", cache=tmp_path / "people.npz", **{"training.seed": 5})
    assert "was started with other settings of: training" in other
    # From the cut-out people alone, without the photographs; and once more does nothing.
    for photograph in (tmp_path / "images").iterdir():
        photograph.unlink()
    again = run(tmp_path, cache=tmp_path / "people.npz", output=tmp_path / "other", validation="none")
    assert "epoch 3: loss" in again


def test_killed_in_mid_epoch_and_resumed_the_losses_are_the_same(collection, tmp_path: Path) -> None:
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
    step = torch.load(killed / "checkpoint.pt", weights_only=True)["step"]
    run(tmp_path, validation="none", output=killed, resume="true")
    lines = [json.loads(line) for line in (killed / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    # The epoch that was cut off counts only its steps after the checkpoint; later ones are whole, two steps each.
    for line, loss in zip(lines, expected, strict=True):
        assert line["loss"] == loss or 2 * (line["epoch"] - 1) < step
    whole, resumed = (read_state_dict(folder / "last.safetensors") for folder in (tmp_path / "run", killed))
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][3]["keypoints"].pop(), r"annotation 3 has 50 keypoint values; 17 joints need 51"),
        (lambda c: c["images"][2].update(file_name="none.jpg"), "image 3, "),
    ],
)
def test_bad_input_is_named(change, message: str, collection, tmp_path: Path) -> None:
    change(collection)
    (tmp_path / "train.json").write_text(json.dumps(collection))
    output = run(tmp_path, code=1)
    assert output.startswith("train: ")
    assert message in output
    assert "train.json" in output


def test_mistakes_in_flags_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "jobs/train.py", "--training.lerning_rate", "1"], cwd=PROJECT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "did you mean --training.learning_rate?" in done.stderr
    done = subprocess.run([sys.executable, "jobs/train.py"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sets is empty" in done.stderr
