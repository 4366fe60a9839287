"""Training in several processes that share each batch, on one machine or many: Ray Train around the plain loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipeline import storage
from pipeline.errors import UserError
from pipeline.fleet.cluster import connect, may_grow
from pipeline.runtime.device import Compute
from pipeline.settings.tree import FleetSettings
from pipeline.training.build import build_experiment
from pipeline.training.directory import TrainRun, train_run
from pipeline.training.loop import Trainer, TrainingDiverged
from pipeline.training.settings import TrainSettings

_MAX_FAILURES = 3
_POLL_SECONDS = 1.0


def train_on_ray(run: TrainRun, report: Callable[[dict[str, Any]], None]) -> None:
    """Train in `workers` processes. If one dies, all of them resume from the last checkpoint.

    All processes must be able to reach the run directory.

    Args:
        report: called with each new line of the history.

    Raises:
        UserError: this machine has fewer GPUs, or CPUs, than workers; or a worker met an error of the user.
        FileNotFoundError, PermissionError: a worker cannot read a file of the training sets.
        ray.train.TrainingFailedError: workers failed more often than Ray Train restarts them.
    """
    settings = run.settings
    with connect(FleetSettings(address=settings.address)):
        use_gpu = _use_gpu(settings)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"settings": settings.model_dump(mode="json"), "use_gpu": use_gpu},
            scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=use_gpu),
            run_config=RunConfig(
                storage_path=storage.join(tempfile.gettempdir(), "posemill-train"),
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            ),
        )
        reported = len(run.history())
        with ThreadPoolExecutor(1, "fit") as pool:
            fit = pool.submit(trainer.fit)
            while not fit.done():
                time.sleep(_POLL_SECONDS)
                lines = run.history()
                for line in lines[reported:]:
                    report(line)
                reported = max(reported, len(lines))
        error = fit.result().return_value
        if error is not None:
            raise error


def _use_gpu(settings: TrainSettings) -> bool:
    """Whether each worker gets its own GPU.

    Raises:
        UserError: a cluster of this machine alone has too few; Ray would wait for them forever.
    """
    gpus, cpus = (ray.cluster_resources().get(kind, 0) for kind in ("GPU", "CPU"))
    use_gpu = settings.compute.device == "cuda" or (settings.compute.device == "auto" and gpus > 0)
    available, kind = (gpus, "GPU") if use_gpu else (cpus, "CPU")
    if available < settings.workers and not may_grow(settings.address):
        raise UserError(
            f"--workers {settings.workers} needs one {kind} per worker, but this machine has {available:g}; use fewer "
            "workers" + (", or --compute.device cpu" if use_gpu else "")
        )
    return use_gpu


def _worker(config: dict[str, Any]) -> Exception | None:
    """Train in one process; returns a user's error instead of raising it, because Ray Train retries what is raised."""
    settings = TrainSettings.model_validate(config["settings"])
    context = ray.train.get_context()
    # The driver decides for all workers: one that sees a GPU which Ray does not count must not use it alone.
    device = Compute.resolve("cuda" if config["use_gpu"] else "cpu").device
    if config["use_gpu"]:
        device = torch.device("cuda", torch.cuda.current_device())
    experiment, error = None, None
    try:
        experiment = build_experiment(settings, device)
    except (UserError, FileNotFoundError, PermissionError) as e:
        error = e
    first = _first_of_all_workers(error)
    if experiment is None or first is not None:
        return first
    trainer = Trainer(
        experiment.network,
        experiment.task,
        settings.optimisation,
        device,
        context.get_world_rank(),
        context.get_world_size(),
    )
    try:
        train_run(TrainRun(settings.output, settings), experiment, trainer, lambda step: None)
    except TrainingDiverged as e:  # the loss is shared: all workers raise it in the same step
        return e
    return None


def _first_of_all_workers(error: Exception | None) -> Exception | None:
    """The first error of any worker. If only the worker with the error returned, the others would wait forever."""
    errors: list[Exception | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(errors, error)
    return next((e for e in errors if e is not None), None)
