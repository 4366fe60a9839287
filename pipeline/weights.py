"""Weights files: loaded without running their code, and with errors that say what doesn't fit."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline import storage


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file that holds nothing but tensors.

    Raises:
        ValueError: the file is neither.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: not a file of plain tensors, refused ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a state dict of tensors, found {type(state).__name__} of other things")
    return state


def load_weights(network: nn.Module, uri: str, purpose: str) -> None:
    """Load a checkpoint into a network; every name and shape must fit. Half precision is widened.

    Args:
        network: filled in place.
        uri: local path or URI; remote files are kept in this machine's cache.
        purpose: what the network is, for the error text.

    Raises:
        ValueError: names or shapes differ; the text names the first few.
        storage.MissingObject: there is no such file.
    """
    path = storage.local_copy(uri)
    state = read_state_dict(path)
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    misshapen = [
        f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unknown or misshapen:
        problems = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
            if keys
        ]
        raise ValueError(f"{uri} does not fit {purpose}: {'; '.join(problems)}")
    network.load_state_dict(state)
