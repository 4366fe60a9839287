"""Dataclass fields that say what they are, so that a settings tree can hold them and `--help` can show them."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def described(default: Any, description: str) -> Any:
    """A field with a default and a description for people."""
    return field(default=default, metadata={"description": description})
