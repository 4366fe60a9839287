"""Options of training as plain values. Imports no torch, so that a wrong value is reported at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pipeline.errors import UserError
from pipeline.settings.fields import described


def _check(options: Any, **limits: tuple[float, float]) -> None:
    """
    Raises:
        UserError: a field lies outside its limits.
    """
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if not low <= value <= high:
            expected = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
            expected = "more than 0" if low == _TINY else expected
            raise UserError(f"{name} is {value:g}, expected {expected}")


_ANY = math.inf
_SHARE = (0.0, 1.0)
_TINY = 1e-12  # stands for an exclusive limit of 0


@dataclass(frozen=True)
class Optimisation:
    """The optimiser and its schedule, the same for both tasks."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    batch: int = described(64, "samples per step, over all processes")
    epochs: int = described(100, "epochs; each draws as many samples as the sets have, by their weights")
    learning_rate: float = described(1e-3, "peak learning rate, after the warm-up")
    layer_decay: float = described(
        1.0, "learning rate of a layer relative to that of the next one; below 1, early layers keep what they know"
    )
    schedule: Literal["cosine", "step"] = described(
        "cosine", "cosine: down to 0; step: times 0.1 at 170/270 and at 200/270 of the epochs"
    )
    warm_up: float = described(1.0, "epochs during which the learning rate rises")
    optimizer: Literal["adam", "adamw"] = described("adamw", "optimiser")
    weight_decay: float = described(0.01, "weight decay of convolutions and matrices; biases and BatchNorm have none")
    ema: float = described(0.998, "decay per step of the weights' moving average; 0: no average")
    clip: float = described(1.0, "maximum norm of the gradient")
    seed: int = described(0, "seed of the random weights, the draws and the augmentation")
    bf16: bool = described(True, "compute in bf16 if the machine has instructions for it")

    def __post_init__(self) -> None:
        _check(self, batch=(1, _ANY), epochs=(1, _ANY), learning_rate=(_TINY, _ANY), clip=(_TINY, _ANY))
        _check(self, layer_decay=(_TINY, 1))
        _check(self, warm_up=(0, _ANY), weight_decay=(0, _ANY), ema=(0, 1 - 1e-9), seed=(0, _ANY))


@dataclass(frozen=True)
class PoseAugmentation:
    """How much a person's crop may differ from the one at inference; with zeros it does not."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    flip: float = described(0.5, "probability of mirroring")
    rotation: float = described(45.0, "maximum rotation, degrees; its standard deviation is half of it")
    rotate: float = described(0.6, "probability of a rotation")
    scale: float = described(0.35, "crops cover 1 - scale to 1 + scale times the usual size")
    half_body: float = described(0.3, "probability that only the upper or the lower body is shown")
    half_body_joints: int = described(8, "minimum of labelled joints for half_body")
    jitter: float = described(0.1, "edges of the box move by up to this share of its size, like a detector's")
    colour: float = described(0.3, "maximum relative change of brightness and contrast")
    occlusion: float = described(0.3, "probability of a rectangle that hides a part")

    def __post_init__(self) -> None:
        _check(self, flip=_SHARE, rotate=_SHARE, half_body=_SHARE, occlusion=_SHARE, rotation=(0, 180))
        _check(self, scale=(0, 0.9), jitter=(0, 0.45), colour=_SHARE, half_body_joints=(0, _ANY))


@dataclass(frozen=True)
class BoxAugmentation:
    """How much a training image may differ from the letterboxed image; with zeros it does not."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    flip: float = described(0.5, "probability of mirroring")
    mosaic: float = described(0.7, "probability of a mosaic of four images")
    scale: float = described(0.5, "images are scaled by 1 - scale to 1 + scale")
    shift: float = described(0.2, "images are shifted by up to this share of the input's side")
    colour: float = described(0.3, "maximum relative change of brightness and contrast")

    def __post_init__(self) -> None:
        _check(self, flip=_SHARE, mosaic=_SHARE, scale=(0, 0.9), shift=_SHARE, colour=_SHARE)


NO_POSE_AUGMENTATION = PoseAugmentation(
    flip=0, rotation=0, rotate=0, scale=0, half_body=0, jitter=0, colour=0, occlusion=0
)
NO_BOX_AUGMENTATION = BoxAugmentation(flip=0, mosaic=0, scale=0, shift=0, colour=0)
