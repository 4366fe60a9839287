"""What a training run trains and how it is validated."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from pipeline.training.loop import Task


class ValidationResult(NamedTuple):
    """Metrics by name, and a picture of predictions (H, W, 3) uint8 RGB. The best weights are chosen by `ap`."""

    metrics: dict[str, float]
    picture: np.ndarray


class Experiment(Protocol):
    """A pose network or a person detector, its task and its validation.

    Attributes:
        metadata: stored in the weights files.
    """

    metadata: dict[str, str]

    @property
    def network(self) -> nn.Module:
        """The network to train."""
        ...

    @property
    def task(self) -> Task:
        """Its samples and its loss."""
        ...

    def validate(self, weights: dict[str, Tensor]) -> ValidationResult:
        """Evaluate a state dict of the network on the validation set."""
        ...
