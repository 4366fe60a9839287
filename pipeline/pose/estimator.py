"""Keypoints from crops: pose networks run in batches of one fixed shape, then decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.decodings import Norm
from pipeline.errors import UserError
from pipeline.pose.checkpoint import common_decoding, common_skeleton, load_checkpoint
from pipeline.pose.crop import CropRule, Crops, normalise_imagenet, subtract_mean
from pipeline.pose.heads import ArgmaxHead, CombinedHead, Head, IntegralHead, OffsetHead, SimccHead, View
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network
from pipeline.settings.tree import PoseSettings
from pipeline.skeletons import Skeleton


@dataclass(frozen=True)
class PoseNetwork:
    """A network and the crops that it takes.

    Attributes:
        network: (batch, 3, H, W) mean-subtracted RGB to (batch, C, H/4, W/4).
        description: in words, for example `fastpose_r50 with 17 joints`.
        rules: crop rules; each gives a view of every person.
    """

    network: Network
    description: str
    rules: tuple[CropRule, ...]


class PoseEstimator:
    """Keypoints of cropped people, by one network or the average of several.

    Attributes:
        batch: people per call; results never depend on which people share a batch.
        rules: the crops to cut of each person, in this order.
        skeleton: joints of the output.
        head: how the output of the networks is decoded.
        networks: the networks that are averaged.
    """

    def __init__(
        self,
        networks: Sequence[PoseNetwork],
        head: Head,
        skeleton: Skeleton,
        compute: Compute,
        batch: int = 32,
        flip_test: bool = False,
        normalise: Callable[[Tensor], Tensor] = subtract_mean,
    ) -> None:
        self.batch = batch
        self.networks = tuple(networks)
        self.rules = tuple(dict.fromkeys(rule for network in networks for rule in network.rules))
        self.skeleton = skeleton
        self.head = head
        views = [(network, rule) for network in networks for rule in network.rules]
        self._views = sorted(views, key=lambda view: -view[1].scale)  # the first view, here a widest, defines the frame
        self._channels = head.channels(len(skeleton))
        self._flip_test = flip_test
        self._normalise = normalise
        self._compute = compute

    @classmethod
    def from_settings(cls, settings: PoseSettings, compute: Compute) -> PoseEstimator:
        """Build the networks and load their weights; without weights they are random, for measuring speed.

        Raises:
            UserError: an unknown network, or weights, skeleton and decoding that do not fit together.
        """
        checkpoints = [load_checkpoint(network, compute, settings.decode) for network in settings.networks()]
        if settings.pixels is not None and not all(checkpoint.is_foreign for checkpoint in checkpoints):
            raise UserError("--pose.pixels is for networks that other programs exported; leave it out")
        skeleton = common_skeleton(settings.skeleton, checkpoints)
        classic = settings.crop == "classic"
        decode = settings.decode or ("classic" if classic else common_decoding(checkpoints))
        for checkpoint in checkpoints:
            if decode not in checkpoint.possible_decodings:
                raise UserError(
                    f"--pose.decode {decode} does not fit the output of {checkpoint}; leave it out, or use "
                    f"{' or '.join(checkpoint.possible_decodings)}"
                )
        head = make_head(decode, settings.norm or checkpoints[0].norm, checkpoints[0].input_size)
        networks = []
        for checkpoint in checkpoints:
            rules = tuple(CropRule(checkpoint.input_size, scale, classic) for scale in settings.scales)
            networks.append(PoseNetwork(checkpoint.network, checkpoint.description, rules))
        normalise = normalise_imagenet if settings.pixels == "imagenet" else subtract_mean
        return cls(networks, head, skeleton, compute, settings.batch, settings.flip_test, normalise)

    def describe(self) -> list[str]:
        """The networks in words, for example `fastpose_r50 with 17 joints at 256x192, argmax, onnx int8`."""
        described = []
        for member in self.networks:
            height, width = member.rules[0].input_size
            stated = member.network.metadata.get("precision", "")
            runtime = f"{member.network.runtime} {stated}".strip()
            described.append(f"{member.description} at {height}x{width}, {self.head}, {runtime}")
        return described

    def estimate(self, crops: Sequence[Crops], boxes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints of one batch.

        Args:
            crops: for each of `rules`, a whole batch as `CropRule.cut` or `CropRule.warp` returns it.
            boxes: for each of `rules`, (batch, 4) x1 y1 x2 y2 in image pixels, as the same function returns them.

        Returns:
            keypoints (batch, K, 2) in image pixels, scores (batch, K).
        """
        views = []
        with torch.inference_mode():
            inputs = {rule: self._input(c, rule) for rule, c in zip(self.rules, crops, strict=True)}
            covered = dict(zip(self.rules, boxes, strict=True))
            for member, rule in self._views:
                views.append(View(self._run(member.network, inputs[rule]), covered[rule]))
                if self._flip_test:
                    mirrored = self._run(member.network, inputs[rule].flip(3))
                    views.append(View(self.head.flip_back(mirrored, self.skeleton.mirror), covered[rule]))
            return self.head.decode(views)

    def _input(self, crops: Crops, rule: CropRule) -> Tensor:
        if isinstance(crops, Tensor):
            return crops if rule.classic else self._normalise(crops)
        pixels = torch.from_numpy(crops)
        if rule.classic:
            return pixels.to(self._compute.device).permute(0, 3, 1, 2)
        return self._normalise(self._compute.to_input(pixels))

    def _run(self, network: Network, inputs: torch.Tensor) -> torch.Tensor:
        # ONNX Runtime returns its outputs on the CPU; an ensemble is averaged on one device.
        return network(inputs)[:, : self._channels].to(self._compute.device, torch.float32)


def make_head(decode: str, norm: Norm, input_size: tuple[int, int]) -> Head:
    """The head for a value of `pose.decode`, and crops of this height and width."""
    heads: dict[str, Head] = {
        "argmax": ArgmaxHead(),
        "classic": ArgmaxHead(classic=True),
        "integral": IntegralHead(norm),
        "combined": CombinedHead(norm),
        "offset": OffsetHead(),
        "simcc": SimccHead(input_size),
    }
    return heads[decode]
