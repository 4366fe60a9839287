"""Learning where people are: views of images, and the loss of a Darknet network."""

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
    """Views of images; the network's predictions are held against the people in them.

    Attributes:
        weights: how often each image is drawn.
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
            teacher: views (B, S, S, 3) uint8 RGB to what `distillation_loss` wants.
            teacher_share: of the loss.

        Raises:
            UserError: the network knows more classes than one.
        """
        if network.classes != 1:
            raise UserError(f"the description has {network.classes} classes; a person detector has classes=1")
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
        """(B, S, S, 3) uint8 RGB, boxes (B, M, 4) x1 y1 x2 y2 in their pixels, kinds (B, M) as the loss wants them."""
        views = [self._view(row, random) for row, random in zip(rows, randoms, strict=True)]
        most = max(1, *(len(people.boxes) + len(people.ignored) for _, people in views))
        boxes = np.zeros((len(views), most, 4), np.float32)
        kinds = np.zeros((len(views), most), np.int64)
        for place, (_, people) in enumerate(views):
            both = np.concatenate(people)
            boxes[place, : len(both)] = both
            kinds[place, : len(both)] = _IGNORED
            kinds[place, : len(people.boxes)] = _PERSON
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
        # Torch's losses would refuse what is no number in their own words; so it passes them by, and comes back after.
        told, predictions = 0 * predictions.sum(), predictions.nan_to_num(0, 0, 0)
        loss = told + detection_loss(predictions, self._cells.to(inputs.device), self._reach, boxes, kinds)
        if self._teacher is None or not torch.is_grad_enabled():  # statistics are settled: nobody learns
            return loss
        return torch.lerp(loss, distillation_loss(predictions, self._teacher(pixels)), self._teacher_share)
