"""Annotate a collection of images with human keypoints.

examples:
  uv run jobs/annotate.py                                         the demo
  uv run jobs/annotate.py --input my/photos --output out/run1     your own photographs
  ray job submit --working-dir . -- python jobs/annotate.py --input s3://... --output s3://...

Rerun the same command to resume an interrupted run. Rerunning a finished run is a no-op.
exit code: 0 complete, 1 incomplete, 2 wrong settings, 130 or 143 stopped by a signal
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline import storage
from pipeline.errors import UserError
from pipeline.evaluation import evaluate_run, write_metrics
from pipeline.fleet import Stop, Stopped, annotate_run, connect, fold_on_ray, write_tracks_and_motion
from pipeline.fleet.display import Display
from pipeline.formats import write_coco
from pipeline.images import ImageRefused
from pipeline.preflight import check_networks
from pipeline.process.end import end_process
from pipeline.report.draw import draw_run
from pipeline.report.run_page import write_report
from pipeline.report.summary import summary
from pipeline.report.videos import draw_videos
from pipeline.run import Run
from pipeline.run.precomputed import CocoFiles
from pipeline.run.reduction import IncompleteRun, Reduction, reduce_run, stored_reduction
from pipeline.run.tables import table_skeleton
from pipeline.settings.flags import parse_settings
from pipeline.settings.paths import absolute_paths
from pipeline.sources import Manifest, collection_keys

DEMO = Path(__file__).resolve().parents[1] / "configs" / "annotate" / "demo.yaml"


def main(argv: Sequence[str]) -> int:
    settings = absolute_paths(parse_settings(argv, __doc__ or "", default_config=str(DEMO)))
    storage.RETRY_POLICY.seconds = settings.fleet.storage_retry_seconds
    started = time.monotonic()
    try:
        run_json = storage.join(settings.output.uri, "run.json")
        for uri in (settings.input.uri, run_json, settings.annotations, settings.detector.boxes):
            storage.check_access(uri or "")
        coco_files = CocoFiles.load(settings)
        run = Run.create(settings)
        if not run.parts():
            check_networks(settings)
        manifest = run.plan()
    except (UserError, OSError) as error:
        print(f"annotate: {error}", file=sys.stderr)
        return 2
    try:
        stored = stored_reduction(run)
        reduction = _annotate(run, manifest, coco_files) if stored is None else stored
    except Stopped as stopped:
        done = len(run.parts())
        print(
            f"annotate: stopped; {done} of {len(manifest)} shards are done. Rerun the same command to resume.",
            file=sys.stderr,
        )
        return stopped.exit_code
    except IncompleteRun as error:
        print(f"annotate: {error}", file=sys.stderr)
        print(
            "Rerun the same command to retry them; jobs/reduce.py --allow-partial builds tables without them.",
            file=sys.stderr,
        )
        return 1
    except (UserError, OSError) as error:
        print(f"annotate: {error}", file=sys.stderr)
        print("Finished shards are kept. Fix the cause, then rerun the same command to resume.", file=sys.stderr)
        return 1
    code = _finish(run, reduction, reuse_tracks=stored is not None)
    print(f"finished in {time.monotonic() - started:.0f} seconds")
    return code


def _annotate(run: Run, manifest: Manifest, coco_files: CocoFiles) -> Reduction:
    precomputed = coco_files.match(collection_keys(manifest))
    for warning in precomputed.coco_ids.warnings():
        print(f"note: {warning}", file=sys.stderr)
    with connect(run.settings.fleet):
        stop = Stop()
        with stop.listening(), Display() as display:
            annotate_run(run, manifest, display, stop, precomputed)
        if run.settings.profile:
            Console().print(display.profile())
        return reduce_run(run, fold_all=fold_on_ray)


def _finish(run: Run, reduction: Reduction, reuse_tracks: bool) -> int:
    """Print the summary, track, measure, evaluate and draw. A failure here does not undo the tables."""
    print("\n".join(summary(run, reduction)))
    try:
        tracks, motion = write_tracks_and_motion(run, run.settings.tracking, run.settings.motion, reuse_tracks)
        print("".join(f"{totals.line(run)}\n" for totals in (tracks, motion) if totals is not None), end="")
        if reduction.totals.with_coco_id:
            print(f"results:   {write_coco(run)}")
        metrics = None
        if run.settings.annotations:
            metrics = evaluate_run(run, run.settings.annotations, analysis=run.settings.draw > 0)
            write_metrics(metrics, run.path(""), table_skeleton(run.uri))
            print("\n".join(metrics.lines()))
        if run.settings.draw:
            if pictures := draw_run(run, run.settings.draw):
                print(f"pictures:  {run.path('pictures')} ({len(pictures)})")
            if videos := draw_videos(run, run.settings.draw):
                print(f"videos:    {run.path('videos')} ({len(videos)})")
            print(f"page:      {write_report(run, metrics)}")
    except (UserError, OSError, ImageRefused) as error:
        print(f"annotate: the tables are complete, but {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
