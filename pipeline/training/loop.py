"""The training loop: a plain function over people in memory. Knows no Ray, no storage, no settings files.

It runs wherever torch, numpy and OpenCV are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.pose.crop import MEAN_RGB
from pipeline.pose.networks.hourglass import Hourglass
from pipeline.skeletons import Skeleton
from pipeline.training.augment import view_of
from pipeline.training.data import PeopleSet
from pipeline.training.losses import pose_loss
from pipeline.training.options import TrainOptions

_PREFETCH = 4  # batches made ahead of the network
_UPPER_BODY = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist", "face", "hand")


class TrainingDiverged(RuntimeError):
    """The loss is no number; nothing of that step was kept."""


class Batch(NamedTuple):
    """inputs (B, 3, H, W) mean-subtracted RGB, keypoints (B, K, 2) in their pixels, labelled (B, K)."""

    inputs: Tensor
    keypoints: Tensor
    labelled: Tensor


class Step(NamedTuple):
    """Told after every step: of how many, the epoch, the loss, the learning rate, people per second."""

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    speed: float


class Trainer:
    """A network on its way: weights, their average, optimiser and place in the schedule.

    Attributes:
        network: what is trained.
        averaged: its exponential moving average, what is kept in the end.
        step: steps made.
        steps_per_epoch: of this set and batch.
    """

    def __init__(
        self,
        network: nn.Module,
        people: PeopleSet,
        skeleton: Skeleton,
        options: TrainOptions,
        device: torch.device | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if options.batch % world:
            raise ValueError(f"batch is {options.batch}, which {world} processes cannot share evenly")
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.options = options
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.averaged = {key: tensor.detach().clone() for key, tensor in self.network.state_dict().items()}
        self.step = 0
        self.steps_per_epoch = max(1, len(people) // options.batch)
        self._people = people
        self._skeleton = skeleton
        self._upper = np.array([any(part in joint for part in _UPPER_BODY) for joint in skeleton.joints])
        self._teacher = teacher
        self._rank, self._world = rank, world
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        self._optimizer = make(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=options.learning_rate,
        )
        self._mean = torch.from_numpy(MEAN_RGB).view(1, 3, 1, 1).to(self.device)

    @property
    def epoch(self) -> int:
        """Epochs that are whole."""
        return self.step // self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        o = self.options
        epoch = step / self.steps_per_epoch
        if epoch < o.warm_up:
            return o.learning_rate * (step + 1) / (o.warm_up * self.steps_per_epoch + 1)
        if o.schedule == "step":
            return o.learning_rate * 0.1 ** sum(epoch >= o.epochs * at / 270 for at in (170, 200))
        return o.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - o.warm_up) / max(o.epochs - o.warm_up, 1e-9)))

    def train_epoch(self) -> Iterator[Step]:
        """The steps that are left of the current epoch.

        Raises:
            TrainingDiverged: the loss is no number.
        """
        self.network.train()
        last = (self.epoch + 1) * self.steps_per_epoch
        for batch in self._batches(range(self.step, last)):
            started = time.monotonic()
            loss = self._learn(batch)
            self.step += 1
            speed = self.options.batch / max(time.monotonic() - started, 1e-9)
            yield Step(
                self.step, self.options.epochs * self.steps_per_epoch, (self.step - 1) // self.steps_per_epoch, loss,
                self.learning_rate(self.step - 1), speed,
            )  # fmt: skip

    def _learn(self, batch: Batch) -> float:
        o = self.options
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=o.bf16):
            outputs = self._outputs(batch.inputs)
        teacher = None
        if self._teacher is not None:
            with torch.no_grad():
                teacher = self._teacher(batch.inputs)
        loss = pose_loss(
            outputs, batch.keypoints, batch.labelled, o.input_size, o.decode, o.norm, teacher, o.teacher_share
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), o.clip)
        if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
            raise TrainingDiverged(
                f"step {self.step + 1}: the loss is {loss.item()} and its gradient {norm.item()}; the "
                f"checkpoint before it is kept. Lower learning_rate (now {o.learning_rate}) or clip ({o.clip})"
            )
        self._optimizer.step()
        self._average()
        return loss.item()

    def _outputs(self, inputs: Tensor) -> list[Tensor]:
        if isinstance(self.network, Hourglass):
            return self.network.intermediate(inputs)
        return [self.network(inputs)]

    def _average(self) -> None:
        # Early on the average is short, so that it does not drag the first weights along.
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for key, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.averaged[key].lerp_(tensor, 1 - decay)
            else:
                self.averaged[key].copy_(tensor)

    def _batches(self, steps: range) -> Iterator[Batch]:
        """Batches of these steps, made ahead in threads; a step's people and views depend on seed and step alone."""
        with ThreadPoolExecutor(2, "augment") as pool:
            waiting = [pool.submit(self._batch, step) for step in steps[:_PREFETCH]]
            for position in range(len(steps)):
                views = waiting.pop(0).result()
                if position + _PREFETCH < len(steps):
                    waiting.append(pool.submit(self._batch, steps[position + _PREFETCH]))
                yield self._to_device(views)

    def _batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self._rows(step)
        augmentation = self.options.augmentation
        views = [
            view_of(
                self._people.pixels(row), self._people.boxes[row], self._people.keypoints[row],
                self._people.labelled[row], self.options.input_size, self._skeleton.mirror, self._upper, augmentation,
                np.random.default_rng([self.options.seed, step, place]),
            )
            for place, row in rows
        ]  # fmt: skip
        return (
            np.stack([view.pixels for view in views]),
            np.stack([view.keypoints for view in views]),
            np.stack([view.labelled for view in views]),
        )

    def _rows(self, step: int) -> list[tuple[int, int]]:
        """This process's people of a step, with their places in the whole batch."""
        epoch, within = divmod(step, self.steps_per_epoch)
        random = np.random.default_rng([self.options.seed, epoch])
        weights = self._people.weights.astype(np.float64)
        if (weights == weights[0]).all():
            order = random.permutation(len(weights))
        else:
            order = random.choice(len(weights), len(weights), p=weights / weights.sum())
        batch = order[(within * self.options.batch + np.arange(self.options.batch)) % len(order)]
        return [(place, int(row)) for place, row in enumerate(batch) if place % self._world == self._rank]

    def _to_device(self, views: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Batch:
        pixels, keypoints, labelled = (torch.from_numpy(array).to(self.device) for array in views)
        inputs = pixels.permute(0, 3, 1, 2).float() / 255 - self._mean
        return Batch(inputs.contiguous(memory_format=torch.channels_last), keypoints, labelled)

    def state(self) -> dict[str, Any]:
        """Everything that going on later needs."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        for key, tensor in state["averaged"].items():
            self.averaged[key].copy_(tensor)
