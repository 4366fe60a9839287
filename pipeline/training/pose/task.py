"""Learning poses: views of people, and the loss of their network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.pose.crop import MEAN_RGB
from pipeline.pose.networks.spec import last_output
from pipeline.skeletons import Skeleton
from pipeline.training.options import PoseAugmentation
from pipeline.training.pose.augment import view_of
from pipeline.training.pose.data import PeopleSet
from pipeline.training.pose.losses import PoseLoss

_UPPER_BODY = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist", "face", "hand")


class PoseTask:
    """Views of people cut out of photographs; the network's outputs are held against their joints.

    Attributes:
        weights: how often each person is drawn.
    """

    def __init__(
        self,
        people: PeopleSet,
        skeleton: Skeleton,
        augmentation: PoseAugmentation,
        loss: PoseLoss,
        teachers: Sequence[Callable[[Tensor], Tensor]] = (),
        training_outputs: Callable[[nn.Module, Tensor], Sequence[Tensor]] = last_output,
    ) -> None:
        """
        Args:
            loss: its input size is that of views.
            teachers: inputs (B, 3, H, W) to heatmaps (B, K, H/4, W/4); their mean is learnt from beside the labels.
            training_outputs: the outputs of the network that the loss is summed over, see `PoseSpec`.
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
        views = [
            view_of(
                people.pixels(row), people.boxes[row], people.keypoints[row], people.labelled[row],
                self._loss.input_size, self._skeleton.mirror, self._upper, self._augmentation, random,
            )
            for row, random in zip(rows, randoms, strict=True)
        ]  # fmt: skip
        return (
            np.stack([view.pixels for view in views]),
            np.stack([view.keypoints for view in views]),
            np.stack([view.labelled for view in views]),
        )

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], bf16: bool) -> Tensor:
        pixels, keypoints, labelled = views
        inputs = network_input(pixels)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
            outputs = self._training_outputs(network, inputs)
        taught = None
        if self._teachers:
            with torch.no_grad():
                taught = torch.stack([teacher(inputs) for teacher in self._teachers]).mean(dim=0)
        return self._loss(outputs, keypoints, labelled, taught)


def network_input(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB to what pose networks take: (B, 3, H, W) in 0..1 less the mean."""
    mean = torch.from_numpy(MEAN_RGB).to(pixels.device)
    return ((pixels.float() / 255 - mean).permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
