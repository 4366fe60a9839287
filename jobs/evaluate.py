"""Evaluate a run, or a COCO results file of any tool, against COCO annotations. No network runs.

examples:
  uv run jobs/evaluate.py out/run1 --annotations people.json --errors
  uv run jobs/evaluate.py out/run2 --report --compare out/run1
  uv run jobs/evaluate.py results.json --annotations people.json
  uv run jobs/evaluate.py out/run1 --corrections exported.json
  uv run jobs/evaluate.py out/clips --tracks truth/

A run needs tables: jobs/reduce.py builds them, with --allow-partial also those of an unfinished run.
exit code: 0 evaluated, 1 the annotations do not fit, 2 nothing to evaluate
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from pipeline import storage
from pipeline.errors import UserError
from pipeline.evaluation import evaluate_file, evaluate_run, write_metrics
from pipeline.evaluation.evaluate import seen_images
from pipeline.evaluation.partial import Map
from pipeline.evaluation.thresholds import threshold_lines
from pipeline.evaluation.tracks.evaluate import evaluate_tracks, write_track_metrics
from pipeline.fleet import connect, map_on_ray
from pipeline.process.end import end_process
from pipeline.report.run_page import write_report
from pipeline.review.corrections import write_corrections
from pipeline.run import Run, RunRefused
from pipeline.run.tables import table_skeleton
from pipeline.settings.tree import FleetSettings


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, or COCO results .json, local or on object storage")
    parser.add_argument("--annotations", help="COCO annotations; by default those that the run was started with")
    parser.add_argument("--errors", action="store_true", help="also the error analysis and the results by group")
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="with --errors: also group images by this column"
    )
    parser.add_argument("--report", action="store_true", help="also write report.html; includes --errors")
    parser.add_argument("--compare", metavar="RUN", help="also write report.html, with a comparison to another run")
    parser.add_argument(
        "--only-images-in-run",
        action="store_true",
        help="leave out annotated images that the run does not contain; by default their people count as missed",
    )
    parser.add_argument(
        "--exclude-seen",
        action="store_true",
        help="leave out images that the weights were trained on, by their file names; by default a note counts them",
    )
    parser.add_argument(
        "--corrections",
        metavar="FILE",
        help="evaluate against labels of the run's review queue that were corrected in CVAT or Label Studio",
    )
    parser.add_argument(
        "--tracks",
        metavar="FILE",
        help="evaluate the tracks of videos: annotations of MOTChallenge (.txt) or PoseTrack18 (.json), or a folder",
    )
    parser.add_argument(
        "--ray", action="store_true", help="compute on the Ray cluster of RAY_ADDRESS, or on one started here"
    )
    arguments = parser.parse_args(argv)
    try:
        with connect(FleetSettings()) if arguments.ray else nullcontext():
            map_chunks = map_on_ray if arguments.ray else map
            evaluate = _evaluate_file if arguments.run.endswith(".json") else _evaluate_run
            print("\n".join(evaluate(arguments, map_chunks)))
    except RunRefused as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate_file(arguments: argparse.Namespace, map_chunks: Map) -> list[str]:
    if arguments.annotations is None and not arguments.tracks:
        raise RunRefused(f"{arguments.run} needs --annotations")
    if (
        arguments.report
        or arguments.compare
        or arguments.only_images_in_run
        or arguments.exclude_seen
        or arguments.corrections
        or arguments.tracks
    ):
        raise RunRefused(
            f"{arguments.run}: --report, --compare, --only-images-in-run, --exclude-seen, --corrections and --tracks "
            "need a run, not a results file"
        )
    metrics = evaluate_file(arguments.run, arguments.annotations, arguments.errors, arguments.by, map_chunks)
    try:
        written = f"metrics:   {write_metrics(metrics, arguments.run.removesuffix('json'), metrics.skeleton)}"
    except OSError as error:  # results of others may lie where this process cannot write
        written = f"metrics:   not written ({error})"
    return [*metrics.lines(), written]


def _evaluate_run(arguments: argparse.Namespace, map_chunks: Map) -> list[str]:
    run = _open_reduced(arguments.run)
    if arguments.tracks:
        return _evaluate_tracks(run, arguments)
    if arguments.corrections:
        return _evaluate_corrections(run, arguments, map_chunks)
    annotations = arguments.annotations or run.settings.annotations
    if annotations is None:
        if arguments.report and not arguments.compare:
            return [f"page:      {write_report(run)}"]
        raise RunRefused(f"{run.uri} was started without annotations; set --annotations")
    page = arguments.report or arguments.compare is not None
    only = arguments.only_images_in_run
    if only and arguments.compare:
        raise RunRefused(
            "--compare cannot be combined with --only-images-in-run: the runs may contain different images"
        )
    before = _open_reduced(arguments.compare) if arguments.compare else None
    excluded: frozenset[bytes] = frozenset()
    notes = []
    if arguments.exclude_seen:
        for seen in [seen_images(r) for r in (run, before) if r is not None]:
            excluded |= seen.digests
            notes += [
                f"note: {uri} does not state its training images; those among the evaluated images are not excluded"
                for uri in seen.unknown
            ]
    metrics = evaluate_run(run, annotations, arguments.errors or page, arguments.by, map_chunks, only, excluded)
    if (arguments.errors or arguments.compare) and metrics.keypoints is None:
        raise UserError(f"{annotations} has no keypoints; an error analysis needs them")
    uri = write_metrics(metrics, run.path(""), table_skeleton(run.uri))
    lines = [*metrics.lines(), *notes, f"metrics:   {uri}"]
    if page:
        other = None
        if before is not None:
            other = (before, evaluate_run(before, annotations, True, arguments.by, map_chunks, excluded=excluded))
        lines.append(f"page:      {write_report(run, metrics, other)}")
    return lines


def _evaluate_tracks(run: Run, arguments: argparse.Namespace) -> list[str]:
    others = ("annotations", "errors", "report", "compare", "only_images_in_run", "exclude_seen", "corrections", "by")
    given = [f"--{name.replace('_', '-')}" for name in others if getattr(arguments, name)]
    if given:
        raise RunRefused(f"--tracks cannot be combined with {', '.join(given)}")
    metrics = evaluate_tracks(run, arguments.tracks)
    return [*metrics.lines(), f"metrics:   {write_track_metrics(metrics, run)}"]


def _evaluate_corrections(run: Run, arguments: argparse.Namespace, map_chunks: Map) -> list[str]:
    if arguments.annotations or arguments.report or arguments.compare or arguments.exclude_seen:
        raise RunRefused("--corrections cannot be combined with --annotations, --report, --compare or --exclude-seen")
    corrections = write_corrections(run, arguments.corrections)
    corrected = corrections.annotations
    metrics = evaluate_run(run, corrected, True, arguments.by, map_chunks)
    uri = write_metrics(metrics, run.path("review", ""), table_skeleton(run.uri))
    lines = [*metrics.lines(), *threshold_lines(run, corrected)]
    if corrections.num_unchanged:
        lines.append(
            f"note: the labels of {corrections.num_unchanged} of {corrections.num_images} images are as they were "
            "uploaded; if nobody has looked at these images, the metrics are too high"
        )
    return [*lines, f"corrected: {corrected}", f"metrics:   {uri}"]


def _open_reduced(uri: str) -> Run:
    run = Run.open(uri)
    if not storage.exists(run.path("totals.json")):
        raise RunRefused(f"{run.uri} has no tables yet; build them with jobs/reduce.py {run.uri}")
    return run


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
