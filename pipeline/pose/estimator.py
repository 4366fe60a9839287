"""A pose network at work: crops in batches of one fixed shape, keypoints out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.compute import Compute
from pipeline.config import PoseSettings
from pipeline.pose.crop import MEAN_RGB
from pipeline.pose.heatmap import decode_argmax, flip_back
from pipeline.pose.networks import build_pose_model
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.weights import load_weights


class PoseEstimator:
    """Keypoints of cropped people.

    Attributes:
        batch: crops per call; results never depend on which people share a batch.
        input_size: height and width of a crop, pixels.
        skeleton: joints of the output.
        network: prepared: (batch, 3, H, W) mean-subtracted RGB to heatmaps.
    """

    def __init__(self, network: nn.Module, skeleton: Skeleton, settings: PoseSettings, compute: Compute) -> None:
        self.batch = settings.batch
        self.input_size = settings.input_size
        self.skeleton = skeleton
        self._flip_test = settings.flip_test
        self._compute = compute
        self.network = compute.prepare(network)
        self._mean = torch.from_numpy(MEAN_RGB).view(1, 3, 1, 1).to(compute.device)

    @classmethod
    def from_settings(cls, settings: PoseSettings, compute: Compute) -> PoseEstimator:
        """Build the network and load its weights; without weights they are random, for measuring speed.

        Raises:
            ValueError: an unknown network or skeleton, or weights that don't fit.
        """
        if settings.skeleton not in SKELETONS:
            raise ValueError(f"pose.skeleton is {settings.skeleton!r}; known: {', '.join(SKELETONS)}")
        skeleton = SKELETONS[settings.skeleton]
        network = build_pose_model(settings.name, len(skeleton))
        if settings.weights is not None:
            load_weights(network, settings.weights, f"pose.name {settings.name}")
        return cls(network, skeleton, settings, compute)

    def estimate(self, crops: np.ndarray, cropped_boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints of one batch.

        Args:
            crops: (batch, height, width, 3) uint8 RGB, always a whole batch.
            cropped_boxes: (batch, 4) x1 y1 x2 y2 that the crops show, in image pixels.

        Returns:
            keypoints (batch, K, 2) in image pixels, scores (batch, K).
        """
        with torch.inference_mode():
            inputs = self._compute.to_input(torch.from_numpy(crops)) - self._mean
            heatmaps = self._heatmaps(inputs)
            if self._flip_test:
                mirrored = self._heatmaps(inputs.flip(3))
                heatmaps = (heatmaps + flip_back(mirrored, self.skeleton.mirror)) / 2
            return decode_argmax(heatmaps, cropped_boxes)

    def _heatmaps(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs.to(self._compute.dtype, memory_format=torch.channels_last)).float()
