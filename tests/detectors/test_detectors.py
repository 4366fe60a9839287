import numpy as np
import pytest
import torch
from torchvision import models

from pipeline.detectors import build_detector
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings

CPU = Compute.resolve("cpu", "float32")


def test_whole_image_and_given() -> None:
    detector = build_detector(DetectorSettings(name="whole_image"), CPU)
    assert detector is not None
    (boxes,) = detector.detect([np.zeros((20, 30, 3), np.uint8)])
    assert boxes.xyxy.tolist() == [[0, 0, 30, 20]]
    assert build_detector(DetectorSettings(name="given"), CPU) is None


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(
        ValueError,
        match=r"^--detector\.name ssdlite320_mobilenet_v3: no such detector; did you mean ssdlite320_mobilenet_v3_l",
    ):
        build_detector(DetectorSettings(name="ssdlite320_mobilenet_v3"), CPU)


@pytest.mark.parametrize(
    "name",
    [
        "ssdlite320_mobilenet_v3_large",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "retinanet_resnet50_fpn",
        "fcos_resnet50_fpn",
    ],
)
def test_a_torchvision_model_with_weights_from_a_file(name: str, tmp_path) -> None:
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    settings = DetectorSettings(name=name, weights=str(tmp_path / "w.pth"), confidence=0.0, batch=2)
    detector = build_detector(settings, CPU)
    assert detector is not None
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    ours = detector.detect([image, image[:50]])
    with torch.inference_mode():
        theirs = model.eval()([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    people = theirs["labels"] == 1
    np.testing.assert_array_equal(ours[0].xyxy, theirs["boxes"][people].numpy())
    np.testing.assert_array_equal(ours[0].scores, theirs["scores"][people].numpy())
    assert len(ours) == 2


def test_weights_of_another_model_are_refused(tmp_path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    settings = DetectorSettings(name="ssdlite320_mobilenet_v3_large", weights=str(tmp_path / "w.pth"))
    with pytest.raises(ValueError, match=r"w\.pth does not fit --detector\.name ssdlite320"):
        build_detector(settings, CPU)
