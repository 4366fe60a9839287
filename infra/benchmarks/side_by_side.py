"""Time of two commands for the same inputs, in alternating rounds: this project's job and any other program's.

uv run infra/benchmarks/side_by_side.py --rounds 3 --images 100 \
    "uv run jobs/annotate.py --input photos --output {folder}/run" "python other.py photos {folder}/run"

{folder} is a new folder in each round, so that no command finds its earlier results. The order of the two changes from
round to round. Commands run in a shell; one that fails ends the comparison with exit code 1.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time


def run(command: str, folder: str) -> float:
    """Seconds that a command takes.

    Raises:
        subprocess.CalledProcessError: it failed; its output is the error's.
    """
    started = time.monotonic()
    subprocess.run(command.replace("{folder}", folder), shell=True, check=True, capture_output=True, text=True)
    return time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="command")
    parser.add_argument("second", help="command")
    parser.add_argument("--rounds", type=int, default=3, help="of both commands (default: 3)")
    parser.add_argument("--images", type=int, help="number of images, to print images per second")
    arguments = parser.parse_args()
    commands = (arguments.first, arguments.second)
    walls: tuple[list[float], list[float]] = ([], [])
    for number in range(arguments.rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
                try:
                    walls[index].append(run(commands[index], folder))
                except subprocess.CalledProcessError as error:
                    last = (error.stderr.strip().splitlines() or ["no message"])[-1]
                    print(f"exit code {error.returncode}: {commands[index]}: {last}", file=sys.stderr)
                    return 1
            print(f"round {number + 1}, command {index + 1}: {walls[index][-1]:.1f} s", flush=True)
    for index, seconds in enumerate(walls):
        speed = f", {arguments.images / min(seconds):.2f} images/s" if arguments.images else ""
        print(f"command {index + 1}: least {min(seconds):.1f} s, median {statistics.median(seconds):.1f} s{speed}")
    ratios = [b / a for a, b in zip(*walls, strict=True)]
    print(f"second / first: least {min(walls[1]) / min(walls[0]):.2f}, by round {min(ratios):.2f} to {max(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
