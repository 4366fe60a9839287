"""Read checkpoints without running code from them, and explain in which tensors they do not fit."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors.torch import load_file
from torch import Size, Tensor, nn

from pipeline.errors import UserError, first_line
from pipeline.weights.catalogue import local_file

# Where training programs store a state dict inside a checkpoint; averaged weights first.
_WRAPPERS = (
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "state_dict", "model_state_dict", "model",
    "net", "network", "module",
)  # fmt: skip
# What DataParallel, torch.compile and training classes put in front of every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
_DEEPEST = 3  # level of a state dict in a checkpoint
_BATCHES = "num_batches_tracked"  # unused in evaluation, and missing in checkpoints of PyTorch before 0.4.1


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file, also inside a checkpoint with other content.

    Prefixes that all names share because of the training program are removed, and missing counters of BatchNorm are
    added.

    Raises:
        UserError: the file is neither, or contains objects that only code can restore.
    """
    try:
        if path.suffix == ".safetensors":
            return _with_plain_names(load_file(path))
        if _is_torchscript(path):
            raise UserError(f"{path}: a TorchScript archive, not a state dict; rename it to .torchscript")
        with path.open("rb") as file:
            if file.read(2)[:1] not in (b"P", b"\x80"):  # a zip archive, or a pickle of protocol 2 and later
                raise UserError(f"{path}: cannot be read as tensors (not a PyTorch file)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage: an error follows
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, it contains objects that only code can restore; save its state dict alone"
        ) from None
    except Exception as error:
        raise UserError(f"{path}: cannot be read as tensors ({first_line(error)})") from None
    tensors = _unwrapped(state)
    if tensors is None:
        found = f"a dict of {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{path}: expected a state dict of tensors, alone or as `state_dict` or `model`, not {found}")
    return _with_plain_names(tensors)


def _unwrapped(state: Any, depth: int = 0) -> dict[str, Tensor] | None:
    """The state dict in a checkpoint; None if there is none."""
    if not isinstance(state, dict) or not state or depth > _DEEPEST:
        return None
    if all(isinstance(value, Tensor) for value in state.values()):
        return state
    inner = (_unwrapped(state[name], depth + 1) for name in _WRAPPERS if name in state)
    return next((tensors for tensors in inner if tensors is not None), None)


def _with_plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while state and (prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if any(key.endswith(_BATCHES) for key in state):
        return state
    counters = (key.removesuffix("running_mean") + _BATCHES for key in state if key.endswith("running_mean"))
    return state | dict.fromkeys(counters, torch.tensor(0))


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
