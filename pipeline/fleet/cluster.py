"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from pipeline.errors import UserError
from pipeline.process.memory import bound_allocator
from pipeline.settings.tree import ComputeSettings, FleetSettings

_LOCAL_OBJECT_STORE_BYTES = 256 << 20  # only settings, ids and counts travel through it
_DEFAULT_CPUS = 4
_KNOCK_SECONDS = 10.0


@contextlib.contextmanager
def connect(settings: FleetSettings) -> Iterator[None]:
    """A Ray session: the cluster that the settings or RAY_ADDRESS name, else one started here and stopped after.

    Raises:
        ConnectionError: the named cluster isn't there, or is closed by a token that this process doesn't have.
    """
    bound_allocator()
    address = settings.address or os.environ.get("RAY_ADDRESS")
    if address:
        _knock(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise ConnectionError(
                f"no way into a Ray cluster at {address}: {str(error).splitlines()[0]} If it is closed by a token, set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to it."
            ) from None
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdigit():
        return  # "auto", ray://, ...
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from None


def may_grow(address: str | None) -> bool:
    """Whether nodes can join: a cluster that was there before, not one started for this job."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


@dataclass(frozen=True)
class WorkerShape:
    """What the workers are given: how many at most, and the GPUs and CPU threads of each."""

    workers: int
    gpus: float
    cpus: int


def worker_shape(settings: FleetSettings, compute: ComputeSettings, num_shards: int) -> WorkerShape:
    """Fit workers into the cluster as it is, where the settings leave it open; never more workers than shards.

    Raises:
        UserError: a cluster of this machine alone will never hold such a worker.
    """
    resources = ray.cluster_resources()
    total_gpus = 0.0 if compute.device == "cpu" else resources.get("GPU", 0.0)
    total_cpus = int(resources.get("CPU", 1))
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if total_gpus >= 1 or compute.device == "cuda" else 0.0
    on_gpus = int(total_gpus / gpus) if gpus else 0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in nodes if node.get("GPU", 0.0) >= gpus]
    largest_node = max((int(node.get("CPU", 0)) for node in fitting), default=1)
    cpus = settings.cpus_per_worker
    if cpus is None:
        per_gpu = [int(node.get("CPU", 0) // max(1, int(node["GPU"] / gpus))) for node in fitting] if gpus else []
        cpus = max(1, min([_DEFAULT_CPUS, *(per_gpu or [largest_node])]))
    if len(nodes) == 1 and not may_grow(settings.address) and (not fitting or cpus > largest_node):
        raise UserError(
            f"a worker asks for {cpus} CPUs and {gpus:g} GPUs, this machine has {total_cpus} and {total_gpus:g}: "
            "set fleet.cpus_per_worker, fleet.gpus_per_worker or compute.device"
        )
    workers = settings.workers or on_gpus or max(1, total_cpus // cpus)
    return WorkerShape(max(1, min(workers, num_shards)), gpus, cpus)
