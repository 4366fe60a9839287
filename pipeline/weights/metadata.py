"""Metadata of weights files, and the images that weights were trained on. Imports no torch."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

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


def _onnx_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file.

    Raises:
        UserError: the file is broken.
    """
    import onnx  # imported here: most runs do not need it
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise UserError(f"{path}: cannot be read as an ONNX file ({first_line(error)})") from None
    return {entry.key: entry.value for entry in model.metadata_props}


def image_digest(name: str) -> bytes:
    """The digest of an image's name: of the file name without folders and suffix, so that copies are recognised."""
    base = storage.basename(name)
    return hashlib.sha256(base.removesuffix(storage.suffix(base)).lower().encode()).digest()[:_DIGEST_BYTES]


def encode_training_images(digests: Iterable[bytes]) -> str:
    """The value of `TRAINING_IMAGES`."""
    return base64.b64encode(b"".join(sorted(set(digests)))).decode()


class TrainingImages(NamedTuple):
    """The digests of the images that some weights files were trained on, and the files that do not state theirs."""

    digests: frozenset[bytes]
    unknown: tuple[str, ...]


def training_images(weights: Iterable[str]) -> TrainingImages:
    """
    Args:
        weights: local paths, URIs, or names in the catalogue. Files of other tools do not state their training images,
            nor do files that this machine cannot read.
    """
    digests: set[bytes] = set()
    unknown = []
    for uri in weights:
        stated = ""
        with contextlib.suppress(OSError, UserError):
            path = local_file(uri)
            if path.suffix == ".safetensors":
                stated = read_safetensors_metadata(path).get(TRAINING_IMAGES, "")
            elif path.suffix == ".onnx":
                stated = _onnx_metadata(path).get(TRAINING_IMAGES, "")
        try:
            content = base64.b64decode(stated, validate=True)
        except ValueError:  # another program uses the same key
            content = b""
        if not content or len(content) % _DIGEST_BYTES:
            unknown.append(uri)
        else:
            digests |= {content[i : i + _DIGEST_BYTES] for i in range(0, len(content), _DIGEST_BYTES)}
    return TrainingImages(frozenset(digests), tuple(unknown))
