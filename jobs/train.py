"""Train a pose network on COCO-format annotations.

uv run jobs/train.py --config configs/train/NAME.yaml
uv run jobs/train.py --config configs/train/NAME.yaml --resume     # after anything that ended it
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.flags import parse_settings
from pipeline.training.settings import TrainSettings


def main(argv: Sequence[str]) -> int:
    settings = parse_settings(argv, __doc__ or "", kind=TrainSettings)
    # Imported here: a mistake in a flag is told before torch is loaded.
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from pipeline.compute import Compute
    from pipeline.skeletons import SKELETONS
    from pipeline.training.loop import Step, Trainer, TrainingDiverged
    from pipeline.training.run import TrainRun, make_network, make_teacher, read_people, train_run

    try:
        run = TrainRun.start(settings)
        people = read_people(settings)
        device = Compute.resolve(settings.compute.device).device
        network, architecture = make_network(settings)
        teacher = make_teacher(settings, device)
        skeleton = SKELETONS[settings.network.skeleton]
        trainer = Trainer(network, people, skeleton, settings.training, device, teacher)
        print(
            f"{architecture}, {len(people)} people, {trainer.steps_per_epoch} steps an epoch, on {device}", flush=True
        )
        columns = [
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps  loss {task.fields[loss]:.6f}"),
            TextColumn("{task.fields[speed]:.0f} people/s"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns) as progress:
            total = settings.training.epochs * trainer.steps_per_epoch
            task = progress.add_task("train", total=total, epoch=0, loss=0.0, speed=0.0)

            def report(step: Step) -> None:
                progress.update(task, completed=step.step, epoch=step.epoch + 1, loss=step.loss, speed=step.speed)

            history = train_run(run, trainer, architecture, report)
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    last = history[-1]
    measured = "".join(f"  {name} {last[name]:.3f}" for name in ("ap", "ap50", "pck_body") if name in last)
    print(f"epoch {last['epoch']}: loss {last['loss']:.6f}{measured}")
    print(f"weights: {run.path('last.safetensors')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
