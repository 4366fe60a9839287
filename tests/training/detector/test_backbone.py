"""The pretrained backbone gives the features of the original network."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from infra.weights.imagenet_backbone import fill_backbone
from pipeline.detectors.darknet import Darknet
from pipeline.pose.crop import MEAN_RGB
from pipeline.pose.networks.efficientnet import EfficientNetLite0

PIXELS = torch.tensor(np.random.default_rng(1).integers(0, 256, (1, 3, 66, 66)), dtype=torch.float32)

CFG = """
[net]
width=64
height=64
[convolutional]
batch_normalize=1
filters=32
size=3
stride=2
pad=1
activation=relu6
[convolutional]
batch_normalize=1
filters=32
size=3
stride=1
pad=1
groups=32
activation=relu6
[convolutional]
batch_normalize=1
filters=16
size=1
stride=1
pad=1
activation=linear
[convolutional]
filters=6
size=1
stride=1
activation=linear
[yolo]
anchors=8,8
classes=1
"""


def pretrained_state() -> dict[str, Tensor]:
    """Random weights with the names of the package; some channels have hardly any variance."""
    r = np.random.default_rng(0)
    state: dict[str, Tensor] = {}
    for conv, norm, shape in (
        ("_conv_stem", "_bn0", (32, 3, 3, 3)),
        ("_blocks.0._depthwise_conv", "_blocks.0._bn1", (32, 1, 3, 3)),
        ("_blocks.0._project_conv", "_blocks.0._bn2", (16, 32, 1, 1)),
    ):
        channels = shape[0]
        state[f"{conv}.weight"] = torch.tensor(r.normal(0, 0.3, shape), dtype=torch.float32)
        variance = r.uniform(0.2, 2, channels)
        variance[:3] = 1e-7
        for name, values in (
            ("weight", r.normal(1, 0.2, channels)),
            ("bias", r.normal(0, 0.5, channels)),
            ("running_mean", r.normal(0, 0.5, channels)),
            ("running_var", variance),
        ):
            state[f"{norm}.{name}"] = torch.tensor(values, dtype=torch.float32)
    return state


def original_features(pixels: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Stem and first block of the package, for pixels in 0..255: strided convolutions are padded right and below."""

    def norm(x: Tensor, name: str) -> Tensor:
        values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, eps=1e-3)

    x = F.conv2d(F.pad((pixels - 127) / 128, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2)
    x = norm(x, "_bn0").clamp(0, 6)
    x = F.conv2d(x, state["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    x = norm(x, "_blocks.0._bn1").clamp(0, 6)
    return norm(F.conv2d(x, state["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")


INSIDE = (..., slice(2, -2), slice(2, -2))


def test_the_features_of_a_detector_are_shifted_by_one_pixel() -> None:
    state = pretrained_state()
    network = Darknet(CFG).eval()
    assert fill_backbone(network, state, torch.zeros(3)) == 3
    with torch.inference_mode():
        x = PIXELS[:, :, 1:65, 1:65] / 255
        for layer in network.layers[:3]:
            x = layer(x)
    expected = original_features(PIXELS[:, :, :64, :64], state)
    torch.testing.assert_close(x[INSIDE], expected[INSIDE], rtol=1e-3, atol=5e-3)


def test_the_features_of_a_pose_network_are_shifted_by_one_pixel() -> None:
    """Its input has another mean than the package's."""
    state = pretrained_state()
    network = EfficientNetLite0().eval()
    network.stages = network.stages[:1]
    mean = torch.from_numpy(MEAN_RGB)
    assert fill_backbone(network, state, mean) == 3
    with torch.inference_mode():
        x = network.stages[0](network.stem(PIXELS[:, :, 1:65, 1:65] / 255 - mean[:, None, None]))
    expected = original_features(PIXELS[:, :, :64, :64], state)
    torch.testing.assert_close(x[INSIDE], expected[INSIDE], rtol=1e-3, atol=5e-3)
