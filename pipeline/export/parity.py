"""A network and its exported file on the same inputs, in batches of several sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network, load_exported

MAX_PIXELS = 0.1  # by which a joint or a side of a box may differ, in pixels of the input
MAX_SCORE = 0.001
_BATCHES = (1, 3, 8)


class ExportDiffers(UserError):
    """The exported file computes something else than the network."""


@dataclass(frozen=True)
class Parity:
    """The largest differences between a network and its exported file.

    Attributes:
        inputs: number of compared inputs.
        output: of the outputs.
        pixels: of joints or sides of boxes, in pixels of the input.
        score: of joints or boxes.
    """

    inputs: int
    output: float
    pixels: float
    score: float


def compare(
    network: Network,
    data: bytes,
    inputs: Tensor,
    compute: Compute,
    difference: Callable[[Tensor, Tensor], tuple[float, float]],
) -> Parity:
    """Run a network and its file.

    Args:
        data: the exported file.
        inputs: (N, 3, H, W).
        difference: the largest difference in pixels, and in scores, between an output of the network and of the file.

    Raises:
        ExportDiffers: a difference is larger than allowed, or not a number.
    """
    with tempfile.TemporaryDirectory(prefix="posemill-") as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(data)
        exported = load_exported(path, compute)
    output = pixels = score = 0.0
    with torch.inference_mode():
        for batch in _BATCHES:
            for part in inputs.split(batch):
                expected, actual = network(part).float(), exported(part).float()
                if expected.shape != actual.shape:
                    raise ExportDiffers(
                        f"the exported file has the output {list(actual.shape)}, the network {list(expected.shape)}"
                    )
                output = _larger(output, float((expected - actual).abs().max()))
                differences = difference(expected, actual)
                pixels, score = _larger(pixels, differences[0]), _larger(score, differences[1])
    if not (pixels <= MAX_PIXELS and score <= MAX_SCORE):
        raise ExportDiffers(
            f"the exported file differs from the network by {pixels:.3g} pixels and {score:.3g} in scores, more than "
            f"{MAX_PIXELS:g} and {MAX_SCORE:g}; it is not written"
        )
    return Parity(len(inputs), output, pixels, score)


def _larger(a: float, b: float) -> float:
    """The larger number; NaN if one of them is."""
    return b if not a >= b else a
