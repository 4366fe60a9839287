"""Ray: the cluster, its workers, the scheduler, and tasks that reduce and evaluate. The only user of Ray Core."""

from pipeline.fleet.cluster import connect
from pipeline.fleet.reduce import fold_on_ray
from pipeline.fleet.scheduler import FleetError, Stop, Stopped, annotate_run
from pipeline.fleet.tasks import map_on_ray
from pipeline.fleet.tracks import write_tracks_and_motion

__all__ = [
    "FleetError",
    "Stop",
    "Stopped",
    "annotate_run",
    "connect",
    "fold_on_ray",
    "map_on_ray",
    "write_tracks_and_motion",
]
