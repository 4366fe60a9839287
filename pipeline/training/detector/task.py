"""The task of detector training: augmented views of images, and the loss of a Darknet network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.detectors.darknet import Darknet
from pipeline.errors import UserError
from pipeline.training.detector.augment import mosaic_view, single_view
from pipeline.training.detector.data import BoxLabels, ImageSet
from pipeline.training.detector.loss import detection_loss, distillation_loss
from pipeline.training.options import BoxAugmentation

_PERSON, _IGNORED = 1, 2


class DetectorTask:
    """Augmented views of images, and the loss of a network's predictions against their people; see `Task`.

    Attributes:
        weights: (N,) how often each image is drawn, relative to the others.
    """

    def __init__(
        self,
        images: ImageSet,
        network: Darknet,
        side: int,
        augmentation: BoxAugmentation,
        teacher: Callable[[Tensor], Tensor] | None = None,
        teacher_share: float = 0.5,
    ) -> None:
        """
        Args:
            side: of the views, pixels.
            teacher: views (B, S, S, 3) uint8 RGB to the teacher's predictions, see `distillation_loss`.
            teacher_share: share of the distillation loss; the rest is the loss against the labels.

        Raises:
            UserError: the network has more than one class.
        """
        if network.classes != 1:
            raise UserError(f"--detector.cfg has classes={network.classes}; a person detector needs classes=1")
        self.weights = images.weights
        self._images = images
        self._shares = images.weights.astype(np.float64) / images.weights.sum(dtype=np.float64)
        self._side = side
        self._augmentation = augmentation
        self._cells = network.cells(side, side)
        self._reach = network.reach
        self._teacher = teacher
        self._teacher_share = teacher_share

    def views(self, rows: Sequence[int], randoms: Sequence[np.random.Generator]) -> tuple[np.ndarray, ...]:
        """(B, S, S, 3) uint8 RGB, boxes (B, M, 4) x1 y1 x2 y2 in their pixels, kinds (B, M), see `detection_loss`."""
        views = [self._view(row, random) for row, random in zip(rows, randoms, strict=True)]
        width = max(1, *(len(people.boxes) + len(people.ignored) for _, people in views))
        boxes = np.zeros((len(views), width, 4), np.float32)
        kinds = np.zeros((len(views), width), np.int64)
        for index, (_, people) in enumerate(views):
            both = np.concatenate(people)
            boxes[index, : len(both)] = both
            kinds[index, : len(both)] = _IGNORED
            kinds[index, : len(people.boxes)] = _PERSON
        return np.stack([pixels for pixels, _ in views]), boxes, kinds

    def _view(self, row: int, random: np.random.Generator) -> tuple[np.ndarray, BoxLabels]:
        if random.random() >= self._augmentation.mosaic:
            pixels, people = self._images.pixels(row), self._images.people[row]
            return single_view(pixels, people, self._side, self._augmentation, random)
        four = [row, *(int(other) for other in random.choice(len(self._images), 3, p=self._shares))]
        images = [(self._images.pixels(i), self._images.people[i]) for i in four]
        return mosaic_view(images, self._side, self._augmentation, random)

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], bf16: bool) -> Tensor:
        pixels, boxes, kinds = views
        inputs = (pixels.float() / 255).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
            predictions = network(inputs).float()
        # Torch's losses raise errors on values that are not finite. They are replaced, and the sum makes the loss NaN,
        # which `Trainer` reports.
        nan_if_not_finite, predictions = 0 * predictions.sum(), predictions.nan_to_num(0, 0, 0)
        loss = nan_if_not_finite + detection_loss(predictions, self._cells.to(inputs.device), self._reach, boxes, kinds)
        if self._teacher is None or not torch.is_grad_enabled():  # only BatchNorm statistics are measured
            return loss
        return torch.lerp(loss, distillation_loss(predictions, self._teacher(pixels)), self._teacher_share)
