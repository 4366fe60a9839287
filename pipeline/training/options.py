"""How to train: plain values, without torch, so that a mistake in one is told at once."""

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
    for name, (least, most) in limits.items():
        value = getattr(options, name)
        if not least <= value <= most:
            expected = f"at least {least:g}" if math.isinf(most) else f"{least:g} to {most:g}"
            expected = "more than 0" if least == _TINY else expected
            raise UserError(f"{name} is {value:g}, expected {expected}")


_ANY = math.inf
_SHARE = (0.0, 1.0)
_TINY = 1e-12  # more than nothing


@dataclass(frozen=True)
class Optimisation:
    """How weights are found, whatever is learnt."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    batch: int = described(64, "samples per step, over all processes")
    epochs: int = described(100, "passes; an epoch draws as many samples as there are, by their weights")
    learning_rate: float = described(1e-3, "at its highest, after the warm-up")
    schedule: Literal["cosine", "step"] = described("cosine", "down to 0, or by tenths at 170/270 and 200/270")
    warm_up: float = described(1.0, "epochs during which the learning rate rises")
    optimizer: Literal["adam", "adamw"] = described("adamw", "which")
    weight_decay: float = described(0.01, "of convolutions and matrices")
    ema: float = described(0.998, "decay of the averaged weights per step; 0 keeps none")
    clip: float = described(1.0, "largest norm of the gradient")
    seed: int = described(0, "of the draws and the augmentation")
    bf16: bool = described(True, "compute in bf16 where the loss allows and the machine has it")

    def __post_init__(self) -> None:
        _check(self, batch=(1, _ANY), epochs=(1, _ANY), learning_rate=(_TINY, _ANY), clip=(_TINY, _ANY))
        _check(self, warm_up=(0, _ANY), weight_decay=(0, _ANY), ema=(0, 1 - 1e-9), seed=(0, _ANY))


@dataclass(frozen=True)
class PoseAugmentation:
    """How much a person's view may differ from the plain crop; zeros leave it plain."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    flip: float = described(0.5, "probability of a mirror image")
    rotation: float = described(45.0, "largest rotation, degrees; half of it is the standard deviation")
    rotate: float = described(0.6, "probability of a rotation")
    scale: float = described(0.35, "crops show 1 - scale to 1 + scale times the usual")
    half_body: float = described(0.3, "probability that only the upper or the lower body is shown")
    half_body_joints: int = described(8, "labelled joints that this needs")
    jitter: float = described(0.1, "edges of the box move by up to so much of its size, as a detector's would")
    colour: float = described(0.3, "brightness and contrast change by up to so much")
    occlusion: float = described(0.3, "probability of a rectangle over a part")

    def __post_init__(self) -> None:
        _check(self, flip=_SHARE, rotate=_SHARE, half_body=_SHARE, occlusion=_SHARE, rotation=(0, 180))
        _check(self, scale=(0, 0.9), jitter=(0, 0.45), colour=_SHARE, half_body_joints=(0, _ANY))


@dataclass(frozen=True)
class BoxAugmentation:
    """How much a detector's view may differ from the letterboxed image; zeros leave it plain."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    flip: float = described(0.5, "probability of a mirror image")
    mosaic: float = described(0.7, "probability of four images in one")
    scale: float = described(0.5, "images are shown 1 - scale to 1 + scale times as large")
    shift: float = described(0.2, "images are moved by up to so much of the input's side")
    colour: float = described(0.3, "brightness and contrast change by up to so much")

    def __post_init__(self) -> None:
        _check(self, flip=_SHARE, mosaic=_SHARE, scale=(0, 0.9), shift=_SHARE, colour=_SHARE)


NO_POSE_AUGMENTATION = PoseAugmentation(
    flip=0, rotation=0, rotate=0, scale=0, half_body=0, jitter=0, colour=0, occlusion=0
)
NO_BOX_AUGMENTATION = BoxAugmentation(flip=0, mosaic=0, scale=0, shift=0, colour=0)
