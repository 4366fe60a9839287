"""A network and its exported file: differences on the same inputs, accuracy, and speed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.runtime.network import Network

MAX_PIXELS = 0.1  # by which a joint or a side of a box of a float32 file may differ, in pixels of the input
MAX_SCORE = 0.001
_BATCHES = (1, 3, 8)
_ROUNDS = 7


class ExportDiffers(UserError):
    """The exported file computes something else than the network."""


@dataclass(frozen=True)
class Differences:
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

    def __str__(self) -> str:
        return (
            f"largest difference on {self.inputs} inputs: {self.pixels:.2g} pixels, scores {self.score:.2g}, "
            f"output {self.output:.2g}"
        )


def compare(
    network: Network,
    exported: Network,
    inputs: Tensor,
    difference: Callable[[Tensor, Tensor], tuple[float, float]],
) -> Differences:
    """Run a network and its file in batches of several sizes.

    Args:
        inputs: (N, 3, H, W).
        difference: the largest difference in pixels, and in scores, between an output of the network and of the file.

    Raises:
        ExportDiffers: the outputs have another shape, or are not finite.
    """
    output = pixels = score = 0.0
    with torch.inference_mode():
        for batch in _BATCHES:
            for part in inputs.split(batch):
                expected, actual = network(part).float(), exported(part).float()
                if expected.shape != actual.shape:
                    raise ExportDiffers(
                        f"the exported file has the output {list(actual.shape)}, the network {list(expected.shape)}"
                    )
                if not (expected.isfinite().all() and actual.isfinite().all()):
                    raise ExportDiffers(
                        "the network or the exported file computes numbers that are not finite; it is not written"
                    )
                output = max(output, float((expected - actual).abs().max()))
                differences = difference(expected, actual)
                pixels, score = max(pixels, differences[0]), max(score, differences[1])
    return Differences(len(inputs), output, pixels, score)


def check_equal(found: Differences) -> None:
    """
    Raises:
        ExportDiffers: the differences are larger than those of float32 in another order of operations.
    """
    if not (found.pixels <= MAX_PIXELS and found.score <= MAX_SCORE):
        raise ExportDiffers(
            f"the exported file differs from the network by {found.pixels:.3g} pixels and {found.score:.3g} in scores, "
            f"more than {MAX_PIXELS:g} and {MAX_SCORE:g}; it is not written"
        )


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a network, and of its exported file.

    Attributes:
        truth: what both are compared with, in words.
        network, exported: metrics by name, in 0..1.
        max_loss: by which each metric may fall.
    """

    truth: str
    network: Mapping[str, float]
    exported: Mapping[str, float]
    max_loss: float

    def __str__(self) -> str:
        pairs = [f"{name} {self.network[name]:.3f} before, {self.exported[name]:.3f} after" for name in self.network]
        return f"{'; '.join(pairs)} (on {self.truth})"

    def check(self) -> None:
        """
        Raises:
            ExportDiffers: a metric falls by more than `max_loss`.
        """
        for name, before in self.network.items():
            loss = before - self.exported[name]
            if not loss <= self.max_loss:
                raise ExportDiffers(
                    f"{name} falls from {before:.3f} to {self.exported[name]:.3f} on {self.truth}, by more than "
                    f"{self.max_loss:g}; the file is not written"
                )

    def to_text(self) -> str:
        """As JSON, for metadata."""
        rounded = [{name: round(value, 4) for name, value in m.items()} for m in (self.network, self.exported)]
        return json.dumps({"truth": self.truth, "network": rounded[0], "exported": rounded[1]})


@dataclass(frozen=True)
class Speed:
    """Milliseconds for a batch, the least of several rounds that take turns."""

    batch: int
    network: float
    exported: float

    def __str__(self) -> str:
        return f"{self.network / self.exported:.1f} times as fast as PyTorch in float32 on this machine"

    @classmethod
    def measure(cls, network: Network, exported: Network, inputs: Tensor) -> Speed:
        """
        Args:
            inputs: (batch, 3, H, W).
        """
        least = [float("inf")] * 2
        with torch.inference_mode():
            for _ in range(_ROUNDS):
                for index, measured in enumerate((network, exported)):
                    started = time.perf_counter()
                    measured(inputs)
                    least[index] = min(least[index], (time.perf_counter() - started) * 1000)
        return cls(len(inputs), *least)
