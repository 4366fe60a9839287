"""The training loop: a plain function over samples in memory. Knows no Ray, no storage, no settings files.

It runs wherever torch, numpy and OpenCV are. What is learnt is a `Task`: a pose network's, or a detector's.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import UserError
from pipeline.runtime.device import computes_in_bf16
from pipeline.training.depthwise import with_fast_gradients
from pipeline.training.distributed import with_shared_statistics
from pipeline.training.options import Optimisation

_AUGMENTERS = max(2, min(8, (os.cpu_count() or 2) // 2))  # threads; those of other processes need cores, too
_PREFETCH = 2 * _AUGMENTERS  # batches made ahead of the network
_SETTLING = 20  # batches that BatchNorm's final statistics are measured on


class TrainingDiverged(UserError):
    """The loss is no number; nothing of that step was kept."""


class Task(Protocol):
    """What a network is shown, and how wrong it is.

    Attributes:
        weights: (N,) how often each sample is drawn, relative to others.
    """

    weights: np.ndarray

    def views(self, rows: Sequence[int], randoms: Sequence[np.random.Generator]) -> tuple[np.ndarray, ...]:
        """Random views of these samples, stacked: what `loss` takes. Called from threads."""
        ...

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], bf16: bool) -> Tensor:
        """How wrong the network is, a mean over the views of all processes."""
        ...


class Step(NamedTuple):
    """Told after every step: of how many, the epoch, the loss, the learning rate, samples per second."""

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    speed: float


class Trainer:
    """A network on its way: weights, their average, optimiser and place in the schedule.

    With several processes each has its share of every batch; gradients, losses and BatchNorm's statistics are those of
    the whole batch, so that how many there are changes nothing but the speed.

    Attributes:
        network: what is trained.
        averaged: its exponential moving average.
        step: steps made.
        losses: of the steps of the epoch that was last worked at.
        steps_per_epoch: of this task and batch.
        rank: of this process; 0 writes.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        options: Optimisation,
        device: torch.device | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Where `world` is more than 1, torch.distributed's process group is set up already.

        Raises:
            UserError: a batch that the processes cannot share evenly.
        """
        if options.batch % world:
            raise UserError(f"batch is {options.batch}, which {world} processes cannot share evenly")
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.options = options
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            with_fast_gradients(self.network)
        self.averaged = {key: tensor.detach().clone() for key, tensor in self.network.state_dict().items()}
        self.step = 0
        self.losses: list[float] = []
        self.steps_per_epoch = max(1, len(task.weights) // options.batch)
        self.rank = rank
        self._world = world
        self._task = task
        self._learner: nn.Module = _Learner(self.network, task, options.bf16 and computes_in_bf16(self.device))
        if world > 1:
            with_shared_statistics(self.network)
            self._learner = DistributedDataParallel(self._learner)
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        self._optimizer = make(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=options.learning_rate,
        )

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
        started = time.monotonic()
        for views in self._batches(range(self.step, last)):
            loss = self._learn(views)
            if self.step % self.steps_per_epoch == 0:
                self.losses = []
            self.losses.append(loss)
            self.step += 1
            speed = self.options.batch / max(time.monotonic() - started, 1e-9)
            yield Step(
                self.step, self.options.epochs * self.steps_per_epoch, (self.step - 1) // self.steps_per_epoch, loss,
                self.learning_rate(self.step - 1), speed,
            )  # fmt: skip
            started = time.monotonic()

    def _learn(self, views: tuple[Tensor, ...]) -> float:
        o = self.options
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        loss = self._learner(*views)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), o.clip)
        told = self._mean(loss.detach()).item()
        if not math.isfinite(told) or not math.isfinite(norm.item()):
            raise TrainingDiverged(
                f"step {self.step + 1}: the loss is {told} and its gradient {norm.item()}; the "
                f"checkpoint before it is kept. Lower learning_rate (now {o.learning_rate}) or clip ({o.clip})"
            )
        self._optimizer.step()
        self._average()
        return told

    def _mean(self, loss: Tensor) -> Tensor:
        if self._world > 1:
            torch.distributed.all_reduce(loss)
        return loss / self._world

    def _average(self) -> None:
        # Early on the average is short, so that it does not drag the first weights along.
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for key, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.averaged[key].lerp_(tensor, 1 - decay)
            else:
                self.averaged[key].copy_(tensor)

    def with_precise_batchnorm(self) -> dict[str, Tensor]:
        """The averaged weights, with BatchNorm's statistics measured on coming views: what is kept in the end.

        Statistics that were averaged on the way lag behind the weights, and are far off in a short run (Wu and Johnson,
        Rethinking "Batch" in BatchNorm, 2021). With several processes all of them have to call this.
        """
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.averaged)
        network.train()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean of what is seen from here on
        with torch.no_grad():
            for views in self._batches(range(self.step, self.step + min(_SETTLING, self.steps_per_epoch))):
                self._task.loss(network, views, self.options.bf16)
        return network.state_dict()

    def _batches(self, steps: range) -> Iterator[tuple[Tensor, ...]]:
        """Batches of these steps, made ahead in threads; a step's samples and views depend on seed and step alone."""
        with ThreadPoolExecutor(_AUGMENTERS, "augment") as pool:
            waiting = [pool.submit(self._batch, step) for step in steps[:_PREFETCH]]
            for position in range(len(steps)):
                views = waiting.pop(0).result()
                if position + _PREFETCH < len(steps):
                    waiting.append(pool.submit(self._batch, steps[position + _PREFETCH]))
                yield tuple(torch.from_numpy(array).to(self.device) for array in views)

    def _batch(self, step: int) -> tuple[np.ndarray, ...]:
        places, rows = self._rows(step)
        return self._task.views(rows, [np.random.default_rng([self.options.seed, step, place]) for place in places])

    def _rows(self, step: int) -> tuple[list[int], list[int]]:
        """This process's samples of a step: their places in the whole batch, and which they are."""
        epoch, within = divmod(step, self.steps_per_epoch)
        random = np.random.default_rng([self.options.seed, epoch])
        weights = self._task.weights.astype(np.float64)
        if (weights == weights[0]).all():
            order = random.permutation(len(weights))
        else:
            order = random.choice(len(weights), len(weights), p=weights / weights.sum())
        batch = order[(within * self.options.batch + np.arange(self.options.batch)) % len(order)]
        places = range(self.rank, len(batch), self._world)
        return list(places), [int(batch[place]) for place in places]

    def state(self) -> dict[str, Any]:
        """Everything that going on later needs."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "losses": self.losses,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.losses = list(state.get("losses", []))  # earlier versions kept none
        for key, tensor in state["averaged"].items():
            self.averaged[key].copy_(tensor)


class _Learner(nn.Module):
    """From views to loss in one module, so that torch sees all that is learnt pass through it."""

    def __init__(self, network: nn.Module, task: Task, bf16: bool) -> None:
        super().__init__()
        self.network = network
        self._task = task
        self._bf16 = bf16

    def forward(self, *views: Tensor) -> Tensor:
        return self._task.loss(self.network, views, self._bf16)
