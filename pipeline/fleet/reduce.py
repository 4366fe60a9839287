"""Reduce on Ray: tasks fold groups of parts into table files; the driver holds totals only."""

from __future__ import annotations

from collections.abc import Iterator

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import storage
from pipeline.run import Run
from pipeline.run.reduction import fold_here
from pipeline.run.tables import Fold, Totals, fold_parts

_TASKS_AT_A_TIME = 256


@ray.remote(num_cpus=1)
def _fold(run: Run, fold: Fold) -> Totals:
    storage.RETRY_POLICY.seconds = run.settings.fleet.storage_retry_seconds
    return fold_parts(run.uri, fold, run.fingerprint)


def fold_on_ray(run: Run, folds: list[Fold]) -> Iterator[Totals]:
    """Fold parts in tasks of the Ray session, for `pipeline.run.reduction.reduce_run`; a single fold in this process.

    Raises:
        OSError: a task could not be finished; exceptions of a fold are raised as they are.
    """
    if len(folds) == 1:  # starting a process takes longer
        yield from fold_here(run, folds)
        return
    waiting = iter(folds)
    running: list[ray.ObjectRef] = []
    try:
        while True:
            while len(running) < _TASKS_AT_A_TIME and (fold := next(waiting, None)) is not None:
                running.append(_fold.remote(run, fold))
            if not running:
                return
            (ready, *_), running = ray.wait(running, num_returns=1)
            yield ray.get(ready)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise OSError(f"a reduce task could not be finished ({error}); run jobs/reduce.py again") from None
