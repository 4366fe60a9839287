"""Build the tables of a run from its parts, and check that the run is complete.

examples:
  uv run jobs/reduce.py out/run1
  uv run jobs/reduce.py out/run1 --allow-partial
  uv run jobs/reduce.py out/run1 --export cvat --export yolo

exit code: 0 tables built, 1 shards are missing or damaged, 2 not a run directory
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.errors import UserError
from pipeline.fleet import connect, fold_on_ray
from pipeline.formats import FORMATS, export, write_coco
from pipeline.report.summary import summary
from pipeline.run import Run, RunRefused
from pipeline.run.reduction import reduce_run


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, local or on object storage")
    parser.add_argument(
        "--allow-partial", action="store_true", help="build tables although shards are missing; totals.json says so"
    )
    parser.add_argument(
        "--export", action="append", default=[], choices=list(FORMATS), help="also write this format; repeatable"
    )
    arguments = parser.parse_args(argv)
    try:
        run = Run.open(arguments.run)
        with connect(run.settings.fleet):
            reduction = reduce_run(run, arguments.allow_partial, fold_on_ray)
        exported = [export(run, name) for name in arguments.export]
        results = write_coco(run) if reduction.totals.with_coco_id else None
    except RunRefused as error:
        print(f"reduce: {error}", file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(f"reduce: {error}", file=sys.stderr)
        return 1
    print("\n".join(summary(run, reduction)))
    if results is not None:
        print(f"results:   {results}")
    for uri in exported:
        print(f"exported:  {uri}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
