"""A pose network from settings: its file is found, recognised and loaded, with what the file states about its use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch

from pipeline.decodings import Norm, TrainedDecode
from pipeline.errors import UserError, first_line
from pipeline.pose.networks import pose_spec
from pipeline.pose.networks.recognition import Architecture, load_pose_network
from pipeline.runtime.device import Compute
from pipeline.runtime.network import EXPORTED_SUFFIXES, Network, load_exported
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import NetworkSettings
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.weights.catalogue import confirm, local_file, published_decodings
from pipeline.weights.checkpoints import read_safetensors_metadata, read_state_dict

_USUAL_INPUT_SIZE = (256, 192)
_STATED_DECODINGS = get_args(TrainedDecode)  # values of `decode` in a file's metadata


@dataclass(frozen=True)
class PoseCheckpoint:
    """A pose network that is ready to run, and how to use it.

    Attributes:
        network: (B, 3, H, W) mean-subtracted RGB to (B, C, H/4, W/4).
        name: of the architecture, or of an exported file.
        description: in words, for example `fastpose_r50 with 17 joints`.
        num_outputs: number of heatmaps: the joints of the skeleton, then others.
        num_joints: joints of the skeleton.
        input_size: height and width of its crops, pixels.
        decodings: values of `pose.decode` that are usual for its weights; several if published checkpoints differ and
            the file does not state its own.
        possible_decodings: values of `pose.decode` that fit its output.
        norm: how heatmaps are normalised where integral decoding is used.
        skeleton: name of the skeleton, if the file states it.
    """

    network: Network
    name: str
    description: str
    num_outputs: int
    num_joints: int
    input_size: tuple[int, int]
    decodings: tuple[str, ...]
    possible_decodings: tuple[str, ...]
    norm: Norm
    skeleton: str | None

    def __str__(self) -> str:
        return self.description


def load_checkpoint(settings: NetworkSettings, compute: Compute) -> PoseCheckpoint:
    """Load a network and its weights; without weights they are random, for measuring speed.

    Raises:
        UserError: an unknown network, or a file that cannot be used.
    """
    if settings.weights is None:
        if settings.name is None:
            raise UserError("--pose.weights and --pose.name are both none; set one of them")
        architecture = Architecture(settings.name)
        return _of_architecture(architecture, TorchNetwork(architecture.build(), compute), settings, None, None)
    path = local_file(settings.weights)
    if path.suffix.lower() in EXPORTED_SUFFIXES:
        return _of_exported(load_exported(path, compute), settings)
    module, architecture = load_pose_network(read_state_dict(path), settings.weights, settings.name)
    entry = confirm(settings.weights, path, architecture.name, architecture.num_joints)
    metadata = read_safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    network = TorchNetwork(module, compute, metadata)
    return _of_architecture(
        architecture, network, settings, entry.input_size if entry else None, entry.decode if entry else None
    )


def _of_architecture(
    architecture: Architecture,
    network: TorchNetwork,
    settings: NetworkSettings,
    published_size: tuple[int, int] | None,
    published_decode: str | None,
) -> PoseCheckpoint:
    spec, metadata = pose_spec(architecture.name), network.metadata
    stated = metadata.get("decode")
    usual = published_decodings(architecture.name, architecture.num_joints)
    decodings: tuple[str, ...]
    if len(spec.decodings) == 1:
        decodings = spec.decodings
    elif published_decode:
        decodings = (published_decode,)
    elif stated in _STATED_DECODINGS:
        decodings = (stated,)
    elif not usual or "argmax" in usual:
        decodings = ("argmax",)
    else:
        decodings = tuple(usual)
    return PoseCheckpoint(
        network,
        architecture.name,
        str(architecture),
        architecture.num_joints,
        spec.num_skeleton_joints(architecture.num_joints),
        settings.input_size or published_size or _stated_size(metadata) or spec.input_size,
        decodings,
        spec.decodings,
        _stated_norm(metadata),
        _stated_skeleton(metadata),
    )


def _of_exported(network: Network, settings: NetworkSettings) -> PoseCheckpoint:
    """An ONNX or TorchScript file; one run on zeros shows its output."""
    metadata = network.metadata
    size = network.input_size or settings.input_size or _stated_size(metadata) or _USUAL_INPUT_SIZE
    if settings.input_size not in (None, size):
        raise UserError(
            f"--pose.input_size is {settings.input_size}, but {settings.weights} was exported for {size}; leave it out"
        )
    try:
        with torch.inference_mode():
            output = network(torch.zeros(1, 3, *size))
    except Exception as error:  # runtimes raise exceptions of their own
        raise UserError(
            f"{settings.weights}: cannot run on a crop of {size[0]}x{size[1]}: {first_line(error)}"
        ) from None
    if output.ndim != 4:
        raise UserError(
            f"{settings.weights}: output {list(output.shape)}; a pose network outputs (B, K, H, W) heatmaps"
        )
    stated = metadata.get("decode")
    decode = stated if stated in _STATED_DECODINGS else "argmax"
    outputs = output.shape[1] // 3 if decode == "offset" else output.shape[1]
    skeleton = _stated_skeleton(metadata)
    joints = len(SKELETONS[skeleton]) if skeleton else outputs
    name = metadata.get("network", "exported network")
    return PoseCheckpoint(
        network,
        name,
        f"{name} with {joints} joints",
        outputs,
        joints,
        size,
        (decode,),
        ("offset",) if decode == "offset" else ("argmax", "integral", "combined", "classic"),
        _stated_norm(metadata),
        skeleton,
    )


def common_skeleton(name: str | None, checkpoints: Sequence[PoseCheckpoint]) -> Skeleton:
    """The skeleton of all networks: the named one, else the one that the file states, else by the number of joints.

    Raises:
        UserError: no skeleton fits, or a network has another number of joints.
    """
    first = checkpoints[0]
    by_size = {len(skeleton): skeleton for skeleton in SKELETONS.values()}
    chosen = name or first.skeleton
    skeleton = SKELETONS[chosen] if chosen else by_size.get(first.num_joints)
    if skeleton is None:
        raise UserError(f"{first}: no skeleton has this number of joints; known: {', '.join(SKELETONS)}")
    for checkpoint in checkpoints:
        if checkpoint.num_joints != len(skeleton):
            raise UserError(
                f"--pose.skeleton {skeleton.name} has {len(skeleton)} joints, but the network is {checkpoint}"
            )
    return skeleton


def common_decoding(checkpoints: Sequence[PoseCheckpoint]) -> str:
    """The decoding of all networks, if their weights agree.

    Raises:
        UserError: the decoding of one is not known, or two differ.
    """
    for checkpoint in checkpoints:
        if len(checkpoint.decodings) > 1:
            raise UserError(
                f"cannot tell how to decode {checkpoint} (published ones use {' or '.join(checkpoint.decodings)}); set "
                "--pose.decode"
            )
    decodings = [checkpoint.decodings[0] for checkpoint in checkpoints]
    if len(set(decodings)) > 1:
        raise UserError(
            f"the networks of the ensemble are decoded differently ({', '.join(decodings)}); set --pose.decode"
        )
    return decodings[0]


def _stated_norm(metadata: Mapping[str, str]) -> Norm:
    return next((norm for norm in get_args(Norm) if norm == metadata.get("norm")), "sigmoid")


def _stated_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Height and width that a network was trained at, if its file states them."""
    sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", metadata.get("input_size", ""))
    return (int(sides[1]), int(sides[2])) if sides else None


def _stated_skeleton(metadata: Mapping[str, str]) -> str | None:
    name = metadata.get("skeleton")
    return name if name in SKELETONS else None
