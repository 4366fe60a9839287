"""Several processes, on one machine or many, that share each batch: Ray Train around the plain loop."""

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
from pipeline.training.directory import TrainRun, train_run
from pipeline.training.experiment import experiment_of
from pipeline.training.loop import Trainer, TrainingDiverged
from pipeline.training.settings import TrainSettings

_MAX_FAILURES = 3
_LOOK_SECONDS = 1.0


def train_on_ray(run: TrainRun, report: Callable[[dict[str, Any]], None]) -> None:
    """Train in `workers` processes. When one dies, all go on from the last checkpoint.

    The run directory must be one that all of them reach.

    Args:
        report: told each line of the history.

    Raises:
        UserError: this machine has fewer GPUs, or CPUs, than workers.
        RuntimeError: training failed, with what a worker said.
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
        told = len(run.history())
        with ThreadPoolExecutor(1, "fit") as pool:
            fit = pool.submit(trainer.fit)
            while not fit.done():
                time.sleep(_LOOK_SECONDS)
                lines = run.history()
                for line in lines[told:]:
                    report(line)
                told = max(told, len(lines))
        try:
            failed = fit.result().return_value
        except ray.train.TrainingFailedError as error:
            failed = _reason(error)
        if failed:
            raise RuntimeError(failed)


def _use_gpu(settings: TrainSettings) -> bool:
    """Whether each worker gets a GPU of its own. Ray would wait for ever for those that never come."""
    gpus, cpus = (ray.cluster_resources().get(kind, 0) for kind in ("GPU", "CPU"))
    use_gpu = settings.compute.device == "cuda" or (settings.compute.device == "auto" and gpus > 0)
    there, kind = (gpus, "GPU") if use_gpu else (cpus, "CPU")
    if there < settings.workers and not may_grow(settings.address):
        raise UserError(
            f"workers is {settings.workers}, each with a {kind} of its own; this machine has {there:g}: set workers to "
            "that" + (", or compute.device to cpu" if use_gpu else "")
        )
    return use_gpu


def _reason(error: ray.train.TrainingFailedError) -> str:
    """The worker's own words."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "a worker failed"


def _worker(told: dict[str, Any]) -> str | None:
    """Returns what another attempt would meet again; Ray Train tries again after whatever is raised."""
    settings = TrainSettings.model_validate(told["settings"])
    context = ray.train.get_context()
    # As it was decided for all of them: one that sees a GPU which Ray doesn't count must not use it alone.
    device = Compute.resolve("cuda" if told["use_gpu"] else "cpu").device
    if told["use_gpu"]:
        device = torch.device("cuda", torch.cuda.current_device())
    try:
        experiment, mistake = experiment_of(settings, device), None
    except ValueError as error:
        experiment, mistake = None, str(error)
    mistake = _of_anyone(mistake)
    if experiment is None or mistake is not None:
        return mistake
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
    except TrainingDiverged as error:  # a loss of all of them, in all of them
        return str(error)
    return None


def _of_anyone(mistake: str | None) -> str | None:
    """The first mistake that any process made: one that went home alone would leave the others waiting."""
    mistakes: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(mistakes, mistake)
    return next((made for made in mistakes if made is not None), None)
