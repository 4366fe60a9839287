"""The description of a pose network for the rest of the package; each module of networks has its specs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

HEATMAP_DECODINGS = ("argmax", "integral", "combined", "classic")
# Published networks with COCO's 17 joints and further points after them.
COCO_AND_MORE = {33: 17, 49: 17}


def last_output(network: nn.Module, inputs: Tensor) -> Sequence[Tensor]:
    """The output of the network as the only one that is trained."""
    return [network(inputs)]


@dataclass(frozen=True)
class PoseSpec:
    """One pose network.

    Attributes:
        build: the network with random weights, from `num_joints` and the options of its class.
        input_size: height and width of its crops, pixels.
        decodings: values of `pose.decode` that fit its output, the default first.
        num_outputs: number of outputs, if the architecture fixes it.
        skeleton_joints: joints of the skeleton by number of outputs, if there are outputs beyond the joints; the joints
            come first.
        training_outputs: the outputs that the loss is summed over, first to last.
    """

    build: Callable[..., nn.Module]
    input_size: tuple[int, int] = (256, 192)
    decodings: tuple[str, ...] = HEATMAP_DECODINGS
    num_outputs: int | None = None
    skeleton_joints: Mapping[int, int] = field(default_factory=lambda: COCO_AND_MORE)
    training_outputs: Callable[[nn.Module, Tensor], Sequence[Tensor]] = last_output

    def num_skeleton_joints(self, outputs: int) -> int:
        """The number of joints of a network with `outputs` outputs."""
        return self.skeleton_joints.get(outputs, outputs)
