"""Pose networks at work: crops in batches of one fixed shape, keypoints out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.pose.crop import MEAN_RGB, CropRule
from pipeline.pose.heads import ArgmaxHead, CombinedHead, Head, IntegralHead, Norm, OffsetHead, View
from pipeline.pose.networks.recognition import Architecture, load_pose_network
from pipeline.runtime.device import Compute
from pipeline.settings.tree import NetworkSettings, PoseSettings
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.weights.catalogue import CatalogueEntry, confirm, local_file, published_decodings
from pipeline.weights.checkpoints import read_safetensors_metadata, read_state_dict

INPUT_SIZE = (256, 192)
CLASSIC_INPUT_SIZE = (320, 256)

_TRAINED_DECODINGS = ("argmax", "integral", "combined", "offset")  # as jobs/train.py notes them in weights
# Outputs beyond the skeleton's joints: the classic and the dense network tell more than the 17.
_COCO_AND_MORE = (33, 49)


@dataclass(frozen=True)
class PoseNetwork:
    """A network with what it takes to use it.

    Attributes:
        architecture: what it is.
        network: prepared: (batch, 3, H, W) mean-subtracted RGB to heatmaps.
        rules: the crops that it views at, one after another.
    """

    architecture: Architecture
    network: nn.Module
    rules: tuple[CropRule, ...]


class PoseEstimator:
    """Keypoints of cropped people, by one network or the average of several.

    Attributes:
        batch: people per call; results never depend on which people share a batch.
        rules: the crops that it wants of each person, in this order.
        skeleton: joints of the output.
        head: what the networks' output means.
        networks: what views at the crops.
    """

    def __init__(
        self,
        networks: Sequence[PoseNetwork],
        head: Head,
        skeleton: Skeleton,
        compute: Compute,
        batch: int = 32,
        flip_test: bool = False,
    ) -> None:
        self.batch = batch
        self.networks = tuple(networks)
        self.rules = tuple(dict.fromkeys(rule for network in networks for rule in network.rules))
        self.skeleton = skeleton
        self.head = head
        views = [(network, rule) for network in networks for rule in network.rules]
        self._views = sorted(views, key=lambda view: -view[1].scale)  # the widest is the frame of their average
        self._channels = head.channels(len(skeleton))
        self._flip_test = flip_test
        self._compute = compute
        self._mean = torch.from_numpy(MEAN_RGB).view(1, 3, 1, 1).to(compute.device)

    @classmethod
    def from_settings(cls, settings: PoseSettings, compute: Compute) -> PoseEstimator:
        """Build the networks and load their weights; without weights they are random, for measuring speed.

        Raises:
            UserError: an unknown network, or weights, skeleton and decoding that don't fit together.
        """
        loaded = [_load(member) for member in settings.networks()]
        skeleton = _skeleton(settings.skeleton, loaded)
        classic = settings.crop == "classic"
        decode = settings.decode or ("classic" if classic else _decoding(loaded))
        head = head_of(decode, settings.norm or _norm(loaded[0].told))
        networks = []
        for member, found in zip(settings.networks(), loaded, strict=True):
            name = found.architecture.name
            if (name == "fpn_offset_r50") != isinstance(head, OffsetHead):
                raise UserError(f"pose.decode is {decode}, which {name} does not give; leave it out")
            published = found.entry.input_size if found.entry else None
            size = member.input_size or published or _input_size(found.told) or usual_input_size(name)
            rules = tuple(CropRule(size, scale, classic) for scale in settings.scales)
            networks.append(PoseNetwork(found.architecture, compute.prepare(found.network), rules))
        return cls(networks, head, skeleton, compute, settings.batch, settings.flip_test)

    def describe(self) -> list[str]:
        """The networks in words, e.g. `fastpose_r50 with 17 joints at 256x192, argmax`."""
        sizes = [network.rules[0].input_size for network in self.networks]
        return [f"{n.architecture} at {h}x{w}, {self.head}" for n, (h, w) in zip(self.networks, sizes, strict=True)]

    def estimate(self, crops: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints of one batch.

        Args:
            crops: for each of `rules`, (batch, height, width, 3) as the rule cuts them, always a whole batch.
            boxes: for each of `rules`, (batch, 4) x1 y1 x2 y2 that it decodes with, in image pixels.

        Returns:
            keypoints (batch, K, 2) in image pixels, scores (batch, K).
        """
        views = []
        with torch.inference_mode():
            inputs = {rule: self._input(c) for rule, c in zip(self.rules, crops, strict=True)}
            covered = dict(zip(self.rules, boxes, strict=True))
            for member, rule in self._views:
                views.append(View(self._run(member.network, inputs[rule]), covered[rule]))
                if self._flip_test:
                    mirrored = self._run(member.network, inputs[rule].flip(3))
                    views.append(View(self.head.flip_back(mirrored, self.skeleton.mirror), covered[rule]))
            return self.head.decode(views)

    def _input(self, crops: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(crops)
        if crops.dtype == np.uint8:
            return self._compute.to_input(pixels) - self._mean
        return pixels.to(self._compute.device).permute(0, 3, 1, 2)

    def _run(self, network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        maps = network(inputs.to(self._compute.dtype, memory_format=torch.channels_last))
        return maps[:, : self._channels].float()


def usual_input_size(name: str) -> tuple[int, int]:
    """Height and width of the crops that a network is published for."""
    return CLASSIC_INPUT_SIZE if name == "fastpose_classic" else INPUT_SIZE


class _Loaded(NamedTuple):
    """A network with its weights, what the catalogue says of them, and what their own file says."""

    architecture: Architecture
    network: nn.Module
    entry: CatalogueEntry | None
    told: Mapping[str, str]


def _load(member: NetworkSettings) -> _Loaded:
    if member.weights is None:
        if member.name is None:
            raise UserError("pose.weights and pose.name are both none; one of them says which network it is")
        architecture = Architecture(member.name)
        return _Loaded(architecture, architecture.build(), None, {})
    path = local_file(member.weights)
    network, architecture = load_pose_network(read_state_dict(path), member.weights, member.name)
    entry = confirm(member.weights, path, architecture.name, architecture.num_joints)
    return _Loaded(
        architecture, network, entry, read_safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    )


def joint_count(architecture: Architecture) -> int:
    """How many of a network's outputs are the joints of a skeleton; they come first."""
    return 17 if architecture.num_joints in _COCO_AND_MORE else architecture.num_joints


def _decoding(loaded: Sequence[_Loaded]) -> str:
    """How all networks are decoded: as the catalogue or the file says, else as its network's published checkpoints."""
    found = []
    for architecture, _, entry, told in loaded:
        ways = published_decodings(architecture.name, architecture.num_joints)
        if architecture.name == "fpn_offset_r50":
            found.append("offset")
        elif entry is not None and entry.decode:
            found.append(entry.decode)
        elif told.get("decode") in _TRAINED_DECODINGS:
            found.append(told["decode"])
        elif not ways or "argmax" in ways:
            found.append("argmax")
        elif len(ways) == 1:
            found.append(ways[0])
        else:
            raise UserError(
                f"{architecture}: its published checkpoints are decoded by {' or '.join(ways)}, and which this one is "
                "cannot be seen; say it with --pose.decode"
            )
    if len(set(found)) > 1:
        raise UserError(f"the networks of the ensemble are decoded differently ({', '.join(found)}); set pose.decode")
    return found[0]


def _norm(told: Mapping[str, str]) -> Norm:
    return next((norm for norm in get_args(Norm) if norm == told.get("norm")), "sigmoid")


def _input_size(told: Mapping[str, str]) -> tuple[int, int] | None:
    """Height and width that a network was trained at, where its file says."""
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", told.get("input_size", ""))
    return (int(sides[1]), int(sides[2])) if sides else None


def _skeleton(name: str | None, loaded: Sequence[_Loaded]) -> Skeleton:
    """The skeleton that is asked for, or told by the file, or the one with as many joints; all networks must fit it."""
    architectures = [architecture for architecture, _, _, _ in loaded]
    if name is None and loaded[0].told.get("skeleton") in SKELETONS:
        name = loaded[0].told["skeleton"]
    counts = [joint_count(architecture) for architecture in architectures]
    fitting = {len(skeleton): skeleton for skeleton in SKELETONS.values()}
    skeleton = fitting.get(counts[0]) if name is None else SKELETONS[name]
    if skeleton is None:
        raise UserError(f"{architectures[0]}: no skeleton has so many; known: {', '.join(SKELETONS)}")
    for architecture, count in zip(architectures, counts, strict=True):
        if count != len(skeleton):
            raise UserError(
                f"pose.skeleton {skeleton.name} has {len(skeleton)} joints, but the network is {architecture}"
            )
    return skeleton


def head_of(decode: str, norm: Norm) -> Head:
    """The head that a setting names."""
    heads: dict[str, Head] = {
        "argmax": ArgmaxHead(),
        "classic": ArgmaxHead(classic=True),
        "integral": IntegralHead(norm),
        "combined": CombinedHead(norm),
        "offset": OffsetHead(),
    }
    return heads[decode]
