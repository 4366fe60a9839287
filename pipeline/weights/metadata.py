"""Metadata of weights files, and the images that weights were trained on. Imports no torch."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from pipeline import storage
from pipeline.errors import UserError, first_line
from pipeline.weights.catalogue import local_file

TRAINING_IMAGES = "training_images"  # key of the metadata
_DIGEST_BYTES = 6  # one chance of 40,000 that any of a million other names is among 6,000


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file.

    Raises:
        UserError: the file is broken.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except Exception as error:
        raise UserError(f"{path}: cannot be read as tensors ({first_line(error)})") from None


def image_digest(name: str) -> bytes:
    """The digest of an image's name: of the file name without folders and suffix, so that copies are recognised."""
    base = storage.basename(name)
    return hashlib.sha256(base.removesuffix(storage.suffix(base)).lower().encode()).digest()[:_DIGEST_BYTES]


def encode_training_images(digests: Iterable[bytes]) -> str:
    """The value of `TRAINING_IMAGES`."""
    return base64.b64encode(b"".join(sorted(set(digests)))).decode()


def training_images(weights: Iterable[str]) -> frozenset[bytes]:
    """The digests of the images that any of some weights files were trained on, as far as the files state them.

    Files that state none, such as those of other tools, or that this machine does not have, count as having seen none.

    Args:
        weights: local paths, URIs, or names in the catalogue.
    """
    digests: set[bytes] = set()
    for uri in weights:
        try:
            path = local_file(uri)
            stated = read_safetensors_metadata(path).get(TRAINING_IMAGES, "") if path.suffix == ".safetensors" else ""
        except (OSError, UserError):
            continue
        content = base64.b64decode(stated)
        digests |= {content[i : i + _DIGEST_BYTES] for i in range(0, len(content), _DIGEST_BYTES)}
    return frozenset(digests)
