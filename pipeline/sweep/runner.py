"""Run a sweep: a run for each choice of networks, trials on its candidates."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pipeline import storage
from pipeline.coco.annotations import load_annotations, read_annotations
from pipeline.coco.subset import subset
from pipeline.errors import UserError
from pipeline.fleet import Stop, annotate_run, fold_on_ray, map_on_ray
from pipeline.fleet.display import Display
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.reduction import reduce_run, stored_reduction
from pipeline.run.tables import table_skeleton
from pipeline.settings.tree import Settings
from pipeline.sweep.candidates import Rescoring, score_trials, stored_candidates
from pipeline.sweep.leaderboard import Row
from pipeline.sweep.settings import SweepSettings
from pipeline.sweep.trials import CONFIDENCE, Trial, by_networks, needs_networks

_IMAGE_FOLDERS_AND_LISTS = ("", ".json")  # suffixes of inputs that a list of images can stand in for


class Cost(NamedTuple):
    """What a run took: images a second, where there were enough to tell, and the most memory that a worker held."""

    images_per_second: float | None
    peak_megabytes: float | None


def run_sweep(sweep: SweepSettings, trials: list[Trial], stop: Stop) -> list[Row]:
    """A row for each trial, in their order. Needs a Ray session.

    Raises:
        UserError, OSError: annotations, a run or a network that cannot be used.
        IncompleteRun, FleetError, Stopped: a run of networks could not be finished.
    """
    rows: dict[int, Row] = {}
    for settings, group in by_networks(trials):
        run, cost = _stored(sweep.run, group) if sweep.run else _annotated(sweep, settings, stop)
        skeleton = table_skeleton(run.uri)
        candidates = stored_candidates(run, read_annotations(annotations_of(sweep), skeleton))
        rescorings = [Rescoring(t.confidence, t.settings.suppression) for t in group]
        for trial, outcome in zip(group, score_trials(candidates, rescorings, skeleton, map_on_ray), strict=True):
            rows[id(trial)] = Row(trial, outcome.metrics, outcome.people, *cost, run.uri)
    return [rows[id(trial)] for trial in trials]


def annotations_of(sweep: SweepSettings) -> str:
    """URI of the annotations that trials are measured by: with a limit, a file of the sweep's own."""
    assert sweep.annotations is not None
    if sweep.limit is None:
        return sweep.annotations
    digest = storage.sha256(storage.read_bytes(sweep.annotations))
    uri = storage.join(sweep.output, f"annotations-{sweep.limit}-{digest[:8]}.json")
    if not storage.exists(uri):
        content = load_annotations(sweep.annotations)
        limited = subset(content, content["images"][: sweep.limit])
        storage.write_bytes(uri, json.dumps(limited).encode())
    return uri


def _stored(uri: str, trials: list[Trial]) -> tuple[Run, Cost]:
    """A run that is there.

    Raises:
        UserError: a trial asks for more than its candidates can tell.
    """
    run = Run.open(uri)
    for trial in trials:
        if asked := [name for name in trial.varied if needs_networks(name)]:
            raise UserError(
                f"{asked[0]} cannot be tried on the candidates of {uri}: it needs the networks; leave out run"
            )
        least = run.settings.detector.confidence
        if CONFIDENCE in trial.varied and trial.settings.detector.confidence < least:
            raise UserError(
                f"{CONFIDENCE} {trial.settings.detector.confidence} cannot be tried on the candidates of {uri}, which "
                f"kept those over {least}"
            )
    return run, _cost(run)


def _annotated(sweep: SweepSettings, settings: Settings, stop: Stop) -> tuple[Run, Cost]:
    """The run of these networks, found again or made."""
    settings = _on_annotated_images(sweep, settings)
    # Settings that make the same rows have the same fingerprint, and so the same directory.
    uri = storage.join(sweep.output, "runs", Run.fingerprint_of(settings))
    run = Run.create(settings.model_copy(update={"output": settings.output.model_copy(update={"uri": uri})}))
    manifest = run.plan()
    if stored_reduction(run) is None:
        given = Precomputed.load(run.settings)
        with stop.listening(), Display() as display:
            display.note(f"run {uri}")
            annotate_run(run, manifest, display, stop, given)
        cost = Cost(display.images_per_second, display.peak_megabytes or None)
        storage.write_bytes(run.path("cost.json"), json.dumps(cost._asdict()).encode())
        reduce_run(run, fold_all=fold_on_ray)
    return run, _cost(run)


def _on_annotated_images(sweep: SweepSettings, settings: Settings) -> Settings:
    """The same settings with annotations, and with as many images as these have where the sweep is limited."""
    changed: dict[str, Any] = {"annotations": annotations_of(sweep)}
    source = settings.input
    if sweep.limit is not None and source.uri is not None:
        if storage.suffix(source.uri) not in _IMAGE_FOLDERS_AND_LISTS:
            raise UserError(f"limit needs a folder or COCO annotations as base.input, not {source.uri}")
        folder = source.uri if not source.uri.endswith(".json") else source.uri.rpartition("/")[0]
        root = source.image_root or folder
        changed["input"] = source.model_copy(update={"uri": changed["annotations"], "image_root": root})
    return settings.model_copy(update=changed)


def _cost(run: Run) -> Cost:
    path = run.path("cost.json")
    return Cost(**json.loads(storage.read_bytes(path))) if storage.exists(path) else Cost(None, None)
