"""Build the tables of a run from its parts, and check that the run is complete.

examples:
  uv run jobs/reduce.py out/run1
  uv run jobs/reduce.py out/run1 --allow-partial
  uv run jobs/reduce.py out/run1 --export cvat --export yolo
  uv run jobs/reduce.py out/run1 --review 50 --by uncertain
  uv run jobs/reduce.py out/run1 --tracking.memory 2 --motion

Existing tables of a complete run are reused by --export, --review, --tracking and --motion.
exit code: 0 tables built, 1 shards are missing or damaged, 2 not a run directory
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.fleet import connect, fold_on_ray, write_tracks_and_motion
from pipeline.formats import FORMATS, export, write_coco
from pipeline.process.end import end_process
from pipeline.report.summary import summary
from pipeline.review.queue import BY, write_review
from pipeline.run import Run, RunRefused
from pipeline.run.reduction import reduce_run, stored_reduction
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import stored_settings

_TRACKING = TrackingSettings.model_fields


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, local or on object storage")
    parser.add_argument(
        "--allow-partial", action="store_true", help="build tables although shards are missing; totals.json says so"
    )
    parser.add_argument(
        "--export", action="append", default=[], choices=list(FORMATS), help="also write this format; repeatable"
    )
    parser.add_argument(
        "--review", type=_positive, metavar="N", help="also write review/: N images worth correcting, as tasks"
    )
    parser.add_argument("--by", choices=BY, default="uncertain", help="what makes an image worth correcting")
    parser.add_argument(
        "--url-prefix", metavar="URL", help="--review: tasks refer to URL + image id, and no copies are written"
    )
    parser.add_argument(
        "--motion", action="store_true", help="also write joint angles and events; by default as before"
    )
    for name, info in _TRACKING.items():
        parser.add_argument(f"--tracking.{name}", metavar="VALUE", help=f"{info.description}; by default as before")
    arguments = parser.parse_args(argv)
    if arguments.review is None and (arguments.url_prefix or arguments.by != parser.get_default("by")):
        parser.error("--by and --url-prefix need --review N")
    changed = {name: value for name in _TRACKING if (value := getattr(arguments, f"tracking.{name}")) is not None}
    try:
        TrackingSettings.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(f"--tracking.{first['loc'][0]} {first['input']}: {first['msg']}")
    try:
        run = Run.open(arguments.run)
        stored = stored_reduction(run) if arguments.export or arguments.review or arguments.motion or changed else None
        reduction = stored
        if reduction is None:
            with connect(run.settings.fleet):
                reduction = reduce_run(run, arguments.allow_partial, fold_on_ray)
        results = write_coco(run) if reduction.totals.with_coco_id else None
        before = stored_settings(run) or run.settings.tracking
        tracking = TrackingSettings.model_validate(before.model_dump() | changed)
        for name, reason in tracking.unused().items():
            if name.removeprefix("tracking.") in changed:
                raise RunRefused(f"--{name} has no effect {reason}")
        wanted = arguments.motion or run.settings.motion
        drawn = run.drawn_videos()
        tracks, motion = write_tracks_and_motion(run, tracking, wanted, reuse=stored is not None)
        exported = [export(run, name) for name in arguments.export]
        queue = write_review(run, arguments.review, arguments.by, arguments.url_prefix) if arguments.review else None
    except RunRefused as error:
        print(f"reduce: {error}", file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(f"reduce: {error}", file=sys.stderr)
        return 1
    print("\n".join(summary(run, reduction)))
    if tracks is not None:
        print(tracks.line(run))
    if motion is not None:
        print(motion.line(run))
    if drawn and not run.drawn_videos():
        print(f"videos:    deleted, with the page: they showed other tracks ({len(drawn)})")
    if results is not None:
        print(f"results:   {results}")
    for uri in exported:
        print(f"exported:  {uri}")
    if queue is not None:
        print(f"review:    {queue.num_images} images, listed in {queue.listed}")
        if queue.images is not None:
            print(f"  copies        {queue.images}")
        print(f"  CVAT          {queue.cvat}")
        print(f"  Label Studio  {queue.label_studio}, labelling interface {queue.interface}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
