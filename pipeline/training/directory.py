"""The directory of a training run, and the run itself: train, validate, write. Does not depend on Ray.

OUTPUT/
  train.json            settings
  checkpoint.pt         everything that is needed to resume; the newest only
  last.safetensors      the averaged weights after the last epoch, half precision
  best.safetensors      the averaged weights with the highest validation AP
  history.jsonl         one line per epoch: loss, learning rate, validation metrics
  predictions.jpg       predictions of the averaged weights on validation images
  tensorboard/          the same for TensorBoard, and the loss of every step
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from pipeline import storage
from pipeline.coco.annotations import load_annotations
from pipeline.errors import UserError
from pipeline.jpeg import encode_jpeg
from pipeline.training.distributed import in_any_process
from pipeline.training.experiment import Experiment
from pipeline.training.loop import Step, Trainer
from pipeline.training.settings import TrainSettings
from pipeline.weights.metadata import TRAINING_IMAGES, encode_training_images, image_digest, training_images

# Settings that may change when a run is resumed.
_CHANGEABLE = {
    "resume", "output", "compute", "workers", "address", "cache", "validation", "validate_every", "patience",
    "checkpoint_every",
}  # fmt: skip


class TrainingRefused(UserError):
    """The output directory holds another run, or one that cannot be resumed with these settings."""


@dataclass(frozen=True)
class TrainRun:
    """The files of one training run."""

    uri: str
    settings: TrainSettings

    @classmethod
    def start(cls, settings: TrainSettings) -> TrainRun:
        """A new run; with `resume`, the run in the output directory if it exists. Writes nothing.

        Raises:
            TrainingRefused: a run exists and `resume` is false, or it has other settings.
        """
        run = cls(settings.output, settings)
        if not storage.exists(run.path("train.json")):
            return run
        if not settings.resume:
            raise TrainingRefused(f"--output {run.uri} holds a training run; add --resume, or name another directory")
        try:
            # Settings that an earlier version did not have get their defaults.
            previous = TrainSettings.model_validate_json(storage.read_bytes(run.path("train.json")))
        except ValidationError as error:
            raise TrainingRefused(
                f"{run.path('train.json')} does not fit this version ({error.error_count()} settings); train with the "
                "version that wrote it, or name another --output"
            ) from None
        before, now = _fixed(previous), _fixed(settings)
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            raise TrainingRefused(
                f"--output {run.uri} was started with other settings of {', '.join(changed)}; use the same ones, or "
                "name another directory"
            )
        return run

    def write_settings(self) -> None:
        """Write train.json if it is missing. Called once training starts: refused settings leave no files."""
        if not storage.exists(self.path("train.json")):
            storage.write_bytes(self.path("train.json"), json.dumps(_fixed(self.settings), indent=2).encode())

    def path(self, name: str) -> str:
        return storage.join(self.uri, name)

    def save_checkpoint(self, trainer: Trainer) -> None:
        """Write the checkpoint atomically."""
        sink = io.BytesIO()
        torch.save(trainer.state(), sink)
        storage.write_bytes(self.path("checkpoint.pt"), sink.getvalue())

    def load_checkpoint(self, trainer: Trainer) -> bool:
        """Resume from the checkpoint; False if there is none."""
        if not storage.exists(self.path("checkpoint.pt")):
            return False
        content = io.BytesIO(storage.read_bytes(self.path("checkpoint.pt")))
        # To the CPU: the optimiser keeps its step count there; a count on the GPU would block every step.
        trainer.load_state(torch.load(content, map_location="cpu", weights_only=True))
        return True

    def save_weights(self, name: str, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Write a state dict in half precision, for the annotate job."""
        halved = {k: (t.half() if t.is_floating_point() else t).contiguous().cpu() for k, t in weights.items()}
        storage.write_bytes(self.path(name), safetensors_bytes(halved, metadata))

    def append_history(self, entry: dict[str, Any]) -> None:
        """Append an epoch to the history; its earlier line, and those of later epochs, are dropped."""
        lines = [line for line in self.history() if line["epoch"] < entry["epoch"]]
        text = "\n".join(json.dumps(line) for line in [*lines, entry])
        storage.write_bytes(self.path("history.jsonl"), text.encode())

    def has_stalled(self) -> bool:
        """Whether as many validations as `patience` have not exceeded the best AP before them."""
        patience = self.settings.patience
        return patience is not None and _validations_since_best(self.history()) >= patience

    def history(self) -> list[dict[str, Any]]:
        """The lines of history.jsonl, first epoch first; empty before the first."""
        path = self.path("history.jsonl")
        return [json.loads(line) for line in storage.read_bytes(path).splitlines()] if storage.exists(path) else []


def _validations_since_best(history: Sequence[Mapping[str, Any]]) -> int:
    aps = [line["ap"] for line in history if line.get("ap") is not None]
    return len(aps) - 1 - aps.index(max(aps)) if aps else 0


def _fixed(settings: TrainSettings) -> dict[str, Any]:
    """The settings that must stay the same when a run is resumed."""
    other = {"pose": "detector", "detector": "pose"}[settings.task]
    return settings.model_dump(mode="json", exclude=_CHANGEABLE | {other})


def train_run(run: TrainRun, experiment: Experiment, trainer: Trainer, report: Callable[[Step], None]) -> None:
    """Train to the end of the schedule, or until validations bring nothing any more, with checkpoints.

    Every process of a run calls this; the process of rank 0 validates and writes.

    Args:
        report: called after every step.

    Raises:
        TrainingDiverged: the loss is not finite; the last checkpoint is intact.
    """
    settings = run.settings
    writes = trainer.rank == 0
    if writes:
        run.write_settings()
    run.load_checkpoint(trainer)
    metadata = experiment.metadata | ({TRAINING_IMAGES: _training_images(settings)} if writes else {})
    best = max((line["ap"] for line in run.history() if line.get("ap") is not None), default=-1.0)
    written = max((line["epoch"] for line in run.history()), default=0)
    with _tensorboard(run, trainer) if writes else contextlib.nullcontext() as board:

        def end_epoch() -> None:
            nonlocal best
            weights = trainer.with_precise_batchnorm()  # in all processes
            if board is not None:
                rate, losses = trainer.learning_rate(trainer.step - 1), trainer.losses
                entry = {"epoch": trainer.epoch, "learning_rate": rate}
                entry |= {"loss": float(np.mean(losses))} if losses else {}
                best = _end_epoch(run, experiment, trainer, weights, metadata, entry, best, board)

        if trainer.epoch > written:
            # The run was killed after the last checkpoint of the epoch and before its history line and weights.
            end_epoch()
        while trainer.epoch < settings.optimisation.epochs and not in_any_process(
            writes and run.has_stalled(), trainer.device
        ):
            for step in trainer.train_epoch():
                report(step)
                if board is not None:
                    board.add_scalar("loss", step.loss, step.step)
                if board is not None and step.step % settings.checkpoint_every == 0:
                    board.flush()
                    run.save_checkpoint(trainer)
            end_epoch()


def _end_epoch(
    run: TrainRun,
    experiment: Experiment,
    trainer: Trainer,
    weights: dict[str, Tensor],
    metadata: dict[str, str],
    entry: dict[str, Any],
    best: float,
    board: Any,
) -> float:
    """Validate if it is due, and write the files of the epoch; returns the highest validation AP so far."""
    settings = run.settings
    metadata = metadata | _provenance(settings, trainer)
    if settings.validation is not None and (
        trainer.epoch % settings.validate_every == 0 or trainer.epoch == settings.optimisation.epochs
    ):
        result = experiment.validate(weights)
        entry |= result.metrics
        storage.write_bytes(run.path("predictions.jpg"), encode_jpeg(result.picture))
        board.add_image("predictions", result.picture, trainer.step, dataformats="HWC")
        metadata |= {"validation_ap": f"{entry['ap']:.4f}"}
        if entry["ap"] > best:
            best = entry["ap"]
            run.save_weights("best.safetensors", weights, metadata)
    run.save_weights("last.safetensors", weights, metadata)
    for name, value in entry.items():
        board.add_scalar(name if name == "learning_rate" or "/" in name else f"epoch/{name}", value, trainer.step)
    run.append_history(
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in entry.items()}
    )
    board.flush()
    run.save_checkpoint(trainer)
    return best


def _training_images(settings: TrainSettings) -> str:
    """The images of the sets, and those that the initial weights were trained on, for the metadata of weights."""
    names = (
        image["file_name"]
        for annotated in settings.sets
        for image in load_annotations(annotated.annotations)["images"]
        if annotated.source in (None, image.get("source"))
    )
    initial = settings.pose.weights if settings.task == "pose" else settings.detector.weights
    return encode_training_images({*map(image_digest, names), *training_images([initial] if initial else []).digests})


def _provenance(settings: TrainSettings, trainer: Trainer) -> dict[str, str]:
    """Metadata of a weights file: sets and settings without paths, and the epoch."""
    sets = ", ".join(
        storage.basename(s.annotations) + (f" ({s.source})" if s.source else "") + f" x{s.weight:g}"
        for s in settings.sets
    )
    provenance = {
        "trained_on": sets,
        "epoch": f"{trainer.epoch} of {settings.optimisation.epochs}",
        "optimisation": json.dumps(settings.model_dump(mode="json")["optimisation"]),
        settings.task: json.dumps(_without_folders(settings.model_dump(mode="json")[settings.task])),
    }
    return provenance | ({"about": settings.about} if settings.about else {})


def _without_folders(settings: Any) -> Any:
    """Settings with the names of files only: weights are published, and folders may be private."""
    if isinstance(settings, dict):
        return {key: _without_folders(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_folders(value) for value in settings]
    return storage.basename(settings) if isinstance(settings, str) else settings


@contextlib.contextmanager
def _tensorboard(run: TrainRun, trainer: Trainer) -> Iterator[Any]:
    # Imported here: the import is slow, and only rank 0 needs it.
    from torch.utils.tensorboard import SummaryWriter

    # Events after the checkpoint are dropped: their steps are trained again.
    with SummaryWriter(run.path("tensorboard"), purge_step=trainer.step + 1 if trainer.step else None) as writer:
        yield writer
