"""An exported network: the file, its metadata, and its differences from the network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import UserError
from pipeline.export.parity import Parity
from pipeline.runtime.network import EXPORTED_SUFFIXES
from pipeline.weights.catalogue import local_file


@dataclass(frozen=True)
class Exported:
    """An exported network, ready to be written.

    Attributes:
        name: file name.
        data: the file.
        metadata: stored in it.
    """

    name: str
    data: bytes
    metadata: Mapping[str, str]
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """As plain values: digest, size, metadata and differences."""
        digest = hashlib.sha256(self.data).hexdigest()
        shared = {"sha256": digest, "bytes": len(self.data), "metadata": dict(self.metadata)}
        return shared | {"differences": asdict(self.parity)}


def weights_to_export(setting: str, uri: str) -> Path:
    """Local path of the weights that a setting names.

    Raises:
        UserError: they are an exported file, or there is no such file.
    """
    path = local_file(uri)
    if path.suffix.lower() in EXPORTED_SUFFIXES:
        raise UserError(f"--{setting} {uri} is an exported file already")
    return path


def provenance(weights: Path) -> dict[str, str]:
    """Metadata about where a file comes from: name and digest of the weights, versions."""
    packages = [f"{name} {_version(name)}" for name in ("posemill", "torch", "onnxscript")]
    return {"source": weights.name, "source_sha256": storage.file_sha256(weights), "exported_by": ", ".join(packages)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the project itself, if it runs from its folder
        return "not installed"
