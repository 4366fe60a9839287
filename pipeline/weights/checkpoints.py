"""Read checkpoints without running code from them, and explain in which tensors they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Size, Tensor, nn

from pipeline.errors import UserError, first_line
from pipeline.weights.catalogue import local_file


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file that contains only tensors.

    Raises:
        UserError: the file is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            raise UserError(f"{path}: a TorchScript archive, not a state dict; rename it to .torchscript")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused, it contains objects other than tensors; save its state dict alone") from None
    except Exception as error:
        raise UserError(f"{path}: cannot be read as tensors ({first_line(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: expected a state dict of tensors, not a {type(state).__name__} with other objects")
    return state


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file.

    Raises:
        UserError: the file is broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:
        raise UserError(f"{path}: cannot be read as tensors ({first_line(error)})") from None


def load_weights(network: nn.Module, uri: str, purpose: str) -> None:
    """Load a checkpoint into a network; all names and shapes must match. Half precision becomes float32.

    Args:
        network: filled in place.
        uri: local path, URI, or name in the catalogue.
        purpose: name of the network, for the error message.

    Raises:
        UserError: names or shapes differ; the message has the first few.
        storage.MissingObject: the file does not exist.
    """
    path = local_file(uri)
    state = read_state_dict(path)
    problems = differences(_shapes(network.state_dict()), _shapes(state))
    if problems:
        raise UserError(f"{uri} does not fit {purpose}: {problems}")
    network.load_state_dict(state)


def differences(expected: Mapping[str, Size], actual: Mapping[str, Size]) -> str:
    """The differences between a network and a checkpoint in words, the first few of each kind; empty if they fit.

    Args:
        expected: shapes of the network by name.
        actual: shapes of the checkpoint by name.
    """
    kinds = {
        "missing": [key for key in expected if key not in actual],
        "unknown": [key for key in actual if key not in expected],
        "of another shape": [
            f"{key} is {list(actual[key])}, expected {list(expected[key])}"
            for key in expected
            if key in actual and actual[key] != expected[key]
        ],
    }
    return "; ".join(
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in kinds.items()
        if keys
    )


def _is_torchscript(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (BadZipFile, OSError):
        return False


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Size]:
    return {key: tensor.shape for key, tensor in state.items()}
