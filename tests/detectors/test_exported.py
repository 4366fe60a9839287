import json

import numpy as np
import onnx
import pytest
import torch
from support.paths import DEMO, PEOPLE, SHARED, needs_models, needs_people
from torch import Tensor, nn

from pipeline.detectors import build_detector
from pipeline.detectors.exported import find_classes, yolo_decoder, yolox_decoder
from pipeline.errors import UserError
from pipeline.evaluation import evaluate_boxes
from pipeline.images import decode_image
from pipeline.runtime.device import Compute, Runtime
from pipeline.settings.tree import DetectorSettings

CPU = Compute.resolve("cpu", "float32")
NANO = SHARED / "models" / "yolox_nano.onnx"


def test_yolox_rows_are_decoded_cell_by_cell() -> None:
    height, width = 64, 96
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(height // s) for x in range(width // s)]
    raw = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (2, len(cells), 7))).float()
    rows = yolox_decoder(raw, (height, width))(raw)
    for i in (0, 11, 12, 95, 96, 119, len(cells) - 1):
        x, y, s = cells[i]
        tx, ty, tw, th = raw[1, i, :4].tolist()
        expected = [(tx + x) * s, (ty + y) * s, np.exp(tw) * s, np.exp(th) * s]
        np.testing.assert_allclose(rows[1, i, :4].numpy(), expected, rtol=1e-5)
    assert torch.equal(rows[..., 4:], raw[..., 4:])
    assert torch.equal(yolox_decoder(rows, (height, width))(rows), rows)  # an export that includes the decoding


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        (yolox_decoder, (1, 126, 4)),
        (yolox_decoder, (1, 300, 6)),
        (yolo_decoder, (1, 126, 85)),  # YOLOX
        (yolo_decoder, (1, 300, 6)),  # includes NMS
        (yolo_decoder, (1, 378, 5)),
        (yolo_decoder, (126, 85)),
    ],
)
def test_outputs_of_another_family_are_refused(family, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"for an input of 64x96, which has 126 cells: another family"):
        family(torch.zeros(shape), (64, 96))


def test_yolov5_and_yolov8_are_distinguished_by_shape() -> None:
    v5 = torch.rand(1, 3 * 84, 5 + 3)
    assert torch.equal(yolo_decoder(v5, (64, 64))(v5), v5)
    v8 = torch.rand(1, 4 + 3, 84)
    rows = yolo_decoder(v8, (64, 64))(v8)
    assert rows.shape == (1, 84, 5 + 3)
    torch.testing.assert_close(rows[0, :, :4], v8[0, :4].T)
    assert (rows[0, :, 4] == 1).all()
    torch.testing.assert_close(rows[0, :, 5:], v8[0, 4:].T)


class OnePerson(nn.Module):
    """A YOLOv8 output with a person around the red pixels; no person if there are none."""

    def forward(self, x: Tensor) -> Tensor:
        red = (x[:, 0] > 0.8) & (x[:, 1] < 0.2)
        out = torch.zeros(x.shape[0], 6, 336)  # 16^2 + 8^2 + 4^2 cells
        for i in range(x.shape[0]):
            ys, xs = torch.where(red[i])
            if ys.numel() > 0:
                x1, x2, y1, y2 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
                out[i, 0, 3], out[i, 1, 3] = (x1 + x2) / 2, (y1 + y2) / 2
                out[i, 2, 3], out[i, 3, 3] = x2 - x1, y2 - y1
                out[i, 4, 3] = 0.8
        return out


def test_boxes_from_a_torchscript_file(tmp_path) -> None:
    path = tmp_path / "one.torchscript"
    torch.jit.script(OnePerson()).save(str(path))
    settings = DetectorSettings(name="yolo", weights=str(path), input_size=128, batch=3, person_class=0)
    detector = build_detector(settings, CPU)
    assert detector is not None
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:80, 50:90] = (255, 0, 0)
    red, black = detector.detect([image, np.zeros((30, 30, 3), np.uint8)])
    np.testing.assert_allclose(red.xyxy, [[50, 20, 90, 80]], atol=3)
    np.testing.assert_allclose(red.scores, [0.8], rtol=1e-6)
    assert len(black) == 0


@pytest.mark.parametrize("name", ["broken.onnx", "broken.pt"])
def test_files_that_are_neither_onnx_nor_torchscript_are_refused(name: str, tmp_path) -> None:
    (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(ValueError, match="broken"):
        build_detector(DetectorSettings(name="yolox", weights=str(tmp_path / name)), CPU)


def test_a_file_that_does_not_fit_its_settings_is_refused_before_the_first_image(tmp_path) -> None:
    path = tmp_path / "one.torchscript"
    torch.jit.script(OnePerson()).save(str(path))
    with pytest.raises(
        ValueError, match=r"^--detector\.weights .*one\.torchscript as yolo: its output \[1, 6, 336\] is not"
    ):
        build_detector(DetectorSettings(name="yolo", weights=str(path), input_size=640), CPU)


@needs_models
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_yolox_runs_at_another_size_than_that_of_its_export(runtime: Runtime) -> None:
    """Expected: the same network exported for 640x640 by its authors' code."""
    group = decode_image((DEMO / "photos" / "group.jpg").read_bytes()).pixels
    compute = Compute.resolve("cpu", "float32", runtime)
    found = []
    for weights in (NANO, NANO.with_name("yolox_nano_640.onnx")):
        settings = DetectorSettings(name="yolox", weights=str(weights), input_size=640, confidence=0.3)
        detector = build_detector(settings, compute)
        assert detector is not None
        found += detector.detect([group])
    assert len(found[0]) >= 3
    np.testing.assert_allclose(found[0].xyxy, found[1].xyxy, atol=0.01)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_size_that_an_export_cannot_have_is_refused(runtime: Runtime, tmp_path) -> None:
    """The positions of its cells are constants, as in exports that include the decoding."""
    shape = [1, 3, 416, 416]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["images", "cells"], ["output"])],
        "fixed",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.zeros((1, 1, 416, 416), np.float32), "cells")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path / "fixed.onnx"
    onnx.save(model, path)
    expected = r"^--detector\.input_size is 640, but .* was exported for 416x416 and does not run at 640x640; set it to"
    with pytest.raises(ValueError, match=expected):
        build_detector(
            DetectorSettings(name="yolox", weights=str(path), input_size=640),
            Compute.resolve("cpu", "float32", runtime),
        )


@needs_models
def test_results_do_not_depend_on_the_batch() -> None:
    detector = build_detector(DetectorSettings(name="yolox", weights=str(NANO), confidence=0.3, batch=3), CPU)
    assert detector is not None
    group = decode_image((DEMO / "photos" / "group.jpg").read_bytes()).pixels
    cat = decode_image((DEMO / "photos" / "cat.jpg").read_bytes()).pixels
    (alone,) = detector.detect([group])
    together = detector.detect([cat, group])
    np.testing.assert_array_equal(together[1].xyxy, alone.xyxy)
    assert len(alone) >= 3
    assert len(together[0]) == 0


@needs_models
@needs_people
@pytest.mark.parametrize(("side", "ap"), [(416, 0.414), (640, 0.475)])
def test_yolox_nano_reaches_its_published_accuracy(side: int, ap: float) -> None:
    """Expected: AP that another implementation measured. A lower one would mean a wrong input or a wrong decoding."""
    truth = json.loads((PEOPLE / "val.json").read_text())
    settings = DetectorSettings(name="yolox", weights=str(NANO), input_size=side, confidence=0.01, nms_iou=0.65)
    detector = build_detector(settings, CPU)
    assert detector is not None
    results = []
    for image in truth["images"]:
        pixels = decode_image((PEOPLE / "images" / image["file_name"]).read_bytes()).pixels
        (boxes,) = detector.detect([pixels])
        for (x1, y1, x2, y2), score in zip(boxes.xyxy.tolist(), boxes.scores.tolist(), strict=True):
            results.append(
                {"image_id": image["id"], "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            )
    assert evaluate_boxes(results, truth).ap == pytest.approx(ap, abs=0.01)


@needs_models
def test_an_onnx_file_is_refused_if_onnxruntime_has_no_cuda() -> None:
    """The CPU build of onnxruntime is installed. A run on a GPU must not fall back to it."""
    settings = DetectorSettings(name="yolox", weights=str(NANO))
    with pytest.raises(UserError, match=r"has no CUDAExecutionProvider; install onnxruntime-gpu"):
        build_detector(settings, Compute(torch.device("cuda"), torch.float32))


_COCO_NAMES = str({0: "person", 1: "bicycle", **{i: f"c{i}" for i in range(2, 80)}})


def columns(classes: int, *others: float) -> Tensor:
    """(10, classes + others): class probabilities, then columns with these values."""
    probabilities = torch.rand(10, classes, generator=torch.Generator().manual_seed(0))
    return torch.cat([probabilities, torch.tensor(others).expand(10, -1)], dim=1)


@pytest.mark.parametrize(
    ("output", "metadata", "setting", "expected"),
    [
        (columns(80), {}, None, (80, 0)),
        (columns(1), {}, None, (1, 0)),
        (columns(80), {"names": _COCO_NAMES, "task": "detect"}, None, (80, 0)),
        (columns(3), {"names": "{0: 'car', 1: 'dog', 2: 'Person'}"}, None, (3, 2)),
        (columns(3), {"names": "['car', 'person', 'dog']"}, None, (3, 1)),
        (columns(1), {"names": "{0: 'runner'}"}, None, (1, 0)),
        (columns(1, *[120.0, 44.0, 0.9] * 17), {}, None, (1, 0)),  # a pose network
        (columns(1, *[0.5] * 51), {"names": "{0: 'person'}", "task": "pose"}, None, (1, 0)),
        (columns(80, *[-0.3, 1.7] * 16), {}, None, (80, 0)),  # a segmentation network
        (columns(80, *[0.3] * 32), {"names": _COCO_NAMES, "task": "segment"}, None, (80, 0)),
        (columns(2), {}, 1, (2, 1)),
        (columns(2), {"names": "{0: 'car', 1: 'walker'}"}, 1, (2, 1)),
    ],
)
def test_the_person_class_is_found(output: Tensor, metadata: dict, setting: int | None, expected: tuple) -> None:
    classes = find_classes(output, metadata, setting)
    assert (classes.count, classes.person) == expected


@pytest.mark.parametrize(
    ("output", "metadata", "setting", "message"),
    [
        (columns(2), {}, None, r"which of its 2 classes is person.*set --detector\.person_class"),
        (
            columns(3),
            {"names": "['car', 'dog', 'cat']"},
            None,
            r"exactly one class must be named person.*car, dog, cat",
        ),
        (columns(3), {"names": "['person', 'Person', 'cat']"}, None, "exactly one class must be named person"),
        (columns(15, -0.4), {}, None, "its boxes are rotated"),
        (columns(16), {"names": str(["a"] * 15), "task": "obb"}, None, "its boxes are rotated"),
        (
            columns(2),
            {"names": _COCO_NAMES},
            None,
            "2 columns after the box, which are not probabilities of 80 classes",
        ),
        (columns(0, 5.0, 7.0), {}, None, "not probabilities of 0 classes"),
        (columns(80), {}, 80, "person_class is 80, but it has 80 classes, counted from 0"),
    ],
)
def test_a_network_without_a_certain_person_class_is_refused(
    output: Tensor, metadata: dict, setting: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        find_classes(output, metadata, setting)


def test_the_names_in_a_torchscript_file_of_ultralytics_are_read(tmp_path) -> None:
    path = tmp_path / "one.torchscript"
    for names, person in (("{'0': 'person', '1': 'car'}", 0), ("{'0': 'car', '1': 'person'}", 1)):
        config = json.dumps({"task": "detect", "names": names})
        torch.jit.save(torch.jit.script(OnePerson()), str(path), _extra_files={"config.txt": config})
        detector = build_detector(DetectorSettings(name="yolo", weights=str(path), input_size=128), CPU)
        image = np.zeros((100, 200, 3), np.uint8)
        image[20:80, 50:90] = (255, 0, 0)
        assert detector is not None
        (boxes,) = detector.detect([image])
        assert len(boxes) == (1 if person == 0 else 0), "its output has the probability in the first column"


_CASES = SHARED / "cases" / "onnx"


@pytest.mark.skipif(not _CASES.is_dir(), reason="needs the files of ../shared/cases")
@pytest.mark.parametrize("name", ["v8_detect.onnx", "v8_pose_56.onnx"])
def test_pose_exports_detect_people(name: str) -> None:
    detector = build_detector(DetectorSettings(name="yolo", weights=str(_CASES / name)), CPU)
    assert detector is not None
    (boxes,) = detector.detect([np.full((320, 320, 3), 90, np.uint8)])
    np.testing.assert_allclose(boxes.xyxy, [[100, 80, 220, 300]], atol=1)
