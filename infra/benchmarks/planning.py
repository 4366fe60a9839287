"""Measure time and memory of planning: list a folder of a million files and write its manifest.

uv run infra/benchmarks/planning.py
uv run infra/benchmarks/planning.py --files 100000
uv run infra/benchmarks/planning.py --s3 s3://bucket/prefix      an existing prefix, on the server of AWS_ENDPOINT_URL

A prefix of an object store is also listed request by request, as before its folders were listed concurrently.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from pipeline import storage
from pipeline.settings.tree import InputSettings
from pipeline.sources import Manifest, plan_collection, write_manifest
from pipeline.storage import s3_listing

_PER_FOLDER = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", type=int, default=1_000_000, help="number of empty files to create (default: 1,000,000)"
    )
    parser.add_argument("--s3", metavar="URI", help="plan this prefix of an object store instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        for number in range(0 if arguments.s3 else arguments.files):
            path = folder / f"{number // _PER_FOLDER:05d}" / f"{number:08d}.jpg"
            if number % _PER_FOLDER == 0:
                path.parent.mkdir(parents=True)
            os.close(os.open(path, os.O_CREAT))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        uri = str(Path(name) / "manifest.parquet")
        write_manifest(uri, plan_collection(InputSettings(uri=arguments.s3 or str(folder))))
        plan_seconds = time.perf_counter() - started
        manifest = Manifest(uri)
        for _ in manifest.shards():
            pass
        read_seconds = time.perf_counter() - started - plan_seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = os.path.getsize(uri)
    print(f"{manifest.num_images} objects in {len(manifest)} shards: listed and planned in {plan_seconds:.1f} s,")
    megabytes = (peak - before) / 1024  # ru_maxrss is in KiB
    print(f"read back in {read_seconds:.1f} s; {megabytes:.0f} MB more memory, manifest of {size / 1e6:.1f} MB")
    if arguments.s3:
        concurrent = _seconds_to_list(arguments.s3)
        s3_listing._ENOUGH = 0  # folders below are not looked for
        alone = _seconds_to_list(arguments.s3)
        print(
            f"listed in {concurrent:.1f} s, request by request in {alone:.1f} s: {alone / concurrent:.1f} times as long"
        )
    return 0


def _seconds_to_list(uri: str) -> float:
    started = time.perf_counter()
    for _ in storage.list_files(uri):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
