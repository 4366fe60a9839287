"""Seeded damage to files: flipped, lost, repeated and inserted bytes, and odd values in JSON."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 70, 1.5, float("nan"), float("inf"), "", "x", "7", [], [1], {}, {"id": 1}, [None] * 51,
)  # fmt: skip


def mutated(data: bytes, r: np.random.Generator) -> bytes:
    """A damaged copy of a file: one to four changes."""
    out = bytearray(data)
    for _ in range(int(r.integers(1, 5))):
        if not out:
            break
        at = int(r.integers(len(out)))
        length = int(min(len(out) - at, r.integers(1, 40)))
        kind = int(r.integers(7))
        if kind == 0:  # most formats are described by their first bytes
            out[at % min(len(out), 200)] = int(r.integers(256))
        elif kind == 1:
            out[at] ^= 1 << int(r.integers(8))
        elif kind == 2:
            out[at : at + length] = bytes(length)
        elif kind == 3:
            out[at : at + length] = b"\xff" * length
        elif kind == 4:
            del out[at : at + length]
        elif kind == 5:
            out[at:at] = out[at : at + length]
        else:
            del out[at:]
    return bytes(out)


def mutated_tree(tree: Any, r: np.random.Generator) -> Any:
    """A copy of JSON content with one to three values replaced by odd ones, or removed."""
    out = copy.deepcopy(tree)
    for _ in range(int(r.integers(1, 4))):
        node, parent, key = out, None, None
        while isinstance(node, dict | list) and node and (parent is None or r.random() < 0.8):
            parent = node
            key = list(node)[int(r.integers(len(node)))] if isinstance(node, dict) else int(r.integers(len(node)))
            node = parent[key]
        if parent is None:
            return _ODD_VALUES[int(r.integers(len(_ODD_VALUES)))]
        if r.random() < 0.2:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(_ODD_VALUES[int(r.integers(len(_ODD_VALUES)))])
    return out
