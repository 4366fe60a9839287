"""A training run: train, measure, keep. Knows files, not Ray.

OUTPUT/
  train.json            settings
  checkpoint.pt         everything that going on needs; the newest only
  last.safetensors      the averaged weights, half precision
  best.safetensors      those that measured best
  history.jsonl         a line per epoch: loss, learning rate, measurements
  predictions.jpg       what the averaged weights see in images for validation
  tensorboard/          the same for TensorBoard, and the loss of every step
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from pipeline import storage
from pipeline.errors import UserError
from pipeline.report.draw import encode_picture
from pipeline.training.experiment import Experiment
from pipeline.training.loop import Step, Trainer
from pipeline.training.settings import TrainSettings

# What may be another in each start of one run.
_PER_START = {
    "resume", "output", "compute", "workers", "address", "cache", "validation", "validate_every", "checkpoint_every",
}  # fmt: skip


class TrainingRefused(UserError):
    """A run directory that is taken, or that cannot be gone on with; the text says why."""


@dataclass(frozen=True)
class TrainRun:
    """The files of one training run."""

    uri: str
    settings: TrainSettings

    @classmethod
    def start(cls, settings: TrainSettings) -> TrainRun:
        """A new run, or with `resume` one that was begun, if there is one.

        Raises:
            TrainingRefused: there is a run already, or one with other settings.
        """
        run = cls(settings.output, settings)
        if not storage.exists(run.path("train.json")):
            return run
        if not settings.resume:
            raise TrainingRefused(f"{run.uri} holds a training run; --resume goes on with it, or name another --output")
        # What an earlier version did not ask for has its default.
        before = TrainSettings.model_validate_json(storage.read_bytes(run.path("train.json")))
        was, told = _told(before), _told(settings)
        changed = [key for key in told if was.get(key) != told[key]]
        if changed:
            raise TrainingRefused(f"{run.uri} was started with other settings of: {', '.join(changed)}")
        return run

    def begin(self) -> None:
        """Note the settings: from here on it is a run. A start that is refused before leaves nothing behind."""
        if not storage.exists(self.path("train.json")):
            storage.write_bytes(self.path("train.json"), json.dumps(_told(self.settings), indent=2).encode())

    def path(self, name: str) -> str:
        return storage.join(self.uri, name)

    def keep(self, trainer: Trainer) -> None:
        """Write the checkpoint, whole or not at all."""
        sink = io.BytesIO()
        torch.save(trainer.state(), sink)
        storage.write_bytes(self.path("checkpoint.pt"), sink.getvalue())

    def go_on(self, trainer: Trainer) -> bool:
        """Load the checkpoint where there is one."""
        if not storage.exists(self.path("checkpoint.pt")):
            return False
        content = io.BytesIO(storage.read_bytes(self.path("checkpoint.pt")))
        # To the CPU: the optimiser counts its steps there, and a count on a GPU would be waited for at every step.
        trainer.load_state(torch.load(content, map_location="cpu", weights_only=True))
        return True

    def keep_weights(self, name: str, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Averaged weights in half precision, as the annotate job takes them."""
        halved = {k: (t.half() if t.is_floating_point() else t).contiguous().cpu() for k, t in weights.items()}
        storage.write_bytes(self.path(name), safetensors_bytes(halved, metadata))

    def note(self, entry: dict[str, Any]) -> None:
        """Add a line to the history; of an epoch that was made before, the newest line counts."""
        lines = [line for line in self.history() if line["epoch"] < entry["epoch"]]
        text = "\n".join(json.dumps(line) for line in [*lines, entry])
        storage.write_bytes(self.path("history.jsonl"), text.encode())

    def history(self) -> list[dict[str, Any]]:
        path = self.path("history.jsonl")
        return [json.loads(line) for line in storage.read_bytes(path).splitlines()] if storage.exists(path) else []


def _told(settings: TrainSettings) -> dict[str, Any]:
    """The settings that a run keeps to the end."""
    other = {"pose": "detector", "detector": "pose"}[settings.task]
    return settings.model_dump(mode="json", exclude=_PER_START | {other})


def train_run(run: TrainRun, experiment: Experiment, trainer: Trainer, report: Callable[[Step], None]) -> None:
    """Train to the end of the schedule, keeping checkpoints on the way.

    Every process of a run calls this; the one of rank 0 measures and writes.

    Raises:
        TrainingDiverged: the loss is no number; the last checkpoint is whole.
    """
    settings = run.settings
    writes = trainer.rank == 0
    if writes:
        run.begin()
    run.go_on(trainer)
    best = max((line.get("ap", -1.0) for line in run.history()), default=-1.0)
    noted = max((line["epoch"] for line in run.history()), default=0)
    with _board(run, trainer) if writes else contextlib.nullcontext() as board:

        def end_epoch() -> None:
            nonlocal best
            weights = trainer.with_precise_batchnorm()
            if board is not None:
                rate, losses = trainer.learning_rate(trainer.step - 1), trainer.losses
                entry = {"epoch": trainer.epoch, "learning_rate": rate}
                entry |= {"loss": float(np.mean(losses))} if losses else {}
                best = _keep_epoch(run, experiment, trainer, weights, entry, best, board)

        if trainer.epoch > noted:
            # The checkpoint of a whole epoch is there, its line and weights are not: killed in between.
            end_epoch()
        while trainer.epoch < settings.optimisation.epochs:
            for step in trainer.train_epoch():
                report(step)
                if board is not None:
                    board.add_scalar("loss", step.loss, step.step)
                if board is not None and step.step % settings.checkpoint_every == 0:
                    board.flush()
                    run.keep(trainer)
            end_epoch()


def _keep_epoch(
    run: TrainRun,
    experiment: Experiment,
    trainer: Trainer,
    weights: dict[str, Tensor],
    entry: dict[str, Any],
    best: float,
    board: Any,
) -> float:
    """Measure where it is time, and write down the epoch; returns the best average precision so far."""
    settings = run.settings
    metadata = experiment.metadata | _provenance(settings, trainer)
    if settings.validation is not None and (
        trainer.epoch % settings.validate_every == 0 or trainer.epoch == settings.optimisation.epochs
    ):
        measured = experiment.measure(weights)
        entry |= measured.numbers
        storage.write_bytes(run.path("predictions.jpg"), encode_picture(measured.picture))
        board.add_image("predictions", measured.picture, trainer.step, dataformats="HWC")
        metadata |= {"validation_ap": f"{entry['ap']:.4f}"}
        if entry["ap"] > best:
            best = entry["ap"]
            run.keep_weights("best.safetensors", weights, metadata)
    run.keep_weights("last.safetensors", weights, metadata)
    for name, value in entry.items():
        board.add_scalar(name if name == "learning_rate" or "/" in name else f"epoch/{name}", value, trainer.step)
    run.note({key: None if isinstance(value, float) and math.isnan(value) else value for key, value in entry.items()})
    board.flush()
    run.keep(trainer)
    return best


def _provenance(settings: TrainSettings, trainer: Trainer) -> dict[str, str]:
    """What weights were made of, for their file: settings without paths, and how far they came."""
    sets = ", ".join(
        storage.basename(s.annotations) + (f" ({s.source})" if s.source else "") + f" x{s.weight:g}"
        for s in settings.sets
    )
    told = {
        "trained_on": sets,
        "epoch": f"{trainer.epoch} of {settings.optimisation.epochs}",
        "optimisation": json.dumps(settings.model_dump(mode="json")["optimisation"]),
        settings.task: json.dumps(_named(settings.model_dump(mode="json")[settings.task])),
    }
    return told | ({"about": settings.about} if settings.about else {})


def _named(told: Any) -> Any:
    """Settings with files by name alone: where they lay is nobody's business."""
    if isinstance(told, dict):
        return {key: _named(value) for key, value in told.items()}
    if isinstance(told, list):
        return [_named(value) for value in told]
    return storage.basename(told) if isinstance(told, str) else told


@contextlib.contextmanager
def _board(run: TrainRun, trainer: Trainer) -> Iterator[Any]:
    # Imported here: it takes a while, and processes that don't write have no use for it.
    from torch.utils.tensorboard import SummaryWriter

    # What was written after the checkpoint is written again.
    with SummaryWriter(run.path("tensorboard"), purge_step=trainer.step + 1 if trainer.step else None) as writer:
        yield writer
