"""The reduction of a run: parts become tables and totals. Engines that spread the work are in `fleet/`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline import storage
from pipeline.errors import UserError, parsing
from pipeline.run.directory import Run
from pipeline.run.tables import DERIVED_TABLES, WEAK, Fold, Totals, fold_parts, keep_tables, plan_folds, table_metadata

_NAMED_SHARDS = 5  # missing shards that an error message names
_LISTED_SHARDS = 1000  # missing shards that totals.json lists


class IncompleteRun(UserError):
    """Shards have no part; the message counts and names them."""


@dataclass(frozen=True)
class Reduction:
    """The counts of a run's tables, and the shards that are missing from them.

    Attributes:
        totals: of the tables.
        missing: number of images by shard id, of the shards without a part.
    """

    totals: Totals
    missing: dict[str, int]

    @property
    def complete(self) -> bool:
        return not self.missing


class FoldAll(Protocol):
    """Folds parts, in this process or in others; totals may come in any order."""

    def __call__(self, run: Run, folds: list[Fold], /) -> Iterable[Totals]: ...


def fold_here(run: Run, folds: list[Fold]) -> Iterable[Totals]:
    """Fold parts in this process, one after another."""
    return (fold_parts(run.uri, fold, run.fingerprint) for fold in folds)


def reduce_run(run: Run, allow_partial: bool = False, fold_all: FoldAll = fold_here) -> Reduction:
    """Build the tables of a run and `totals.json`.

    Args:
        allow_partial: build tables although parts are missing.
        fold_all: where the parts are folded.

    Raises:
        IncompleteRun: parts are missing and `allow_partial` is false.
        UserError: a part is damaged or belongs to another run.
    """
    counts = run.manifest().counts
    sizes = run.parts()
    missing = {id_: count for id_, count in counts.items() if id_ not in sizes}
    if missing and not allow_partial:
        raise IncompleteRun(_missing_message(run, missing, len(counts)))
    for derived in DERIVED_TABLES:
        keep_tables(run.uri, derived, ())
    folds = plan_folds(sizes, counts, run.settings.output.table_megabytes)
    totals = sum(fold_all(run, folds), Totals())
    if folds:
        for table in ("images", "people", WEAK):
            keep_tables(run.uri, table, {fold.name for fold in folds})
    reduction = Reduction(totals, missing)
    storage.write_bytes(run.path("totals.json"), json.dumps(_summary(run, reduction), indent=2).encode())
    return reduction


def stored_reduction(run: Run) -> Reduction | None:
    """The stored reduction of a run that is complete; None if the run is incomplete, not reduced, or has no tables."""
    path = run.path("totals.json")
    if not storage.exists(path):
        return None
    with parsing(path, "the totals of a run"):
        stored = json.loads(storage.read_bytes(path))
    if not stored["complete"] or stored["fingerprint"] != run.fingerprint or not table_metadata(run.uri):
        return None
    fields = {name: stored[name] for name in ("shards", "images", "people", "with_coco_id")}
    return Reduction(Totals(**fields, statuses=Counter(stored["statuses"])), {})


def _missing_message(run: Run, missing: dict[str, int], num_shards: int) -> str:
    quarantined = run.quarantined()
    named = "; ".join(
        f"{id_} ({count} images{', ' + quarantined[id_] if id_ in quarantined else ''})"
        for id_, count in list(missing.items())[:_NAMED_SHARDS]
    )
    more = f"; and {len(missing) - _NAMED_SHARDS} more" if len(missing) > _NAMED_SHARDS else ""
    return (
        f"{run.uri} is incomplete: {len(missing)} of {num_shards} shards have no part, {sum(missing.values())} "
        f"images: {named}{more}"
    )


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
        "missing": list(reduction.missing)[:_LISTED_SHARDS],
    }
