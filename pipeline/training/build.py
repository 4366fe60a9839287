"""Build the experiment of a training run: of a pose network or of a person detector."""

from __future__ import annotations

import torch

from pipeline.training.experiment import Experiment
from pipeline.training.settings import TrainSettings


def build_experiment(settings: TrainSettings, device: torch.device) -> Experiment:
    """The experiment that the settings describe; its samples are read.

    Raises:
        AnnotationError: annotations or images that cannot be used.
        UserError, OSError: weights or network descriptions that cannot be used or read.
    """
    # Imported here: pose and detector training need different modules.
    if settings.task == "detector":
        from pipeline.training.detector.experiment import DetectorExperiment

        return DetectorExperiment.from_settings(settings, device)
    from pipeline.training.pose.experiment import PoseExperiment

    return PoseExperiment.from_settings(settings, device)
