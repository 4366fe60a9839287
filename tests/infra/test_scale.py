"""The benchmark of the driver runs: its networks, which sleep, have all that the job asks of networks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.paths import PROJECT


@pytest.mark.slow
def test_sleeping_networks_annotate() -> None:
    command = ["infra/benchmarks/scale.py", "workers", "--shards=2", "--images=50", "--rounds=1"]
    done = subprocess.run([sys.executable, *command], cwd=PROJECT, capture_output=True, text=True, check=True)
    table = done.stdout.partition("overhead: median")[2]
    rates = {
        line.split()[0]: float(line.split()[1]) for line in table.splitlines() if line.split()[2:3] and "%" in line
    }
    assert set(rates) == {"1", "2", "4"}
    assert all(rate > 0 for rate in rates.values())
