import numpy as np
import pytest
import torch
from support.descriptions import TINY_DETECTOR

from pipeline.detectors.darknet import Darknet
from pipeline.training.detector.data import BoxLabels, shrink_images
from pipeline.training.detector.task import DetectorTask
from pipeline.training.loop import Trainer, TrainingDiverged
from pipeline.training.options import NO_BOX_AUGMENTATION, BoxAugmentation, Optimisation

SIDE = 64
PEOPLE = BoxLabels(np.float32([[10, 10, 50, 60]]), np.zeros((0, 4), np.float32))


def task(augmentation: BoxAugmentation, *weights: float) -> DetectorTask:
    """Images of a uniform grey each: 20, 40, ..."""
    greys = [np.full((SIDE, SIDE, 3), 20 * (i + 1), np.uint8) for i in range(len(weights))]
    images = shrink_images([(grey, PEOPLE, weight) for grey, weight in zip(greys, weights, strict=True)], SIDE)
    return DetectorTask(images, Darknet(TINY_DETECTOR), SIDE, augmentation)


def test_the_other_images_of_a_mosaic_are_drawn_by_their_weights() -> None:
    detector_task = task(BoxAugmentation(flip=0, mosaic=1, scale=0, shift=0, colour=0), 1.0, 8.0, 1e-9)
    views, _, _ = detector_task.views([0] * 60, [np.random.default_rng(seed) for seed in range(60)])
    share = {grey: (abs(views.astype(int) - grey) < 4).all(axis=3).mean() for grey in (20, 40, 60)}
    assert share[60] == 0
    assert share[40] > 1.5 * share[20]


def test_predictions_that_are_not_finite_stop_the_training() -> None:
    detector_task = task(NO_BOX_AUGMENTATION, 1.0, 1.0)
    network = Darknet(TINY_DETECTOR)
    trainer = Trainer(network, detector_task, Optimisation(batch=2, epochs=1, bf16=False), torch.device("cpu"))
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    before = {key: tensor.clone() for key, tensor in trainer.averaged.items()}
    with pytest.raises(TrainingDiverged, match="step 1: the loss is nan"):
        list(trainer.train_epoch())
    assert trainer.step == 0
    assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.averaged.items())
