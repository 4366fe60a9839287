"""What the rest of the package needs to know of a pose network: one spec beside each network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

_HEATMAP_DECODINGS = ("argmax", "integral", "combined", "classic")


def last_output(network: nn.Module, inputs: Tensor) -> Sequence[Tensor]:
    """The network's output as the only one that is trained."""
    return [network(inputs)]


@dataclass(frozen=True)
class PoseSpec:
    """One pose network.

    Attributes:
        build: the network with random weights, from `num_joints` and the options of its class.
        input_size: height and width of its crops, pixels.
        decodings: values of `pose.decode` that fit its output, the default first.
        skeleton_joints: joints of the skeleton by number of outputs, for networks with outputs beyond the joints; the
            joints come first.
        training_outputs: the outputs that the loss is summed over, first to last.
    """

    build: Callable[..., nn.Module]
    input_size: tuple[int, int] = (256, 192)
    decodings: tuple[str, ...] = _HEATMAP_DECODINGS
    skeleton_joints: Mapping[int, int] = field(default_factory=dict)
    training_outputs: Callable[[nn.Module, Tensor], Sequence[Tensor]] = last_output

    def num_skeleton_joints(self, outputs: int) -> int:
        """How many of the outputs are joints of a skeleton."""
        return self.skeleton_joints.get(outputs, outputs)
