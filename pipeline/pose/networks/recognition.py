"""Recognise the network of a checkpoint from the names and shapes of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.pose.networks import POSE_NETWORKS, build_pose_model, pose_spec
from pipeline.pose.networks.pruning import inner_channels, with_widths
from pipeline.weights.checkpoints import differences

Shapes = Mapping[str, torch.Size]

_MODULATED_OFFSETS = 27
_OUTPUT_LAYERS = ("conv_out.weight", "conv_out_dense.weight", "final_layer.weight", "heatmap.weight", "offset.weight")
_PARALLEL = "module."  # the prefix that DataParallel adds to every name


@dataclass(frozen=True)
class Architecture:
    """A network by name, number of joints and options; `build` makes it.

    Attributes:
        name: a key of `POSE_NETWORKS`.
        num_joints: number of heatmaps.
        options: options of the network's class.
        widths: numbers of inner channels where the network was pruned; see `pipeline.pose.networks.pruning`.
    """

    name: str
    num_joints: int = 17
    options: Mapping[str, Any] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)

    def build(self) -> nn.Module:
        return with_widths(build_pose_model(self.name, self.num_joints, **self.options), self.widths)

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters and buffers by name, on the meta device, which allocates no memory."""
        with torch.device("meta"):
            return self.build().state_dict()

    def shapes(self) -> dict[str, torch.Size]:
        return _shapes(self.tensors())

    def __str__(self) -> str:
        options = "".join(f", {key}={value}" for key, value in self.options.items())
        pruned = f", pruned to {sum(self.widths.values())} channels in {len(self.widths)} places" if self.widths else ""
        return f"{self.name} with {self.num_joints} joints{options}{pruned}"


def recognise(state: Mapping[str, Tensor]) -> Architecture | None:
    """The network with exactly these names and shapes of parameters, or None; it may be pruned."""
    shapes = _shapes(state)
    candidates = [(candidate, candidate.shapes()) for candidate in _candidates(shapes)]
    for candidate, own in candidates:
        if own == shapes:
            return candidate
    for candidate, own in candidates:
        if own.keys() == shapes.keys():
            pruned = _pruned(candidate, shapes)
            if pruned.shapes() == shapes:
                return pruned
    return None


def nearest(state: Mapping[str, Tensor]) -> Architecture | None:
    """The network that shares the largest number of names, or None if the differences outnumber them."""
    shapes = _shapes(state)
    candidates = list(_candidates(shapes)) or [Architecture(name) for name in POSE_NETWORKS]

    def similarity(candidate: Architecture) -> tuple[int, int]:
        own = candidate.shapes()
        return len(own.keys() & shapes.keys()) - len(own.keys() ^ shapes.keys()), len(own.items() & shapes.items())

    best = max(candidates, key=similarity)
    return best if similarity(best)[0] > 0 else None


def load_pose_network(
    state: Mapping[str, Tensor], source: str, name: str | None = None
) -> tuple[nn.Module, Architecture]:
    """The network of a checkpoint, with its weights. Half precision is converted to single precision.

    Args:
        state: the checkpoint.
        source: its name, for error messages.
        name: the expected network; by default any.

    Raises:
        UserError: it is another network, or an unknown one; the message has the nearest network and the keys that
            differ.
    """
    if state and all(key.startswith(_PARALLEL) for key in state):
        state = {key.removeprefix(_PARALLEL): tensor for key, tensor in state.items()}
    shapes = _shapes(state)
    architecture = recognise(state)
    if architecture is None:
        similar = nearest(state)
        if similar is None:
            raise UserError(
                f"{source}: its {len(state)} keys do not resemble any pose network; known: {', '.join(POSE_NETWORKS)}"
            )
        raise UserError(
            f"{source} resembles {similar} but does not fit: {differences(similar.shapes(), shapes)}; use a checkpoint "
            "of one of the networks that `python -m pipeline.weights list` shows"
        )
    if name is not None and name != architecture.name:
        architecture = _as_named(architecture, shapes, source, name)
    for key, own in architecture.tensors().items():
        if own.is_floating_point() != state[key].is_floating_point():
            raise UserError(f"{source}: {key} is {state[key].dtype}; expected {own.dtype}")
        if not torch.isfinite(state[key]).all():
            raise UserError(f"{source}: {key} has values that are not finite")
    network = architecture.build()
    network.load_state_dict(dict(state))
    return network, architecture


def _as_named(architecture: Architecture, shapes: Shapes, source: str, name: str) -> Architecture:
    """The network called `name`, if the checkpoint fits it as well as the recognised one."""
    pose_spec(name)
    try:
        named = Architecture(name, architecture.num_joints)
        problems = differences(named.shapes(), shapes)
    except UserError as error:  # it cannot have that number of joints
        problems = str(error)
    if problems:
        raise UserError(
            f"{source} is {architecture}, not --pose.name {name}: {problems}; use weights of {name}, or set "
            f"--pose.name {architecture.name}"
        )
    return named


def _pruned(architecture: Architecture, shapes: Shapes) -> Architecture:
    """The architecture with as many inner channels as a checkpoint with the same names has."""
    with torch.device("meta"):
        inner = inner_channels(architecture.build())
    found = {name: shapes[f"{name}.weight"][0] // channels.group for name, channels in inner.items()}
    return replace(architecture, widths={name: n for name, n in found.items() if n < inner[name].width})


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in state.items()}


def _candidates(shapes: Shapes) -> Iterator[Architecture]:
    """Networks with the same output layer; those that fit in fewer cases come first."""
    shapes = {key: shape for key, shape in shapes.items() if len(shape) == 4 or not key.endswith(_OUTPUT_LAYERS)}
    if "conv_out.weight" in shapes:
        joints, conv_dim = shapes["conv_out.weight"][:2]
        options = {} if conv_dim == 128 else {"conv_dim": conv_dim}
        offsets = {shape[0] for key, shape in shapes.items() if key.endswith("conv2_offset.bias")}
        if "conv_out_dense.weight" in shapes:
            yield Architecture("fastpose_duc_dense", joints + shapes["conv_out_dense.weight"][0])
        if joints == POSE_NETWORKS["fastpose_classic"].num_outputs:
            yield Architecture("fastpose_classic", joints)
        for name in ("fastpose_r50", "fastpose_r101", "fastpose_r152"):
            yield Architecture(name, joints, options)
        modulated = {"modulated": True} if offsets == {_MODULATED_OFFSETS} else {}
        yield Architecture("fastpose_r50_dcn", joints, {**options, **modulated})
        for name in ("fastpose_mobile_small", "fastpose_mobile_large", "fastpose_lite0"):
            yield Architecture(name, joints, options)
        for name in ("fastpose_duc_r50", "fastpose_duc_r152"):
            yield Architecture(name, joints)
    elif "final_layer.weight" in shapes:
        joints = shapes["final_layer.weight"][0]
        for name in ("simplepose_r50", "simplepose_r101", "simplepose_r152", "hrnet_w32"):
            yield Architecture(name, joints)
    elif "heatmaps.0.weight" in shapes:
        joints, width = shapes["heatmaps.0.weight"][:2]
        stacks = sum(key.startswith("heatmaps.") and key.endswith(".weight") for key in shapes)
        depth = max(key.split(".").count("inner") for key in shapes)
        yield Architecture("hourglass", joints, {"stacks": stacks, "depth": depth, "width": width})
    elif "heatmap.1.weight" in shapes:
        yield Architecture("movenet_pyramid", shapes["heatmap.1.weight"][0])
    elif "heatmap.weight" in shapes and "offset.weight" in shapes:
        joints, width = shapes["heatmap.weight"][:2]
        yield Architecture("fpn_offset_r50", joints, {} if width == 256 else {"width": width})
