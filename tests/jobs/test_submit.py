"""`ray job submit`, as on a cluster: the project is uploaded, and the job runs from the upload."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cluster import FLAGS, NUM_IMAGES, free_port, rows, start_cluster
from support.paths import PROJECT

pytestmark = pytest.mark.slow


def test_a_submitted_job_is_complete(photos: Path, undisturbed, tmp_path: Path) -> None:
    port = free_port()
    run = tmp_path / "run"
    job = [sys.executable, "jobs/annotate.py", f"--input={photos}", f"--output={run}", "--input.shard_size=6", *FLAGS]
    with start_cluster(tmp_path, dashboard=port):
        ray = Path(sys.executable).parent / "ray"
        arguments = ["job", "submit", "--address", f"http://127.0.0.1:{port}", "--working-dir", ".", "--", *job]
        environment = {**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        for _ in range(20):
            done = subprocess.run(
                [ray, *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=240
            )
            if "No available agent to submit job" not in done.stderr:
                break
            time.sleep(3)  # a fresh head takes half a minute
    output = re.sub(r"\x1b\[\d*m", "", done.stdout) + done.stderr
    assert done.returncode == 0, output
    assert f"{NUM_IMAGES} images ({NUM_IMAGES} ok)" in output
    assert rows(str(run)) == undisturbed
