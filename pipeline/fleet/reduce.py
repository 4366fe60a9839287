"""Reduce on Ray: tasks fold groups of parts into table files; the driver holds totals only."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import storage
from pipeline.run import Run
from pipeline.tables import Fold, Totals, fold_parts, plan_folds

_TASKS_AT_A_TIME = 256


@ray.remote(num_cpus=1)
def _fold(run: Run, fold: Fold) -> Totals:
    storage.PATIENCE.seconds = run.settings.fleet.storage_patience
    return fold_parts(run.uri, fold, run.fingerprint)


_NAMED = 5


class IncompleteRun(RuntimeError):
    """Shards have no part; the text counts and names them."""


@dataclass(frozen=True)
class Reduction:
    """What the tables of a run hold, and what is missing from them.

    Attributes:
        totals: of the tables.
        missing: shard id to the images that it should hold, for shards without a part.
    """

    totals: Totals
    missing: dict[str, int]

    @property
    def complete(self) -> bool:
        return not self.missing


def stored_reduction(run: Run) -> Reduction | None:
    """The reduction of a run that is whole and reduced, so that nothing is left to do; else None."""
    path = run.path("totals.json")
    if not storage.exists(path):
        return None
    stored = json.loads(storage.read_bytes(path))
    if not stored["complete"] or stored["fingerprint"] != run.fingerprint:
        return None
    fields = {name: stored[name] for name in ("shards", "images", "people", "with_coco_id")}
    return Reduction(Totals(**fields, statuses=Counter(stored["statuses"])), {})


def reduce_run(run: Run, allow_partial: bool = False) -> Reduction:
    """Build the tables of a run and `totals.json`. Needs a Ray session.

    Raises:
        IncompleteRun: parts are missing and `allow_partial` is false.
        ValueError: a part is damaged or not of this run.
    """
    counts = run.manifest().counts
    sizes = run.parts()
    missing = {id_: count for id_, count in counts.items() if id_ not in sizes}
    if missing and not allow_partial:
        quarantined = run.quarantined()
        named = "; ".join(
            f"{id_} ({count} images{', ' + quarantined[id_] if id_ in quarantined else ''})"
            for id_, count in list(missing.items())[:_NAMED]
        )
        more = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise IncompleteRun(
            f"{run.uri} is incomplete: {len(missing)} of {len(counts)} shards have no part, {sum(missing.values())} "
            f"images: {named}{more}"
        )

    folds = plan_folds(sizes, counts, run.settings.output.table_megabytes)
    totals = Totals()
    waiting = iter(folds)
    running: list[ray.ObjectRef] = []
    try:
        while True:
            while len(running) < _TASKS_AT_A_TIME and (fold := next(waiting, None)) is not None:
                running.append(_fold.remote(run, fold))
            if not running:
                break
            (ready, *_), running = ray.wait(running, num_returns=1)
            totals += ray.get(ready)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise OSError(f"a reduce task could not be finished ({error}); run jobs/reduce.py again") from None
    _remove_others(run, {fold.name for fold in folds})
    reduction = Reduction(totals, missing)
    storage.write_bytes(run.path("totals.json"), json.dumps(_summary(run, reduction), indent=2).encode())
    return reduction


def _remove_others(run: Run, names: set[str]) -> None:
    """Table files of an earlier reduction, when there were fewer parts; another driver's unfinished ones stay."""
    for table in ("images", "people"):
        for entry in list(storage.list_files(run.path("tables", table))) if names else []:
            name = storage.basename(entry.uri)
            if name not in names and not name.startswith("."):
                storage.delete(entry.uri)


def _summary(run: Run, reduction: Reduction) -> dict[str, object]:
    totals = reduction.totals
    return {
        "fingerprint": run.fingerprint,
        "complete": reduction.complete,
        "images": totals.images,
        "people": totals.people,
        "with_coco_id": totals.with_coco_id,
        "statuses": dict(totals.statuses),
        "shards": totals.shards,
        "missing_shards": len(reduction.missing),
        "missing_images": sum(reduction.missing.values()),
        "missing": list(reduction.missing)[:1000],
    }
