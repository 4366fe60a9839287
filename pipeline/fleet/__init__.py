"""The only place that knows Ray: a cluster, its workers, who gets which shard, and the tasks that reduce."""

from pipeline.fleet.cluster import connect
from pipeline.fleet.reduce import IncompleteRun, Reduction, reduce_run, stored_reduction
from pipeline.fleet.scheduler import FleetError, Stop, Stopped, annotate_run

__all__ = [
    "FleetError",
    "IncompleteRun",
    "Reduction",
    "Stop",
    "Stopped",
    "annotate_run",
    "connect",
    "reduce_run",
    "stored_reduction",
]
