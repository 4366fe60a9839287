"""Check that memory does not grow with the collection: peak memory of driver and worker for N and for 10 N images.

  uv run infra/benchmarks/memory.py
  uv run infra/benchmarks/memory.py --images 500

Both runs are complete jobs on a local cluster. Exit code 1 if the driver or the worker needs over 10 % more memory for
the larger collection.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
MAX_RATIO = 1.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="images of the smaller collection (default: 2000)")
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = _peaks(folder, count)
        large = _peaks(folder, 10 * count)
    max_ratio = 0.0
    print(f"{'':8s} {count:>10d} images {10 * count:>10d} images   ratio")
    for process in ("driver", "worker"):
        ratio = large[process] / small[process]
        max_ratio = max(max_ratio, ratio)
        print(f"{process:8s} {small[process] / 2**20:>13.0f} MB {large[process] / 2**20:>13.0f} MB   {ratio:5.3f}")
    return 0 if max_ratio <= MAX_RATIO else 1


def _peaks(folder: Path, count: int) -> dict[str, int]:
    """Peak resident bytes of the driver and of its largest worker, sampled every 50 ms while a job runs."""
    photos = folder / f"photos{count}"
    photos.mkdir()
    r = np.random.default_rng(0)
    for i in range(count):
        sink = io.BytesIO()
        coarse = r.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 240)).save(sink, "JPEG")
        (photos / f"{i:06d}.jpg").write_bytes(sink.getvalue())
    command = [
        sys.executable,
        str(PROJECT / "jobs" / "annotate.py"),
        f"--input={photos}",
        f"--output={folder}/run{count}",
    ]
    job = psutil.Popen(
        [*command, "--detector.name=whole_image", "--input.shard_size=200", "--fleet.workers=1"],
        stdout=subprocess.DEVNULL,
    )
    peaks = {"driver": 0, "worker": 0}
    while job.poll() is None:
        for process in [job, *job.children(recursive=True)]:
            try:
                title = process.cmdline()[:1]
                kind = "driver" if process.pid == job.pid else "worker" if title and "ray::Worker" in title[0] else None
                if kind:
                    peaks[kind] = max(peaks[kind], process.memory_info().rss)
            except psutil.Error:
                continue
        time.sleep(0.05)
    if job.returncode:
        raise SystemExit(f"the job failed with exit code {job.returncode}")
    return peaks


if __name__ == "__main__":
    sys.exit(main())
