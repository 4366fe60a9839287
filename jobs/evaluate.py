"""Evaluate a run, or a results file of any tool, against COCO annotations; no network runs.

  uv run jobs/evaluate.py out/run1
  uv run jobs/evaluate.py out/run1 --annotations person_keypoints_val2017.json --why
  uv run jobs/evaluate.py out/run2 --report --compare out/run1
  uv run jobs/evaluate.py results.json --annotations person_keypoints_val2017.json
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
from pipeline.evaluation import evaluate_file, evaluate_run, write_metrics
from pipeline.evaluation.tally import Spread
from pipeline.fleet import connect, on_ray
from pipeline.report.run_page import write_report
from pipeline.run import Run, RunRefused


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, or COCO results .json, local or on object storage")
    parser.add_argument("--annotations", help="COCO annotations; by default those that the run was started with")
    parser.add_argument("--why", action="store_true", help="also what is wrong, and what repairing it would gain")
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="with --why: tell people apart by it, too"
    )
    parser.add_argument("--report", action="store_true", help="also report.html: numbers, reasons, worst images")
    parser.add_argument(
        "--compare", metavar="RUN", help="with report.html: what improved since another run, what broke"
    )
    parser.add_argument(
        "--ray", action="store_true", help="spread over the cluster of RAY_ADDRESS, else one started here"
    )
    arguments = parser.parse_args(argv)
    try:
        with connect(FleetSettings()) if arguments.ray else nullcontext():
            spread = on_ray if arguments.ray else map
            told = _file if arguments.run.endswith(".json") else _run
            print("\n".join(told(arguments, spread)))
    except RunRefused as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _file(arguments: argparse.Namespace, spread: Spread) -> list[str]:
    if arguments.annotations is None:
        raise RunRefused(f"{arguments.run} needs annotations beside it; name them with --annotations")
    if arguments.report or arguments.compare:
        raise RunRefused(f"{arguments.run}: a page is made of a run, not of a results file")
    return evaluate_file(arguments.run, arguments.annotations, arguments.why, arguments.by, spread)


def _run(arguments: argparse.Namespace, spread: Spread) -> list[str]:
    run = _reduced(arguments.run)
    annotations = arguments.annotations or run.settings.annotations
    if annotations is None:
        if arguments.report and not arguments.compare:
            return [f"page:      {write_report(run)}"]
        raise RunRefused("the run was started without annotations; name some with --annotations")
    page = arguments.report or arguments.compare is not None
    metrics = evaluate_run(run, annotations, arguments.why or page, arguments.by, spread)
    if (arguments.why or arguments.compare) and metrics.keypoints is None:
        raise ValueError(f"{annotations} has no keypoints; what is wrong with joints cannot be told")
    lines = [*metrics.lines(), f"written to {write_metrics(run, metrics)}"]
    if page:
        other = None
        if arguments.compare is not None:
            before = _reduced(arguments.compare)
            other = (before, evaluate_run(before, annotations, True, arguments.by, spread))
        lines.append(f"page:      {write_report(run, metrics, other)}")
    return lines


def _reduced(uri: str) -> Run:
    run = Run.open(uri)
    if not storage.exists(run.path("totals.json")):
        raise RunRefused(f"{run.uri} has no tables yet; build them with jobs/reduce.py {run.uri}")
    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
