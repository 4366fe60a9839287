"""The task of pose training: augmented crops of people, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.pose.crop import subtract_mean
from pipeline.skeletons import Skeleton
from pipeline.training.options import PoseAugmentation
from pipeline.training.pose.augment import augment_crop
from pipeline.training.pose.data import PeopleSet
from pipeline.training.pose.losses import PoseLoss

_UPPER_BODY = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist", "face", "hand")


class PoseTask:
    """Augmented crops of people, and the loss of a network's outputs against their joints; see `Task`.

    Attributes:
        weights: (N,) how often each person is drawn, relative to the others.
    """

    def __init__(
        self,
        people: PeopleSet,
        skeleton: Skeleton,
        augmentation: PoseAugmentation,
        loss: PoseLoss,
        training_outputs: Callable[[nn.Module, Tensor], Sequence[Tensor]],
        teachers: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        """
        Args:
            loss: crops have its input size.
            training_outputs: the outputs of the network that the loss is summed over; that of its `PoseSpec`.
            teachers: inputs (B, 3, H, W) to heatmaps (B, K, H/4, W/4); their mean is a target beside the labels.
        """
        self.weights = people.weights
        self._people = people
        self._skeleton = skeleton
        self._augmentation = augmentation
        self._loss = loss
        self._teachers = teachers
        self._training_outputs = training_outputs
        self._upper = np.array([any(part in joint for part in _UPPER_BODY) for joint in skeleton.joints])

    def views(self, rows: Sequence[int], randoms: Sequence[np.random.Generator]) -> tuple[np.ndarray, ...]:
        """(B, H, W, 3) uint8 RGB, keypoints (B, K, 2) in their pixels, labelled (B, K)."""
        people = self._people
        crops = [
            augment_crop(
                people.pixels(row), people.boxes[row], people.keypoints[row], people.labelled[row],
                self._loss.input_size, self._skeleton.mirror, self._upper, self._augmentation, random,
            )
            for row, random in zip(rows, randoms, strict=True)
        ]  # fmt: skip
        return (
            np.stack([crop.pixels for crop in crops]),
            np.stack([crop.keypoints for crop in crops]),
            np.stack([crop.labelled for crop in crops]),
        )

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], bf16: bool) -> Tensor:
        pixels, keypoints, labelled = views
        inputs = network_input(pixels)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
            outputs = self._training_outputs(network, inputs)
        teacher_heatmaps = None
        if self._teachers:
            with torch.no_grad():
                teacher_heatmaps = torch.stack([teacher(inputs) for teacher in self._teachers]).mean(dim=0)
        return self._loss(outputs, keypoints, labelled, teacher_heatmaps)


def network_input(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB to the input of pose networks: (B, 3, H, W) in 0..1 minus the mean, channels last."""
    return subtract_mean(pixels.float().permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
