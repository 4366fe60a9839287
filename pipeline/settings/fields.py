"""Dataclass fields with descriptions, for settings sections that are plain dataclasses."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def described(default: Any, description: str) -> Any:
    """A field with a default and a description for `--help`."""
    return field(default=default, metadata={"description": description})
