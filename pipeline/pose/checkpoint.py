"""Load the pose network that a settings section names, with what its file states about its use.

Weights are recognised by their names and shapes. An exported network, ONNX or TorchScript, has no names: its output for
a black crop shows the number of joints. Metadata inside .safetensors and exported files may state `decode`, `norm`,
`skeleton`, `input_size` (such as 256x192) and `network`; values that are not known here are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import nn

from pipeline.decodings import Decode, Norm, TrainedDecode
from pipeline.errors import UserError
from pipeline.pose.networks import pose_spec
from pipeline.pose.networks.recognition import Architecture, load_pose_network
from pipeline.pose.networks.spec import COCO_AND_MORE, HEATMAP_DECODINGS
from pipeline.runtime.device import Compute
from pipeline.runtime.network import EXPORTED_SUFFIXES, Network, load_exported, prepare_network, trial_output
from pipeline.settings.tree import NetworkSettings
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.weights.catalogue import CatalogueEntry, confirm, local_file, published_decodings
from pipeline.weights.checkpoints import read_state_dict
from pipeline.weights.metadata import read_safetensors_metadata

_USUAL_INPUT_SIZE = (256, 192)


@dataclass(frozen=True)
class PoseCheckpoint:
    """A pose network that is ready to run, and how to use it.

    Attributes:
        network: (B, 3, H, W) mean-subtracted RGB to (B, C, H/4, W/4).
        description: in words, for example `fastpose_r50 with 17 joints`.
        num_joints: joints of the skeleton; the output may have more channels after theirs.
        input_size: height and width of its crops, pixels.
        decodings: values of `pose.decode` that are usual for its weights; several if published checkpoints differ and
            the file does not state its own.
        possible_decodings: values of `pose.decode` that fit its output.
        norm: normalisation of its heatmaps for integral decoding.
        skeleton: name of the skeleton, if the file states it.
        is_foreign: whether another program exported it, so that the normalisation of its crops is not known.
    """

    network: Network
    description: str
    num_joints: int
    input_size: tuple[int, int]
    decodings: tuple[str, ...]
    possible_decodings: tuple[str, ...]
    norm: Norm
    skeleton: str | None
    is_foreign: bool

    def __str__(self) -> str:
        return self.description


def load_checkpoint(settings: NetworkSettings, compute: Compute, decode: Decode | None = None) -> PoseCheckpoint:
    """Load a network and its weights; without weights they are random, for measuring speed.

    Args:
        settings: the network.
        compute: device and precision.
        decode: value of `pose.decode`, if it is set. It decides how the outputs of an exported network are counted.

    Raises:
        UserError: an unknown network, or a file that cannot be used.
    """
    if settings.weights is None:
        if settings.name is None:
            raise UserError("--pose.weights and --pose.name are both none; set one of them")
        architecture = Architecture(settings.name)
        return _recognised(architecture.build(), architecture, settings, None, compute, {})
    path = local_file(settings.weights)
    if path.suffix.lower() in EXPORTED_SUFFIXES:
        return _exported(load_exported(path, compute), settings, decode)
    module, architecture = load_pose_network(read_state_dict(path), settings.weights, settings.name)
    entry = confirm(settings.weights, path, architecture.name, architecture.num_joints)
    metadata = read_safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    return _recognised(module, architecture, settings, entry, compute, metadata)


def common_skeleton(name: str | None, checkpoints: Sequence[PoseCheckpoint]) -> Skeleton:
    """The skeleton of all networks: the named one, else the one that the file states, else by the number of joints.

    Raises:
        UserError: no skeleton fits, or a network has another number of joints.
    """
    first = checkpoints[0]
    skeleton = skeleton_of(first.num_joints, name or first.skeleton, str(first))
    for checkpoint in checkpoints:
        skeleton_of(checkpoint.num_joints, skeleton.name, str(checkpoint))
    return skeleton


def skeleton_of(num_joints: int, name: str | None, network: str) -> Skeleton:
    """The named skeleton, else the one with this number of joints.

    Args:
        network: in words, for error messages.

    Raises:
        UserError: no skeleton fits.
    """
    by_size = {len(skeleton): skeleton for skeleton in SKELETONS.values()}
    skeleton = SKELETONS[name] if name else by_size.get(num_joints)
    if skeleton is None:
        raise UserError(f"{network}: no skeleton has {num_joints} joints; known: {', '.join(SKELETONS)}")
    if num_joints != len(skeleton):
        raise UserError(f"--pose.skeleton {skeleton.name} has {len(skeleton)} joints, but the network is {network}")
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


class _Stated(NamedTuple):
    """What the metadata of a file states about the use of its network; None where it does not."""

    decode: str | None
    norm: Norm | None
    input_size: tuple[int, int] | None
    skeleton: str | None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> _Stated:
        sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", metadata.get("input_size", ""))
        return cls(
            next((decode for decode in get_args(TrainedDecode) if decode == metadata.get("decode")), None),
            next((norm for norm in get_args(Norm) if norm == metadata.get("norm")), None),
            (int(sides[1]), int(sides[2])) if sides else None,
            next((name for name in SKELETONS if name == metadata.get("skeleton")), None),
        )


def _recognised(
    module: nn.Module,
    architecture: Architecture,
    settings: NetworkSettings,
    entry: CatalogueEntry | None,
    compute: Compute,
    metadata: Mapping[str, str],
) -> PoseCheckpoint:
    """A network of this package; `entry` is that of its weights in the catalogue, `metadata` that of their file."""
    spec, stated = pose_spec(architecture.name), _Stated.of(metadata)
    published_size = entry.input_size if entry else None
    decode = entry.decode if entry and entry.decode else stated.decode
    usual = published_decodings(architecture.name, architecture.num_joints)
    decodings: Sequence[str] = usual if usual and "argmax" not in usual else ["argmax"]
    if len(spec.decodings) == 1:
        decodings = spec.decodings
    elif decode:
        decodings = [decode]
    input_size = settings.input_size or published_size or stated.input_size or spec.input_size
    return PoseCheckpoint(
        network=prepare_network(module, input_size, compute, metadata),
        description=str(architecture),
        num_joints=spec.num_skeleton_joints(architecture.num_joints),
        input_size=input_size,
        decodings=tuple(decodings),
        possible_decodings=spec.decodings,
        norm=stated.norm or "sigmoid",
        skeleton=stated.skeleton,
        is_foreign=False,
    )


def _exported(network: Network, settings: NetworkSettings, decode: Decode | None) -> PoseCheckpoint:
    """An ONNX or TorchScript file, run once."""
    if settings.name is not None:
        raise UserError(
            f"--pose.name {settings.name} cannot be used with the exported {settings.weights}; leave it out"
        )
    stated = _Stated.of(network.metadata)
    size = network.input_size or settings.input_size or stated.input_size or _USUAL_INPUT_SIZE
    if settings.input_size not in (None, size):
        raise UserError(
            f"--pose.input_size is {_sides(settings.input_size or ())}, but {settings.weights} was exported for "
            f"{_sides(size)}; leave it out"
        )
    try:
        output = trial_output(network, torch.zeros(1, 3, *size))
    except UserError as error:
        raise UserError(f"{settings.weights}: {error}") from None
    if output.ndim == 3 and output.shape[2] >= sum(size) and output.shape[2] * size[0] % sum(size) == 0:
        return _simcc(network, size, output.shape[1])
    if output.ndim != 4 or output.shape[2] * size[1] != output.shape[3] * size[0]:
        raise UserError(
            f"{settings.weights}: its output {list(output.shape)} for crops of {_sides(size)} is not (B, K, H, W) "
            "heatmaps of the same aspect ratio, nor simcc_x and simcc_y"
        )
    usual = decode or stated.decode or "argmax"
    channels = output.shape[1]
    per_joint = 3 if usual == "offset" else 1
    joints = len(SKELETONS[stated.skeleton]) if stated.skeleton else COCO_AND_MORE.get(channels, channels // per_joint)
    if channels < joints * per_joint or (usual == "offset" and channels != joints * per_joint):
        raise UserError(
            f"{settings.weights}: its output {list(output.shape)} has {channels} channels; {joints} joints with "
            f"decoding {usual} need {joints * per_joint}"
        )
    return PoseCheckpoint(
        network=network,
        description=network.metadata.get("network", f"exported network with {joints} joints"),
        num_joints=joints,
        input_size=size,
        decodings=(usual,),
        possible_decodings=("offset",) if usual == "offset" else HEATMAP_DECODINGS,
        norm=stated.norm or "sigmoid",
        skeleton=stated.skeleton,
        is_foreign="mean" not in network.metadata,
    )


def _simcc(network: Network, size: tuple[int, int], joints: int) -> PoseCheckpoint:
    """An exported network whose output has x bins and y bins of each joint."""
    return PoseCheckpoint(
        network=network,
        description=network.metadata.get("network", f"exported SimCC network with {joints} joints"),
        num_joints=joints,
        input_size=size,
        decodings=("simcc",),
        possible_decodings=("simcc",),
        norm="sigmoid",
        skeleton=_Stated.of(network.metadata).skeleton,
        is_foreign=True,
    )


def _sides(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
