"""Run a sweep: one run for each choice of networks, and trials on its candidates."""

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
from pipeline.run.precomputed import CocoFiles
from pipeline.run.reduction import reduce_run, stored_reduction
from pipeline.run.tables import table_skeleton
from pipeline.settings.tree import Settings
from pipeline.sources import collection_keys
from pipeline.sweep.candidates import Rescoring, score_trials, stored_candidates
from pipeline.sweep.leaderboard import Row
from pipeline.sweep.settings import SweepSettings
from pipeline.sweep.trials import CONFIDENCE, Trial, by_networks, needs_networks

_LIMITED_INPUTS = (
    "",
    ".json",
)  # suffixes of folders and COCO files, which the limited annotations can replace as input


class Cost(NamedTuple):
    """Throughput of a run (None if it was too short to measure), and the peak memory of its workers."""

    images_per_second: float | None
    peak_megabytes: float | None


def run_sweep(sweep: SweepSettings, trials: list[Trial], stop: Stop) -> list[Row]:
    """One row per trial, in their order. Needs a Ray session.

    Raises:
        UserError, OSError: annotations, a run or a network that cannot be used.
        IncompleteRun, FleetError, Stopped: a run could not be finished.
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
    """URI of the annotations that trials are evaluated against; with a limit, a file that is written for the sweep."""
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
    """The run that the settings name.

    Raises:
        UserError: a trial varies a setting that its candidates cannot be evaluated for.
    """
    run = Run.open(uri)
    for trial in trials:
        if refused := [name for name in trial.varied if needs_networks(name)]:
            raise UserError(
                f"{refused[0]} cannot be tried on the candidates of {uri}: it changes the networks; leave out --run"
            )
        stored = run.settings.detector.confidence
        if CONFIDENCE in trial.varied and trial.settings.detector.confidence < stored:
            raise UserError(
                f"{CONFIDENCE} {trial.settings.detector.confidence} cannot be tried on the candidates of {uri}: it "
                f"stored those above {stored}"
            )
    return run, _cost(run)


def _annotated(sweep: SweepSettings, settings: Settings, stop: Stop) -> tuple[Run, Cost]:
    """The run with these networks, reused if it exists."""
    settings = _on_annotated_images(sweep, settings)
    # Settings that give the same rows have the same fingerprint, thus the same directory.
    uri = storage.join(sweep.output, "runs", Run.fingerprint_of(settings))
    run = Run.create(settings.model_copy(update={"output": settings.output.model_copy(update={"uri": uri})}))
    manifest = run.plan()
    if stored_reduction(run) is None:
        precomputed = CocoFiles.load(run.settings).match(collection_keys(manifest))
        with stop.listening(), Display() as display:
            display.note(f"run {uri}")
            annotate_run(run, manifest, display, stop, precomputed)
        cost = Cost(display.images_per_second, display.peak_megabytes or None)
        storage.write_bytes(run.path("cost.json"), json.dumps(cost._asdict()).encode())
        reduce_run(run, fold_all=fold_on_ray)
    return run, _cost(run)


def _on_annotated_images(sweep: SweepSettings, settings: Settings) -> Settings:
    """The settings with the annotations of the sweep; if the sweep is limited, also with only their images as input."""
    changed: dict[str, Any] = {"annotations": annotations_of(sweep)}
    source = settings.input
    if sweep.limit is not None and source.uri is not None:
        if storage.suffix(source.uri) not in _LIMITED_INPUTS:
            raise UserError(f"--limit needs a folder or COCO file as --base.input.uri, not {source.uri}")
        folder = source.uri if not source.uri.endswith(".json") else source.uri.rpartition("/")[0]
        root = source.image_root or folder
        changed["input"] = source.model_copy(update={"uri": changed["annotations"], "image_root": root})
    return settings.model_copy(update=changed)


def _cost(run: Run) -> Cost:
    path = run.path("cost.json")
    return Cost(**json.loads(storage.read_bytes(path))) if storage.exists(path) else Cost(None, None)
