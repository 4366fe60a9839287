"""Other programs, each in an environment of its own: their dependencies conflict with each other's and with ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")


def run_with(packages: str, script: str, *arguments: str, **environment: str) -> Any:
    """What a script prints as JSON on its last line, run where only these packages (and theirs) are installed.

    Args:
        packages: `name==version`, separated by spaces.
    """
    alone = ["uv", "run", "--isolated", "--no-project", "--quiet", "--python=3.11"]
    done = subprocess.run(
        [*alone, *(f"--with={package}" for package in packages.split()), "python", "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
