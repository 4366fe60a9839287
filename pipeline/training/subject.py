"""What a training run is about: a network, what it learns, and how well it does."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from pipeline.training.loop import Task


class Measured(NamedTuple):
    """Numbers by name, `ap` the one that best weights are chosen by, and a picture of predictions (H, W, 3) uint8."""

    numbers: dict[str, float]
    picture: np.ndarray


class Subject(Protocol):
    """A pose network's training, or a detector's.

    Attributes:
        metadata: what is kept in its weights' files.
    """

    metadata: dict[str, str]

    @property
    def network(self) -> nn.Module:
        """To be trained."""
        ...

    @property
    def task(self) -> Task:
        """What it learns."""
        ...

    def measure(self, weights: dict[str, Tensor]) -> Measured:
        """How well these weights do on the annotations that are for validation."""
        ...
