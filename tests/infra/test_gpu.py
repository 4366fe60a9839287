"""The benchmark for a GPU runs where neither Ray nor other packages are, and on a CPU, to try it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import PROJECT

# What a machine with torch, torchvision, OpenCV and numpy alone does not have.
_WITHOUT = """
import runpy, sys
for name in ("ray", "pydantic", "pyarrow", "fsspec", "yaml", "rich", "simplejpeg", "scipy", "PIL", "safetensors"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_run_without_a_gpu(tmp_path: Path) -> None:
    command = ["infra/benchmarks/gpu.py", "--device=cpu", "--size=64", "--images=8", "--minutes=0.02"]
    subprocess.run(
        [sys.executable, "-c", _WITHOUT, *command, "--output", str(tmp_path / "out")], cwd=PROJECT, check=True
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    found = {row["name"]: row for row in rows}
    assert found["matrix multiplication, float32"]["TFLOP/s"] > 0
    if "worker, float32" in found:  # a machine may be too slow for it
        assert set(found["worker, float32"]) >= {"images/s", "of the networks alone", "times the unbatched way"}
    assert not [row for row in rows if "failed" in row]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| decode on the CPU, 16 threads | not measured no time left |" in table


def test_a_gpu_that_is_missing_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "infra/benchmarks/gpu.py", "--output", str(tmp_path)],
        cwd=PROJECT, capture_output=True, text=True, check=False, env={"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert "no GPU is visible; --device cpu tries the script without one" in done.stderr
