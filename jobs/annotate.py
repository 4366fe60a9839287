"""Annotate a collection of images with human keypoints.

  uv run jobs/annotate.py                                         the demo
  uv run jobs/annotate.py --input my/photos --output out/run1     your own
  ray job submit --working-dir . -- python jobs/annotate.py --input s3://... --output s3://...

The same command goes on with an interrupted run; a finished run has nothing left to do.
Exit code: 0 all done, 1 something is missing, 2 a mistake in the settings, 130 or 143 stopped by a signal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline import storage
from pipeline.config import absolute_paths
from pipeline.evaluation import evaluate_run, write_metrics
from pipeline.evaluation.results import write_coco_results
from pipeline.flags import parse_settings
from pipeline.fleet import (
    FleetError,
    IncompleteRun,
    Reduction,
    Stop,
    Stopped,
    annotate_run,
    connect,
    reduce_run,
    stored_reduction,
)
from pipeline.fleet.display import Display
from pipeline.given import Given
from pipeline.images import ImageRefused
from pipeline.report.draw import draw_run
from pipeline.report.summary import summary
from pipeline.run import Run
from pipeline.sources import Manifest

DEMO = Path(__file__).resolve().parents[1] / "configs" / "annotate" / "demo.yaml"


def main(argv: Sequence[str]) -> int:
    settings = absolute_paths(parse_settings(argv, __doc__ or "", default_config=str(DEMO)))
    storage.PATIENCE.seconds = settings.fleet.storage_patience
    started = time.monotonic()
    try:
        given = Given.load(settings)
        run = Run.create(settings)
        manifest = run.plan()
    except (ValueError, OSError) as error:
        print(f"annotate: {error}", file=sys.stderr)
        return 2
    try:
        reduction = stored_reduction(run)
        if reduction is None:
            reduction = _annotate(run, manifest, given)
    except Stopped as stopped:
        done = len(run.parts())
        print(
            f"annotate: stopped; {done} of {len(manifest)} shards are done. The same command goes on.", file=sys.stderr
        )
        return stopped.exit_code
    except IncompleteRun as error:
        print(f"annotate: {error}", file=sys.stderr)
        print(
            "The same command tries them again; jobs/reduce.py --allow-partial makes tables of the rest.",
            file=sys.stderr,
        )
        return 1
    except (FleetError, ValueError, OSError) as error:
        print(f"annotate: {error}", file=sys.stderr)
        print("What is done is kept; once that is mended, the same command goes on.", file=sys.stderr)
        return 1
    code = _finish(run, reduction)
    print(f"{time.monotonic() - started:.0f} seconds in all")
    return code


def _annotate(run: Run, manifest: Manifest, given: Given) -> Reduction:
    with connect(run.settings.fleet):
        stop = Stop()
        with stop.listening(), Display() as display:
            annotate_run(run, manifest, display, stop, given)
        if run.settings.profile:
            Console().print(display.profile())
        return reduce_run(run)


def _finish(run: Run, reduction: Reduction) -> int:
    """Print what there is; a failure to measure or to draw it is told after, and does not undo it."""
    print("\n".join(summary(run, reduction)))
    try:
        if reduction.totals.with_coco_id:
            print(f"results:   {write_coco_results(run)}")
        if run.settings.annotations:
            metrics = evaluate_run(run, run.settings.annotations)
            write_metrics(run, metrics)
            print("\n".join(metrics.lines()))
        if run.settings.draw:
            print(f"pictures:  {run.path('pictures')} ({len(draw_run(run, run.settings.draw))})")
    except (ValueError, OSError, ImageRefused) as error:
        print(f"annotate: the tables are complete, but {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
