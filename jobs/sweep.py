"""Compare settings on annotated images, and rank them.

examples:
  uv run jobs/sweep.py --config configs/sweep/suppression.yaml --base.input.uri photos --annotations people.json
  uv run jobs/sweep.py --config configs/sweep/networks.yaml --base.input.uri photos --annotations people.json
  uv run jobs/sweep.py --run out/run1 --annotations people.json --grid "{suppression.kind: [pose, oks]}"

Settings that apply after the networks (suppression.*, detector.confidence) are evaluated on stored candidates, without
running a network. Each choice of other settings needs its own run, which is reused: rerun the same command to resume.
exit code: 0 all trials done, 1 a run or evaluation failed, 2 wrong settings, 130 or 143 stopped by a signal
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError
from pipeline.fleet import Stop, Stopped, connect
from pipeline.preflight import check_networks
from pipeline.process.end import end_process
from pipeline.settings.flags import parse_settings
from pipeline.sweep.leaderboard import leaderboard_page, leaderboard_table
from pipeline.sweep.runner import SweepResult, annotations_of, run_sweep
from pipeline.sweep.settings import SweepSettings
from pipeline.sweep.trials import by_networks, trials_of

_PRINTED = 10


def main(argv: Sequence[str]) -> int:
    sweep = parse_settings(argv, __doc__ or "", kind=SweepSettings).with_absolute_paths()
    try:
        trials = trials_of(sweep)
        if sweep.run is None:
            for uri in (sweep.base.input.uri, sweep.annotations, storage.join(sweep.output, "leaderboard.parquet")):
                storage.check_access(uri or "")
            for settings, _ in by_networks(trials):
                check_networks(settings)
    except (UserError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    try:
        with connect(sweep.base.fleet):
            result = run_sweep(sweep, trials, Stop())
        _write(sweep, result)
    except Stopped as stopped:
        print("sweep: stopped; rerun the same command to resume.", file=sys.stderr)
        return stopped.exit_code
    except (UserError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 1
    print(f"{len(result.rows)} trials, best F1 first:")
    for row in result.rows[:_PRINTED]:
        varied = ", ".join(f"{name} {value}" for name, value in row.trial.varied.items())
        speed = f", {row.images_per_second:.1f} images/s" if row.images_per_second else ""
        rates = row.outcome.people.rates
        print(
            f"  F1 {row.outcome.f1:.3f}  AP {row.outcome.metrics.ap:.3f}  recall {rates.recall:.3f}  "
            f"precision {rates.precision:.3f}{speed}  {varied}"
        )
    print(f"table:     {storage.join(sweep.output, 'leaderboard.parquet')}")
    print(f"page:      {storage.join(sweep.output, 'leaderboard.html')}")
    return 0


def _write(sweep: SweepSettings, result: SweepResult) -> None:
    sink = io.BytesIO()
    pq.write_table(leaderboard_table(result.rows), sink, compression="zstd")
    storage.write_bytes(storage.join(sweep.output, "leaderboard.parquet"), sink.getvalue())
    page = leaderboard_page(result.rows, annotations_of(sweep), result.curve)
    storage.write_bytes(storage.join(sweep.output, "leaderboard.html"), page)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
