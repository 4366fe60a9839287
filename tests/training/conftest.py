from __future__ import annotations

from pathlib import Path

import pytest
from support.training import make_collection


@pytest.fixture
def collection(tmp_path: Path) -> dict:
    """The content of the train.json that it writes, with images, into the folder of the test."""
    return make_collection(tmp_path)
