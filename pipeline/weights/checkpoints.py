"""Checkpoints: read without running their code, and with errors that say what doesn't fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Size, Tensor, nn

from pipeline.errors import UserError
from pipeline.weights.catalogue import local_file


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file that holds nothing but tensors.

    Raises:
        UserError: the file is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused, it holds more than plain tensors; save its state dict alone") from None
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: cannot be read as tensors, a broken or another kind of file ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: expected a state dict of tensors, found {type(state).__name__} of other things")
    return state


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """What a .safetensors file tells about itself.

    Raises:
        UserError: the file is broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:
        raise UserError(f"{path}: cannot be read as tensors, a broken or another kind of file ({error})") from None


def load_weights(network: nn.Module, uri: str, purpose: str) -> None:
    """Load a checkpoint into a network; every name and shape must fit. Half precision is widened.

    Args:
        network: filled in place.
        uri: local path, URI, or name in the catalogue.
        purpose: what the network is, for the error text.

    Raises:
        UserError: names or shapes differ; the text names the first few.
        storage.MissingObject: there is no such file.
    """
    path = local_file(uri)
    state = read_state_dict(path)
    problems = differences(_shapes(network.state_dict()), _shapes(state))
    if problems:
        raise UserError(f"{uri} does not fit {purpose}: {problems}")
    network.load_state_dict(state)


def differences(own: Mapping[str, Size], found: Mapping[str, Size]) -> str:
    """In words, what names and shapes a checkpoint has otherwise than a network; the first few of each kind."""
    kinds = {
        "missing": [key for key in own if key not in found],
        "unknown": [key for key in found if key not in own],
        "of another shape": [
            f"{key} is {list(found[key])}, expected {list(own[key])}"
            for key in own
            if key in found and found[key] != own[key]
        ],
    }
    return "; ".join(
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in kinds.items()
        if keys
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Size]:
    return {key: tensor.shape for key, tensor in state.items()}
