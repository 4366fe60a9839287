"""Evaluate the tables of a run, or a COCO results file, against COCO annotations; no network runs.

  uv run jobs/evaluate.py out/run1
  uv run jobs/evaluate.py out/run1 --annotations person_keypoints_val2017.json
  uv run jobs/evaluate.py results.json --annotations person_keypoints_val2017.json --why
  uv run jobs/evaluate.py s3://bucket/run1 --why --by source --by shard --ray

A run needs its tables: jobs/reduce.py builds them, with --allow-partial also those of a run that is not finished.
Exit code: 0 evaluated, 1 the annotations don't fit the run, 2 nothing to evaluate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from pipeline import storage
from pipeline.config import FleetSettings
from pipeline.evaluation import evaluate_file, evaluate_run
from pipeline.fleet import connect, on_ray
from pipeline.run import Run, RunRefused


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, or COCO results .json, local or on object storage")
    parser.add_argument("--annotations", help="COCO annotations; by default those that the run was started with")
    parser.add_argument("--why", action="store_true", help="also what is wrong, and what repairing it would gain")
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="with --why: tell people apart by it, too"
    )
    parser.add_argument(
        "--ray", action="store_true", help="spread over the cluster of RAY_ADDRESS, else one started here"
    )
    arguments = parser.parse_args(argv)
    try:
        with connect(FleetSettings()) if arguments.ray else nullcontext():
            print("\n".join(_evaluate(arguments)))
    except RunRefused as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(arguments: argparse.Namespace) -> list[str]:
    """Lines for a person to read.

    Raises:
        RunRefused: there is nothing to evaluate.
    """
    annotations, spread = arguments.annotations, on_ray if arguments.ray else map
    if arguments.run.endswith(".json"):
        if annotations is None:
            raise RunRefused(f"{arguments.run} needs annotations beside it; name them with --annotations")
        return evaluate_file(arguments.run, annotations, arguments.why, arguments.by, spread)
    run = Run.open(arguments.run)
    annotations = annotations or run.settings.annotations
    if annotations is None:
        raise RunRefused("the run was started without annotations; name some with --annotations")
    if not storage.exists(run.path("totals.json")):
        raise RunRefused(f"{run.uri} has no tables yet; build them with jobs/reduce.py {run.uri}")
    metrics = evaluate_run(run, annotations, arguments.why, arguments.by, spread)
    return [*metrics.lines(), f"written to {run.path('metrics.json')}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
