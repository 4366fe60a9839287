"""The only place that knows Ray: a cluster, its workers, who gets which shard, and tasks that reduce and evaluate."""

from pipeline.fleet.cluster import connect
from pipeline.fleet.reduce import IncompleteRun, Reduction, reduce_run, stored_reduction
from pipeline.fleet.scheduler import FleetError, Stop, Stopped, annotate_run
from pipeline.fleet.spread import on_ray

__all__ = [
    "FleetError",
    "IncompleteRun",
    "Reduction",
    "Stop",
    "Stopped",
    "annotate_run",
    "connect",
    "on_ray",
    "reduce_run",
    "stored_reduction",
]
