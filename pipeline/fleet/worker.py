"""A worker: one process with its networks, pinned to its GPU or its CPU threads."""

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
from pipeline.process.watchdog import guard, held_bytes
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.progress import Progress
from pipeline.settings.tree import FleetSettings
from pipeline.sources import Shard

if TYPE_CHECKING:
    from pipeline.parts import PartWriter

_FULL = 0.8  # of the limit: between two shards a worker is replaced without loss, so before it must be
_SHARE = 0.75  # the rest is Ray's own and shared memory, which a container's limit counts, too
_LEAST_LIMIT = 4 << 30  # networks need some; a node with less has Ray's own monitor

SHARDS_AT_A_TIME = 2  # while one uses the networks, the next reads ahead or the last is written


class Worker:
    """Annotates shards with a PartWriter of its own. The actor never restarts itself: the scheduler counts deaths."""

    _writer: PartWriter
    _limit: int

    def start(self, run: Run, threads: int, given: Precomputed) -> None:
        """Load the networks.

        Args:
            run: where parts go.
            threads: of the CPU that the networks may use.
            given: what is known of the images before.

        Raises:
            UserError, OSError: a network cannot be loaded, or the run directory cannot be reached from here.
            NetworksError: the networks fail on this machine's GPU.
        """
        storage.RETRY_POLICY.seconds = run.settings.fleet.storage_retry_seconds
        if not storage.exists(run.manifest_uri):
            raise OSError(
                f"{run.manifest_uri} cannot be seen from this node; --output must be reachable from every node"
            )
        run.check_files()
        # Imported here: torch and torchvision take seconds and memory that a driver has no use for.
        from pipeline.annotator import Annotator
        from pipeline.parts import PartWriter
        from pipeline.runtime.device import pin_threads

        bound_allocator()
        pin_threads(threads)
        on_gpu = _take_gpus(run.settings.compute.device)
        self._limit = _memory_limit(run.settings.fleet, threads)
        deadline = Deadline(run.settings.fleet.image_seconds)
        annotator = Annotator.from_settings(run.settings)
        if on_gpu:
            annotator.check()  # memory for a batch, and kernels for this GPU, are there now or never
        # Beside a GPU the threads have nothing better to do; on a CPU the networks use them all.
        self._writer = PartWriter(run, annotator, given, deadline, decoders=threads if on_gpu else 1)
        if held_bytes() > _FULL * self._limit:
            raise UserError(
                f"the networks alone take {held_bytes() / 1e9:.1f} GB; fleet.worker_gigabytes is "
                f"{self._limit / 1e9:.1f}: give more"
            )
        guard(self._limit)

    def annotate(self, shard: Shard, poison: Collection[int], isolated: bool) -> Iterator[Progress]:
        """See PartWriter.annotate; streamed."""
        last = Progress()
        for last in self._writer.annotate(shard, poison, isolated):
            yield self._with_own(last)
        give_back_memory()
        yield self._with_own(last)

    def _with_own(self, progress: Progress) -> Progress:
        return replace(
            progress,
            peak_megabytes=peak_megabytes(),
            gpu_megabytes=self._writer.annotator.compute.peak_megabytes(),
            seconds=self._writer.annotator.stopwatch.take(),
            retries=dict(storage.RETRY_POLICY.take_retries()),
            full=held_bytes() > _FULL * self._limit,
        )


def _take_gpus(device: str) -> bool:
    """Let this process see the GPUs that Ray gave it, and no others; whether the networks go there.

    Raises:
        OSError: Ray, which asks the driver, counts a GPU that CUDA cannot use.
    """
    import torch

    if not ray.get_runtime_context().get_accelerator_ids()["GPU"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing from a worker that asks for none
        return False
    if device == "cpu":
        return False
    if not torch.cuda.is_available():
        raise OSError(
            f"Ray gave this worker a GPU that CUDA {torch.version.cuda} cannot use here; a newer driver helps, or "
            "--compute.device cpu"
        )
    return True


def _memory_limit(settings: FleetSettings, cpus: int) -> int:
    """Bytes that a worker may hold: as it was told, else most of its share of what Ray counts as its node's memory."""
    if settings.worker_gigabytes is not None:
        return int(settings.worker_gigabytes * 1e9)
    here = ray.get_runtime_context().get_node_id()
    has = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    gpus = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
    neighbours = has.get("GPU", 0) / gpus if gpus else has.get("CPU", 1) / cpus
    return max(_LEAST_LIMIT, int(_SHARE * has.get("memory", 0) / max(1, neighbours)))


WorkerActor = ray.remote(max_restarts=0, max_concurrency=SHARDS_AT_A_TIME)(Worker)
