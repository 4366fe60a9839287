"""A small annotated collection, and training runs on it, in this process."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from jobs.train import main
from pipeline.skeletons import SKELETONS
from support.images import encode

JOINTS = SKELETONS["coco17"].joints


def make_collection(tmp_path: Path) -> dict:
    """Ten annotated pictures of coloured dots, and train.json."""
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
    values = {
        "output": tmp_path / "run",
        "sets": f"[{annotated}]",
        "validation": annotated,
        "pose.input_size": "64x64",
        "optimisation.batch": 5,
        "optimisation.epochs": 3,
        "optimisation.bf16": "false",
        "validate_every": 2,
        "checkpoint_every": 1,
        "compute.device": "cpu",
        **flags,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def run(tmp_path: Path, code: int = 0, **flags: object) -> str:
    """Run the train job; returns what it printed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        assert main(arguments(tmp_path, **flags)) == code, text.getvalue()
    return text.getvalue()
