"""Train a pose network or a person detector on COCO-format annotations.

examples:
  uv run jobs/train.py --config configs/train/NAME.yaml
  uv run jobs/train.py --config configs/train/NAME.yaml --resume       resume an interrupted run
  uv run jobs/train.py --config configs/train/NAME.yaml --workers 8    on the GPUs of a Ray cluster or of this machine

exit code: 0 trained, 1 failed, 2 wrong settings or training sets, or the directory of another run
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.process.end import end_process
from pipeline.process.progress_line import ProgressLine, duration
from pipeline.settings.flags import parse_settings
from pipeline.training.settings import TrainSettings

if TYPE_CHECKING:
    from pipeline.training.directory import TrainRun


def main(argv: Sequence[str]) -> int:
    settings = parse_settings(argv, __doc__ or "", kind=TrainSettings).with_absolute_paths()
    # Imported here: a wrong flag is reported before torch, which takes seconds, is loaded.
    from pipeline.training.directory import TrainRun
    from pipeline.training.loop import TrainingDiverged

    try:
        run = TrainRun.start(settings)
        if settings.workers > 1:
            _train_on_ray(run)
        else:
            _train_here(run)
    except (UserError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        wrong_input = isinstance(error, UserError | FileNotFoundError | PermissionError)
        return 2 if wrong_input and not isinstance(error, TrainingDiverged) else 1
    history = run.history()
    if not history:
        print(
            f"train: --output {settings.output} has no results; it must be a directory that all machines can reach",
            file=sys.stderr,
        )
        return 1
    print(_format(history[-1]))
    print(f"weights: {run.path('last.safetensors')}")
    return 0


def _train_here(run: TrainRun) -> None:
    from pipeline.runtime.device import Compute
    from pipeline.training.build import build_experiment
    from pipeline.training.directory import train_run
    from pipeline.training.loop import Step, Trainer

    settings = run.settings
    device = Compute.resolve(settings.compute.device).device
    experiment = build_experiment(settings, device)
    trainer = Trainer(experiment.network, experiment.task, settings.optimisation, device)
    print(f"{experiment}, {trainer.steps_per_epoch} steps per epoch, on {device}", flush=True)
    with ProgressLine("training") as progress:
        first: tuple[int, float] | None = None  # step and time of the first report: a resumed run starts later

        def report(step: Step) -> None:
            nonlocal first
            now = time.monotonic()
            first = first or (step.step, now)
            rate = (step.step - first[0]) / max(now - first[1], 1e-9)
            left = duration((step.steps - step.step) / rate) if rate else "?"
            parts = [
                f"epoch {step.epoch + 1}, {step.step}/{step.steps} steps",
                f"{left} left",
                f"loss {step.loss:.6f}",
                f"{step.speed:.0f} samples/s",
            ]
            progress.update(step.step, step.steps, parts)

        train_run(run, experiment, trainer, report)


def _train_on_ray(run: TrainRun) -> None:
    from pipeline.training.ray_train import train_on_ray

    print(f"{run.settings.workers} workers", flush=True)
    train_on_ray(run, lambda line: print(_format(line), flush=True))


def _format(line: dict[str, Any]) -> str:
    shown = {"loss": ".6f", "ap": ".3f", "ap50": ".3f", "pck_body": ".3f"}
    numbers = [f"{name} {line[name]:{form}}" for name, form in shown.items() if line.get(name) is not None]
    return f"epoch {line['epoch']}: {'  '.join(numbers)}"


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
