"""Evaluate the tables of a run, or a COCO results file, against COCO annotations; no network runs.

  uv run jobs/evaluate.py out/run1
  uv run jobs/evaluate.py out/run1 --annotations person_keypoints_val2017.json
  uv run jobs/evaluate.py results.json --annotations person_keypoints_val2017.json --why

A run needs its tables: jobs/reduce.py builds them, with --allow-partial also those of a run that is not finished.
Exit code: 0 evaluated, 1 the annotations don't fit the run, 2 nothing to evaluate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline import storage
from pipeline.evaluation import evaluate_file, evaluate_run, explain_run
from pipeline.run import Run


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, or COCO results .json, local or on object storage")
    parser.add_argument("--annotations", help="COCO annotations; by default those that the run was started with")
    parser.add_argument("--why", action="store_true", help="also what is wrong, and what repairing it would gain")
    arguments = parser.parse_args(argv)
    if arguments.run.endswith(".json"):
        return _evaluate_file(arguments.run, arguments.annotations, arguments.why)
    try:
        run = Run.open(arguments.run)
    except ValueError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    annotations = arguments.annotations or run.settings.annotations
    if annotations is None:
        print("evaluate: the run was started without annotations; name some with --annotations", file=sys.stderr)
        return 2
    if not storage.exists(run.path("totals.json")):
        print(f"evaluate: {run.uri} has no tables yet; build them with jobs/reduce.py {run.uri}", file=sys.stderr)
        return 2
    try:
        metrics = evaluate_run(run, annotations)
        errors = explain_run(run, annotations) if arguments.why else []
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print("\n".join([*metrics.lines(), *errors, f"written to {run.path('metrics.json')}"]))
    return 0


def _evaluate_file(results: str, annotations: str | None, why: bool) -> int:
    if annotations is None:
        print(f"evaluate: {results} needs annotations beside it; name them with --annotations", file=sys.stderr)
        return 2
    try:
        print("\n".join(evaluate_file(results, annotations, why)))
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
