"""NanoDet as a Darknet description, with sections that Darknet does not have."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import PROJECT

from pipeline.detectors.darknet import Darknet, DarknetError
from pipeline.training.detector.data import BoxLabels, shrink_images
from pipeline.training.detector.experiment import init_objectness_bias
from pipeline.training.detector.task import DetectorTask
from pipeline.training.loop import Trainer
from pipeline.training.options import NO_BOX_AUGMENTATION, Optimisation

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
IDENTITY = "[convolutional]\nfilters={0}\nsize=1\nstride={1}\nactivation=linear\n"
DISTANCES = "[distances]\nclasses={0}\nbins={1}\n"


def predictions(classes: int, bins: int, maps: np.ndarray) -> np.ndarray:
    """The predictions of an output section for its input maps (channels, h, w), of cells of 4 pixels."""
    network = Darknet(NET + IDENTITY.format(classes + 4 * bins, 4) + DISTANCES.format(classes, bins)).eval()
    with torch.inference_mode():
        return network.layers[1](torch.from_numpy(maps)[None], 4 * maps.shape[1])[0].numpy()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(2, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_boxes_are_the_means_of_the_distances(classes: int, bins: int, height: int, width: int, seed: int) -> None:
    maps = np.random.default_rng(seed).normal(0, 4, (classes + 4 * bins, height, width)).astype(np.float32)
    found = predictions(classes, bins, maps)
    for row in range(height):
        for column in range(width):
            values = maps[:, row, column].astype(float)
            sides = []
            for side in range(4):
                likelihood = np.exp(values[classes + side * bins :][:bins])
                sides.append(4 * np.average(np.arange(bins), weights=likelihood))
            x, y = 4 * column + 2, 4 * row + 2
            left, top, right, bottom = x - sides[0], y - sides[1], x + sides[2], y + sides[3]
            box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            scores = 1 / (1 + np.exp(-values[:classes]))
            assert found[row * width + column] == pytest.approx([*box, scores.max(), *scores / scores.max()], abs=1e-3)


def test_scores_of_zero_are_no_nan() -> None:
    maps = np.full((2 + 4 * 3, 1, 1), -200, np.float32)
    assert np.isfinite(predictions(2, 3, maps)).all()


def after(sections: str, x: torch.Tensor) -> torch.Tensor:
    """The output of sections between a convolution and the last one."""
    network = Darknet(NET + IDENTITY.format(3, 1) + sections + IDENTITY.format(9, 1) + DISTANCES.format(1, 2))
    with torch.inference_mode():
        for layer in list(network.layers)[1:-2]:
            x = layer(x)
    return x


def test_bilinear_upsampling_is_that_of_opencv() -> None:
    x = np.random.default_rng(0).random((5, 7, 3), np.float32)
    found = after("[upsample]\nstride=2\nbilinear=1\n", torch.from_numpy(x).permute(2, 0, 1)[None])
    expected = cv2.resize(x, (14, 10), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_a_local_average_pool_averages_its_window() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    found = after("[local_avgpool]\nsize=2\nstride=2\n", x)
    assert found.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DarknetError, match=r"section 1 \[distances\]: its input has 9 channels; 1 classes and 4"):
        Darknet(NET + IDENTITY.format(9, 4) + DISTANCES.format(1, 3))
    with pytest.raises(DarknetError, match=r"section 1 \[distances\]: anchors=1,2 is not supported"):
        Darknet(NET + IDENTITY.format(9, 4) + DISTANCES.format(1, 2) + "anchors=1,2\n")


def test_a_random_network_starts_with_few_people() -> None:
    network = Darknet((PROJECT / "configs" / "detectors" / "nanodet_g_person.cfg").read_text())
    init_objectness_bias(network)
    with torch.inference_mode():
        (rows,) = network.eval()(torch.rand(1, 3, 64, 64))
    assert rows[:, 4].median() == pytest.approx(0.01, abs=0.005)
    assert network.reach == 5
    assert network.cells(64, 64)[:, 2].unique().tolist() == [8, 16, 32]


def test_a_network_with_distances_learns_a_box() -> None:
    people = BoxLabels(np.float32([[10, 6, 42, 58]]), np.zeros((0, 4), np.float32))
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[6:58, 10:42] = (220, 40, 40)
    images = shrink_images([(pixels, people, 1.0)], 64)
    torch.manual_seed(0)
    convolution = IDENTITY.replace("linear", "leaky").replace("size=1", "size=3\npad=1")
    body = convolution.format(16, 4) + convolution.format(32, 2) + convolution.format(32, 1)
    network = Darknet(NET + body + IDENTITY.format(1 + 4 * 8, 1) + DISTANCES.format(1, 8))
    init_objectness_bias(network)
    task = DetectorTask(images, network, 64, NO_BOX_AUGMENTATION)
    options = Optimisation(batch=1, epochs=250, learning_rate=3e-3, ema=0.9, bf16=False)
    trainer = Trainer(network, task, options, torch.device("cpu"))
    while trainer.epoch < options.epochs:
        list(trainer.train_epoch())
    with torch.inference_mode():
        (rows,) = network.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    x, y, width, height, score, _ = rows[rows[:, 4].argmax()].tolist()
    assert score > 0.7
    assert (x - width / 2, y - height / 2, x + width / 2, y + height / 2) == pytest.approx((10, 6, 42, 58), abs=2)
