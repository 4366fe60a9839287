"""Connect to a Ray cluster, or start one on this machine; how many workers fit into it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from pipeline.errors import UserError, first_line
from pipeline.process.memory import bound_allocator
from pipeline.settings.tree import AnnotateComputeSettings, FleetSettings

_LOCAL_OBJECT_STORE_BYTES = 256 << 20  # only settings, ids and counts travel through it
_DEFAULT_CPUS = 4
_CONNECT_SECONDS = 10.0
_TOKEN_SOURCES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextlib.contextmanager
def connect(settings: FleetSettings) -> Iterator[None]:
    """A Ray session on the cluster of the settings or of RAY_ADDRESS, else on one that is started here for the block.

    Raises:
        ConnectionError: the named cluster does not answer, or requires a token that this process does not have.
    """
    bound_allocator()
    address = settings.address or os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
            raise ConnectionError(
                f"cannot connect to the Ray cluster at {address}: {first_line(error)} If it requires a token, set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)."
            ) from None
    else:
        # A token of its own: Ray would write one into the home folder, which may be read-only.
        if not any(name in os.environ for name in _TOKEN_SOURCES):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
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


def _check_reachable(address: str) -> None:
    """Fail at once if nothing listens there; Ray itself would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdigit():
        return  # "auto", ray://, ...
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from None


def may_grow(address: str | None) -> bool:
    """Whether nodes can join: an existing cluster, not one that was started for this job."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


@dataclass(frozen=True)
class WorkerShape:
    """The maximum number of workers, and the GPUs and CPU threads of each."""

    workers: int
    gpus: float
    cpus: int


def worker_shape(settings: FleetSettings, compute: AnnotateComputeSettings, num_shards: int) -> WorkerShape:
    """Fit workers into the cluster as it is, where the settings are None; never more workers than shards.

    Raises:
        UserError: a worker needs more than this machine has, and no other node can join.
    """
    resources = ray.cluster_resources()
    on_cpu = compute.device == "cpu" or compute.runtime == "openvino"
    total_gpus = 0.0 if on_cpu else resources.get("GPU", 0.0)
    total_cpus = int(resources.get("CPU", 1))
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if total_gpus >= 1 or compute.device == "cuda" else 0.0
    if compute.runtime == "tensorrt" and not gpus and not may_grow(settings.address):
        raise UserError("--compute.runtime tensorrt needs a GPU; this machine has none")
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
            f"a worker needs {cpus} CPUs and {gpus:g} GPUs, but this machine has {total_cpus} and {total_gpus:g}: "
            "change --fleet.cpus_per_worker, --fleet.gpus_per_worker or --compute.device"
        )
    workers = settings.workers or on_gpus or max(1, total_cpus // cpus)
    return WorkerShape(max(1, min(workers, num_shards)), gpus, cpus)
