"""A worker: one process with its networks, pinned to a GPU or to CPU threads."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import ray

from pipeline import storage
from pipeline.errors import UserError
from pipeline.process.deadline import Deadline
from pipeline.process.memory import bound_allocator, give_back_memory, peak_megabytes
from pipeline.process.stopwatch import COMPUTING
from pipeline.process.watchdog import guard, held_bytes
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.progress import Progress
from pipeline.settings.tree import FleetSettings
from pipeline.sources import Shard

if TYPE_CHECKING:
    from pipeline.parts import PartWriter

# Fraction of the memory limit from which a worker is replaced between two shards, where no work is lost.
_FULL = 0.8
_SHARE = 0.75  # of the node's memory; the rest is Ray's own and shared memory, which a container's limit counts, too
_MIN_LIMIT = 4 << 30  # what networks need; on a node with less, Ray's own memory monitor applies

SHARDS_AT_A_TIME = 2  # while one uses the networks, another is read or written


class Worker:
    """Annotates shards. The actor never restarts itself: the scheduler counts deaths."""

    _writer: PartWriter
    _limit: int

    def start(self, run: Run, threads: int, precomputed: Precomputed) -> str | None:
        """Load the networks; returns a warning for the user, if there is one.

        Args:
            run: where parts go.
            threads: CPU threads of the networks.
            precomputed: COCO ids and given boxes of the images.

        Raises:
            UserError: a network cannot be loaded.
            OSError: the run directory, or a GPU, cannot be used from this node.
            NetworksError: the networks fail on this machine's GPU.
        """
        storage.RETRY_POLICY.seconds = run.settings.fleet.storage_retry_seconds
        if not storage.exists(run.manifest_uri):
            raise OSError(
                f"{run.manifest_uri} does not exist on this node; --output must be a place that all nodes can reach"
            )
        run.check_files()
        # Imported here: torch and torchvision take seconds and memory, and a driver does not need them.
        from pipeline.annotator import Annotator
        from pipeline.decoders.device_jpeg import make_jpeg_decoder
        from pipeline.parts import PartWriter
        from pipeline.runtime.device import pin_threads

        bound_allocator()
        pin_threads(threads)
        on_gpu = _take_gpus(run.settings.compute.device)
        self._limit = _memory_limit(run.settings.fleet, threads)
        deadline = Deadline(run.settings.fleet.image_seconds)
        annotator = Annotator.from_settings(run.settings)
        if on_gpu:
            annotator.check()  # fail now if there is no memory for a batch, or no kernels for this GPU
        # Beside a GPU the CPU threads decode; on a CPU the networks use all of them.
        decoders = threads if on_gpu else 1
        jpeg_decoder = make_jpeg_decoder(annotator.compute)
        self._writer = PartWriter(run, annotator, precomputed, deadline, decoders, jpeg_decoder)
        if held_bytes() > _FULL * self._limit:
            raise UserError(
                f"--fleet.worker_gigabytes is {self._limit / 1e9:.1f}, but the networks alone take "
                f"{held_bytes() / 1e9:.1f} GB; set it higher"
            )
        guard(self._limit)
        annotator.compute.computing.take()  # of trial runs, which are not the time of an image
        return annotator.compute.warning

    def annotate(self, shard: Shard, poison: Collection[int], isolated: bool) -> Iterator[Progress]:
        """Stream the progress of `PartWriter.annotate`."""
        last = Progress()
        for last in self._writer.annotate(shard, poison, isolated):
            yield self._with_counters(last)
        give_back_memory()
        yield self._with_counters(last)

    def _with_counters(self, progress: Progress) -> Progress:
        annotator = self._writer.annotator
        return replace(
            progress,
            peak_megabytes=peak_megabytes(),
            gpu_megabytes=annotator.compute.peak_megabytes(),
            seconds={**annotator.stopwatch.take(), COMPUTING: annotator.compute.computing.take()},
            retries=dict(storage.RETRY_POLICY.take_retries()),
            notes=tuple(annotator.compute.notes),
            full=held_bytes() > _FULL * self._limit,
        )


def _take_gpus(device: str) -> bool:
    """Hide all GPUs but those that Ray assigned; returns whether the networks run on a GPU.

    Raises:
        OSError: CUDA cannot use the assigned GPU. (Ray counts GPUs by asking the driver.)
    """
    import torch

    if not ray.get_runtime_context().get_accelerator_ids()["GPU"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from a worker that asks for none
        return False
    if device == "cpu":
        return False
    if not torch.cuda.is_available():
        raise OSError(
            f"CUDA {torch.version.cuda} cannot use the GPU that Ray assigned; install a newer driver, or set "
            "--compute.device cpu"
        )
    return True


def _memory_limit(settings: FleetSettings, cpus: int) -> int:
    """Bytes that a worker may hold: the setting, else most of its share of the node's memory as Ray counts it."""
    if settings.worker_gigabytes is not None:
        return int(settings.worker_gigabytes * 1e9)
    here = ray.get_runtime_context().get_node_id()
    resources = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    gpus = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
    neighbours = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / cpus
    return max(_MIN_LIMIT, int(_SHARE * resources.get("memory", 0) / max(1, neighbours)))


WorkerActor = ray.remote(max_restarts=0, max_concurrency=SHARDS_AT_A_TIME)(Worker)
