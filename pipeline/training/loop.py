"""The training loop over samples in memory, for any `Task`: a pose network's or a detector's.

It does not depend on Ray, storage or settings files, and needs only torch, numpy and OpenCV.
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
from pipeline.training.distributed import with_synchronised_batchnorm
from pipeline.training.options import Optimisation

_AUGMENTERS = max(2, min(8, (os.cpu_count() or 2) // 2))  # threads; other processes need cores too
_PREFETCH = 2 * _AUGMENTERS  # batches prepared ahead
_BATCHNORM_BATCHES = 20  # for the precise statistics of BatchNorm


class TrainingDiverged(UserError):
    """The loss or its gradient is not finite; the weights are those before the step."""


class Task(Protocol):
    """The samples that a network is trained on, and its loss.

    Attributes:
        weights: (N,) how often each sample is drawn, relative to the others.
    """

    weights: np.ndarray

    def views(self, rows: Sequence[int], randoms: Sequence[np.random.Generator]) -> tuple[np.ndarray, ...]:
        """Random views of these samples, stacked, as `loss` takes them. Called from several threads.

        Args:
            randoms: one generator per sample.
        """
        ...

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], bf16: bool) -> Tensor:
        """The loss of the network on these views; its mean over processes is the loss of the whole batch."""
        ...


class Step(NamedTuple):
    """The state after a step.

    Attributes:
        step: steps so far.
        steps: steps of the whole run.
        epoch: of the step, from 0.
        loss: of the whole batch.
        learning_rate: of the step.
        speed: samples per second.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    speed: float


class Trainer:
    """A network in training: weights, their moving average, the optimiser and the position in the schedule.

    With several processes, each one gets a share of every batch. Gradients, losses and BatchNorm statistics are those
    of the whole batch, so the number of processes changes the speed only.

    Attributes:
        network: the network.
        averaged: the exponential moving average of its state dict.
        step: completed steps.
        losses: of the steps of the current or just completed epoch.
        steps_per_epoch: number of steps.
        rank: of this process; rank 0 writes the files.
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
        """
        Args:
            world: number of processes. If more than 1, torch.distributed's process group must exist.

        Raises:
            UserError: the batch cannot be shared evenly.
        """
        if options.batch % world:
            raise UserError(f"--optimisation.batch {options.batch} cannot be shared evenly by {world} processes")
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
        self._bf16 = options.bf16 and computes_in_bf16(self.device)
        self._loss_module: nn.Module = _LossModule(self.network, task, self._bf16)
        if world > 1:
            with_synchronised_batchnorm(self.network)
            self._loss_module = DistributedDataParallel(self._loss_module)
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
        self._optimizer = optimizer(parameter_groups(network, options), lr=options.learning_rate)

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.step // self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        o = self.options
        epoch = step / self.steps_per_epoch
        if epoch < o.warm_up:
            return o.learning_rate * (step + 1) / (o.warm_up * self.steps_per_epoch + 1)
        if o.schedule == "step":
            return o.learning_rate * 0.1 ** sum(epoch >= o.epochs * at / 270 for at in (170, 200))
        return o.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - o.warm_up) / max(o.epochs - o.warm_up, 1e-9)))

    def train_epoch(self) -> Iterator[Step]:
        """Run the remaining steps of the current epoch.

        Raises:
            TrainingDiverged: the loss or its gradient is not finite.
        """
        self.network.train()
        last = (self.epoch + 1) * self.steps_per_epoch
        started = time.monotonic()
        for views in self._batches(range(self.step, last)):
            loss = self._train_step(views)
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

    def _train_step(self, views: tuple[Tensor, ...]) -> float:
        o = self.options
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step) * group.get("scale", 1.0)  # missing in earlier checkpoints
        loss = self._loss_module(*views)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), o.clip)
        mean_loss = self._mean(loss.detach()).item()
        if not math.isfinite(mean_loss) or not math.isfinite(norm.item()):
            raise TrainingDiverged(
                f"step {self.step + 1}: the loss is {mean_loss} and the norm of its gradient {norm.item()}; lower "
                f"--optimisation.learning_rate (now {o.learning_rate}) or --optimisation.clip (now {o.clip}) in a new "
                "run; the last checkpoint is intact"
            )
        self._optimizer.step()
        self._average()
        return mean_loss

    def _mean(self, loss: Tensor) -> Tensor:
        if self._world > 1:
            torch.distributed.all_reduce(loss)
        return loss / self._world

    def _average(self) -> None:
        # A short average at the start: the first weights are random and must not stay in it.
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for key, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.averaged[key].lerp_(tensor, 1 - decay)
            else:
                self.averaged[key].copy_(tensor)

    def with_precise_batchnorm(self) -> dict[str, Tensor]:
        """The averaged weights with precise BatchNorm statistics, measured on the next views: the weights to store.

        Running statistics lag behind the weights and are wrong in a short run (Wu and Johnson, Rethinking "Batch" in
        BatchNorm, 2021). With several processes, all of them must call this.
        """
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.averaged)
        network.train()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over all batches
        with torch.no_grad():
            for views in self._batches(range(self.step, self.step + min(_BATCHNORM_BATCHES, self.steps_per_epoch))):
                self._task.loss(network, views, self._bf16)
        return network.state_dict()

    def _batches(self, steps: range) -> Iterator[tuple[Tensor, ...]]:
        """Batches of these steps, prepared ahead in threads. A batch depends on the seed and its step only."""
        with ThreadPoolExecutor(_AUGMENTERS, "augment") as pool:
            pending = [pool.submit(self._batch, step) for step in steps[:_PREFETCH]]
            for position in range(len(steps)):
                views = pending.pop(0).result()
                if position + _PREFETCH < len(steps):
                    pending.append(pool.submit(self._batch, steps[position + _PREFETCH]))
                yield tuple(torch.from_numpy(array).to(self.device) for array in views)

    def _batch(self, step: int) -> tuple[np.ndarray, ...]:
        positions, rows = self._rows(step)
        seeds = [[self.options.seed, step, position] for position in positions]
        return self._task.views(rows, [np.random.default_rng(seed) for seed in seeds])

    def _rows(self, step: int) -> tuple[list[int], list[int]]:
        """The samples of this process in a step: their positions in the whole batch, and their rows in the task."""
        epoch, within = divmod(step, self.steps_per_epoch)
        random = np.random.default_rng([self.options.seed, epoch])
        weights = self._task.weights.astype(np.float64)
        if (weights == weights[0]).all():
            order = random.permutation(len(weights))
        else:
            order = random.choice(len(weights), len(weights), p=weights / weights.sum())
        batch = order[(within * self.options.batch + np.arange(self.options.batch)) % len(order)]
        positions = range(self.rank, len(batch), self._world)
        return list(positions), [int(batch[position]) for position in positions]

    def state(self) -> dict[str, Any]:
        """Everything that is needed to resume."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "losses": self.losses,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a state that `state` returned."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.losses = list(state.get("losses", []))  # missing in checkpoints of earlier versions
        for key, tensor in state["averaged"].items():
            self.averaged[key].copy_(tensor)


def parameter_groups(network: nn.Module, options: Optimisation) -> list[dict[str, Any]]:
    """The parameters by weight decay and learning rate, for an optimiser.

    The rate of a layer is the learning rate times `layer_decay` to the power of the number of layers after it (as in
    Howard and Ruder, ULMFiT, ACL 2018, with a factor per layer). A layer is a convolution or a matrix with what
    follows it, such as BatchNorm; layers are counted in the order in which the network defines them.

    Returns:
        Dicts with `params`, `weight_decay`, and `scale`: the learning rate relative to the schedule's.
    """
    layer = 0
    layers: dict[nn.Parameter, int] = {}
    for module in network.modules():
        own = [p for p in module.parameters(recurse=False) if p not in layers]
        layer += any(p.ndim > 1 for p in own)
        layers |= dict.fromkeys(own, layer)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for is_decayed in (True, False):
        for parameter in network.parameters():
            if (parameter.ndim > 1) == is_decayed:
                scale = options.layer_decay ** (layer - layers[parameter])
                groups.setdefault((is_decayed, scale), []).append(parameter)
    return [
        {"params": params, "weight_decay": options.weight_decay if is_decayed else 0.0, "scale": scale}
        for (is_decayed, scale), params in groups.items()
    ]


class _LossModule(nn.Module):
    """The network and its loss as one module: DistributedDataParallel synchronises what runs in its forward pass."""

    def __init__(self, network: nn.Module, task: Task, bf16: bool) -> None:
        super().__init__()
        self.network = network
        self._task = task
        self._bf16 = bf16

    def forward(self, *views: Tensor) -> Tensor:
        return self._task.loss(self.network, views, self._bf16)
