"""Run a sweep: one run for each choice of networks, and trials on its candidates."""

from __future__ import annotations

import json
import shlex
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.coco.annotations import load_annotations, read_annotations
from pipeline.coco.subset import subset
from pipeline.errors import UserError
from pipeline.fleet import Stop, annotate_run, fold_on_ray, map_on_ray
from pipeline.fleet.display import Display
from pipeline.run import Run
from pipeline.run.precomputed import CocoFiles
from pipeline.run.reduction import reduce_run, stored_reduction
from pipeline.run.sessions import read_sessions
from pipeline.run.tables import table_skeleton
from pipeline.settings.flags import as_flags
from pipeline.settings.tree import Settings
from pipeline.sources import collection_keys
from pipeline.sweep.candidates import Outcome, Rescoring, people_of_trials, score_trials, stored_candidates
from pipeline.sweep.leaderboard import Row, ThresholdCurve, changes, ranked
from pipeline.sweep.settings import SweepSettings
from pipeline.sweep.trials import CONFIDENCE, Trial, by_networks, needs_networks

# Suffixes of folders and COCO files, which the limited annotations can replace as input.
_LIMITED_INPUTS = ("", ".json")


_MIN_MEASURED_IMAGES = 100  # of a session, to be a measurement of speed
_THRESHOLD_STEP = 0.05


class Cost(NamedTuple):
    """Throughput of a run, and the peak memory of its workers; None if it was too short to measure."""

    images_per_second: float | None
    peak_megabytes: float | None


class SweepResult(NamedTuple):
    """The rows of the leaderboard, best first, and the threshold curve of the best trial, if it has a threshold."""

    rows: list[Row]
    curve: ThresholdCurve | None


def run_sweep(sweep: SweepSettings, trials: list[Trial], stop: Stop) -> SweepResult:
    """Evaluate all trials. Needs a Ray session.

    Raises:
        UserError, OSError: annotations, a run or a network that cannot be used.
        IncompleteRun, FleetError, Stopped: a run could not be finished.
    """
    truth = annotations_of(sweep)
    outcomes: dict[int, tuple[Outcome, Run]] = {}
    for settings, group in by_networks(trials):
        run = _stored(sweep.run, group) if sweep.run else _annotated(sweep, settings, stop)
        skeleton = table_skeleton(run.uri)
        candidates = stored_candidates(run, read_annotations(truth, skeleton))
        rescorings = [Rescoring(t.confidence, t.settings.suppression) for t in group]
        for trial, outcome in zip(group, score_trials(candidates, rescorings, skeleton, map_on_ray), strict=True):
            outcomes[id(trial)] = outcome, run
    first, _ = outcomes[id(trials[0])]
    rows = []
    for number, trial in enumerate(trials):
        outcome, run = outcomes[id(trial)]
        cost = _cost(run) if _was_run(trial, run) else Cost(None, None)
        command = _command(sweep, trial, truth)
        rows.append(Row(trial, outcome, number == 0, *changes(outcome, first), *cost, run.uri, command))
    rows = ranked(rows)
    _, run = outcomes[id(rows[0].trial)]
    return SweepResult(rows, _threshold_curve(rows[0].trial, run, truth))


def _was_run(trial: Trial, run: Run) -> bool:
    """Whether the run has exactly the settings of the trial: speed and memory are those of a run."""
    detector = run.settings.detector
    has_threshold = CONFIDENCE not in trial.varied or trial.settings.detector.confidence == detector.confidence
    return has_threshold and trial.settings.suppression == run.settings.suppression


def _command(sweep: SweepSettings, trial: Trial, annotations: str) -> str:
    """The shell command that annotates the images of the sweep with the settings of a trial, and evaluates them."""
    settings = trial.settings.model_copy(update={"annotations": annotations})
    if sweep.run is None:
        settings = _on_annotated_images(sweep, settings, annotations)
    flags = [flag for flag in as_flags(settings) if not flag.startswith("--output.")]
    folder = storage.join(sweep.output, "trials", storage.sha256("\n".join(flags).encode())[:8])
    return shlex.join(["uv", "run", "jobs/annotate.py", *flags, f"--output={folder}"])


def _threshold_curve(trial: Trial, run: Run, truth: str) -> ThresholdCurve | None:
    """The outcomes of a trial with thresholds from that of the run's candidates upwards."""
    if not trial.settings.detector.has_confidence:
        return None
    skeleton = table_skeleton(run.uri)
    candidates = stored_candidates(run, read_annotations(truth, skeleton))
    lowest = run.settings.detector.confidence
    chosen = trial.settings.detector.confidence
    grid = np.arange(np.floor(lowest / _THRESHOLD_STEP) + 1, 1 / _THRESHOLD_STEP) * _THRESHOLD_STEP
    thresholds = sorted({lowest, chosen, *grid.round(2).tolist()})
    rescorings = [Rescoring(threshold, trial.settings.suppression) for threshold in thresholds]
    points = people_of_trials(candidates, rescorings, skeleton, map_on_ray)
    return ThresholdCurve(CONFIDENCE, chosen, dict(zip(thresholds, points, strict=True)))


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


def _stored(uri: str, trials: list[Trial]) -> Run:
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
    return run


def _annotated(sweep: SweepSettings, settings: Settings, stop: Stop) -> Run:
    """The run with these networks, reused if it exists."""
    settings = _on_annotated_images(sweep, settings, annotations_of(sweep))
    # Settings that give the same rows have the same fingerprint, thus the same directory.
    uri = storage.join(sweep.output, "runs", Run.fingerprint_of(settings))
    run = Run.create(settings.model_copy(update={"output": settings.output.model_copy(update={"uri": uri})}))
    manifest = run.plan()
    if stored_reduction(run) is None:
        precomputed = CocoFiles.load(run.settings).match(collection_keys(manifest))
        with stop.listening(), Display() as display:
            display.note(f"run {uri}")
            annotate_run(run, manifest, display, stop, precomputed)
        reduce_run(run, fold_all=fold_on_ray)
    return run


def _on_annotated_images(sweep: SweepSettings, settings: Settings, annotations: str) -> Settings:
    """The settings with the annotations of the sweep; if the sweep is limited, also with only their images as input."""
    changed: dict[str, Any] = {"annotations": annotations}
    source = settings.input
    if sweep.limit is not None and source.uri is not None:
        if storage.suffix(source.uri) not in _LIMITED_INPUTS:
            raise UserError(f"--limit needs a folder or COCO file as --base.input.uri, not {source.uri}")
        folder = source.uri if not source.uri.endswith(".json") else source.uri.rpartition("/")[0]
        root = source.image_root or folder
        changed["input"] = source.model_copy(update={"uri": changed["annotations"], "image_root": root})
    return settings.model_copy(update=changed)


def _cost(run: Run) -> Cost:
    """The cost of the longest session of a run."""
    session = max(read_sessions(run), key=lambda s: s.images, default=None)
    if session is None or session.images < _MIN_MEASURED_IMAGES:
        return Cost(None, None)
    return Cost(session.images_per_second, session.peak_megabytes or None)
