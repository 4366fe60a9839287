"""Folders of the project, and marks of tests that need files outside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("POSEMILL_SHARED", PROJECT.parent / "shared"))
PEOPLE = SHARED / "people"
DEMO = PROJECT / "configs" / "demo"
DEMO_BOXES = PROJECT / "tests" / "support" / "data" / "demo_boxes.json"  # drawn by hand

needs_people = pytest.mark.skipif(not PEOPLE.is_dir(), reason="needs the photographs of ../shared/people")
needs_reference = pytest.mark.skipif(
    not (SHARED / "reference").is_dir(), reason="needs the reference vectors of ../shared/reference"
)
needs_models = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="needs the networks of ../shared/models")
