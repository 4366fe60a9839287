"""What a training run is about: a network, what it learns, and how well it does."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.training.loop import Task
from pipeline.training.settings import TrainSettings


class ValidationResult(NamedTuple):
    """Numbers by name, `ap` the one that best weights are chosen by, and a picture of predictions (H, W, 3) uint8."""

    numbers: dict[str, float]
    picture: np.ndarray


class Experiment(Protocol):
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

    def measure(self, weights: dict[str, Tensor]) -> ValidationResult:
        """How well these weights do on the annotations that are for validation."""
        ...


def experiment_of(settings: TrainSettings, device: torch.device) -> Experiment:
    """What the settings ask for, its samples read.

    Raises:
        AnnotationError: annotations or images that cannot be used, named.
        UserError, OSError: weights or descriptions that cannot.
    """
    # Imported here: neither needs what the other does.
    if settings.task == "detector":
        from pipeline.training.detector.experiment import DetectorExperiment

        return DetectorExperiment.from_settings(settings, device)
    from pipeline.training.pose.experiment import PoseExperiment

    return PoseExperiment.from_settings(settings, device)
