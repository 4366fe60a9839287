"""Damaged files: every entry is accounted for, nothing crashes or hangs, and nothing is written to stderr.

uv run pytest -m slow -s tests/fuzz                                    10,000 images, 1,000 of each other kind of file
PYTHONPATH=tests uv run python tests/fuzz/images.py SEED COUNT         any number
PYTHONPATH=tests uv run python tests/fuzz/files.py SEED COUNT FOLDER
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz.mutate import mutated, mutated_tree
from support.paths import PROJECT

_SEED = 16


def fuzz(script: str, *arguments: object) -> dict:
    """What a script prints; it must end in time, with exit code 0, and without a word on stderr."""
    done = subprocess.run(
        [sys.executable, f"tests/fuzz/{script}.py", *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": f"tests{os.pathsep}."},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    print(done.stdout, end="")
    return json.loads(done.stdout)


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_images_are_decoded_or_refused(count: int) -> None:
    result = fuzz("images", _SEED, count)
    assert sum(result["statuses"].values()) == count
    assert set(result["statuses"]) <= {"ok", "warning", "unreadable", "too_large"}
    assert result["statuses"]["unreadable"] > count / 2


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_archives_videos_annotations_and_checkpoints(count: int, tmp_path: Path) -> None:
    result = fuzz("files", _SEED, count, tmp_path)
    for kind, outcomes in result["counts"].items():
        assert sum(outcomes.values()) == count, kind


def test_the_same_seed_gives_the_same_damage() -> None:
    data, tree = bytes(range(200)), {"a": [1, 2, {"b": 3}], "c": "text"}
    for number in range(50):
        first, second = (np.random.default_rng([1, number]) for _ in range(2))
        assert mutated(data, first) == mutated(data, second)
        assert repr(mutated_tree(tree, first)) == repr(mutated_tree(tree, second))
    assert tree == {"a": [1, 2, {"b": 3}], "c": "text"}, "the original is not changed"
