"""The teacher's predictions get the order of the trained network's cells, and replace missing labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.images import encode
from torch import Tensor, nn

from jobs.train import main
from pipeline.detectors import build_detector
from pipeline.detectors.darknet import Darknet
from pipeline.errors import UserError
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings
from pipeline.training.detector.teacher import YoloxTeacher

CPU = Compute.resolve("cpu", "float32")
SIDE = 64


def convolution(filters: int, stride: int) -> str:
    return f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride={stride}\npad=1\nactivation=leaky\n"


def predictions(anchors: str) -> str:
    count = anchors.count(",") // 2 + 1
    return (
        f"[convolutional]\nfilters={6 * count}\nsize=1\nstride=1\nactivation=linear\n"
        f"[yolo]\nanchors={anchors}\nclasses=1\nnum={count}\nscale_x_y=2\n"
    )


def description(coarsest: str = "48,48") -> str:
    """A network whose cells are ordered from coarse to fine, unlike YOLOX's."""
    return (
        f"[net]\nwidth={SIDE}\nheight={SIDE}\nchannels=3\n"
        + convolution(8, 4) + convolution(16, 2) + convolution(16, 2) + convolution(16, 2) + predictions(coarsest)
        + "[route]\nlayers=2\n" + predictions("24,24") + "[route]\nlayers=1\n" + predictions("12,12")
    )  # fmt: skip


class RedThings(nn.Module):
    """A YOLOX output of two classes: a red rectangle is a person of score 0.9 x 0.8, at the cell of its centre."""

    def forward(self, bgr: Tensor) -> Tensor:
        cells: list[Tensor] = []
        for stride in (8, 16, 32):
            rows = torch.zeros(bgr.shape[0], 64 // stride, 64 // stride, 7)
            for i in range(bgr.shape[0]):
                ys, xs = torch.where((bgr[i, 2] > 180) & (bgr[i, 1] < 80))
                if ys.numel() > 0 and stride == 16:
                    x, y = (xs.min() + xs.max() + 1) / 2 / stride, (ys.min() + ys.max() + 1) / 2 / stride
                    cell = rows[i, int(y), int(x)]
                    cell[0], cell[1] = x - torch.floor(x), y - torch.floor(y)
                    cell[2] = torch.log((xs.max() + 1 - xs.min()) / stride)
                    cell[3] = torch.log((ys.max() + 1 - ys.min()) / stride)
                    cell[4], cell[5] = 0.9, 0.8
            cells.append(rows.reshape(bgr.shape[0], -1, 7))
        return torch.cat(cells, dim=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "red.torchscript"
    names = json.dumps({"names": "{0: 'person', 1: 'dog'}"})
    torch.jit.save(torch.jit.script(RedThings()), str(path), _extra_files={"metadata.json": names})
    return path


def red(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
    pixels[y1:y2, x1:x2] = (250, 10, 10)
    return pixels


def test_predictions_have_the_order_of_the_networks_cells(weights: Path) -> None:
    cells = Darknet(description()).cells(SIDE, SIDE)
    teacher = YoloxTeacher(str(weights), 2, SIDE, cells, CPU)
    predictions = teacher(torch.from_numpy(np.stack([red(20, 36, 30, 60), np.full((SIDE, SIDE, 3), 40, np.uint8)])))
    assert predictions.shape == (2, len(cells), 5)
    (row,) = predictions[0, :, 4].nonzero()[:, 0]
    torch.testing.assert_close(predictions[0, row], torch.tensor([25, 48, 10, 24, 0.72]))
    assert cells[row].tolist() == [24, 56, 16]
    assert not predictions[1, :, 4].any()


def test_a_network_with_other_cells_is_refused(weights: Path) -> None:
    cells = Darknet(description(coarsest="30,60, 60,30")).cells(SIDE, SIDE)
    with pytest.raises(UserError, match=r"has 84 predictions, .*--detector\.cfg has 88: its yolo layers need"):
        YoloxTeacher(str(weights), 2, SIDE, cells, CPU)


def test_a_teacher_replaces_missing_boxes(weights: Path, tmp_path: Path) -> None:
    """No image has a labelled box; the network detects people like the teacher."""
    random = np.random.default_rng(0)
    images = []
    for number in range(32):
        x, y = random.integers(4, 36, 2)
        (tmp_path / f"{number}.jpg").write_bytes(encode(red(x, y, x + 20, y + 24), quality=95))
        images.append({"id": number, "file_name": f"{number}.jpg", "width": SIDE, "height": SIDE, "dense_boxes": False})
    truth = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "train.json").write_text(json.dumps(truth))
    (tmp_path / "net.cfg").write_text(description())
    settings = {
        "task": "detector",
        "output": str(tmp_path / "run"),
        "sets": [{"annotations": str(tmp_path / "train.json"), "images": str(tmp_path)}],
        "detector": {
            "cfg": str(tmp_path / "net.cfg"),
            "input_size": SIDE,
            "augmentation": {"flip": 0, "mosaic": 0, "scale": 0, "shift": 0, "colour": 0},
        },
        "optimisation": {"batch": 8, "epochs": 60, "learning_rate": 0.01, "clip": 10, "ema": 0, "bf16": False},
        "compute": {"device": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    flags = ["--config", str(tmp_path / "config.yaml")]
    assert main(flags) == 2  # without a teacher there are no samples
    assert main([*flags, "--detector.teacher", str(weights)]) == 0
    detector_settings = DetectorSettings(
        name="darknet", weights=str(tmp_path / "run" / "last.safetensors"), input_size=SIDE, confidence=0.3
    )
    detector = build_detector(detector_settings, CPU)
    assert detector is not None
    (boxes,) = detector.detect([red(12, 20, 32, 44)])
    np.testing.assert_allclose(boxes.xyxy, [[12, 20, 32, 44]], atol=4)
    assert 0.3 < boxes.scores[0] < 0.8  # near the teacher's score, not the 1 of a label
