"""The catalogue of checkpoints: published ones with their pages and licences, and those shipped with the project.

`python -m pipeline.weights` shows it on the command line.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from pipeline import storage
from pipeline.errors import UserError

_FOLDER = Path(__file__).resolve().parents[2] / "weights"


class WeightsError(UserError):
    """A weights file with another digest than expected, or one that must be downloaded by hand."""


class CatalogueEntry(BaseModel):
    """A checkpoint that is published, or shipped with the project.

    Attributes:
        name: value for `--pose.weights` or `--detector.weights`.
        network: name of the pose network or detector.
        licence: its licence, or a summary of its terms of use.
        file: file name of the published checkpoint; None if it is not known for certain.
        joints: number of outputs of a pose network; None for detectors.
        input_size: height and width of its input, pixels.
        decode: value of `pose.decode` for a pose network.
        published: published accuracy and the data of its measurement.
        config: name of the training configuration of its authors.
        page: web page of the checkpoint.
        url: direct download address, if one exists.
        sha256: digest of the file, if it is known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    network: str
    licence: str
    file: str | None = None
    joints: int | None = None
    input_size: tuple[int, int] | None = None
    decode: str | None = None
    published: str | None = None
    config: str | None = None
    page: str | None = None
    url: str | None = None
    sha256: str | None = None

    @property
    def shipped(self) -> Path | None:
        """Path of the file in the weights folder of the project, if it exists there."""
        path = _FOLDER / self.file if self.file else None
        return path if path is not None and path.is_file() else None


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """The entries of weights/catalogue.yaml by name."""
    entries = [
        CatalogueEntry.model_validate(entry) for entry in yaml.safe_load((_FOLDER / "catalogue.yaml").read_text())
    ]
    return {entry.name: entry for entry in entries}


def catalogued(weights: str) -> CatalogueEntry | None:
    """The entry of a `weights` setting, by its name or by the name of its file; None if it is not in the catalogue."""
    by_file = (entry for entry in catalogue().values() if entry.file == storage.basename(weights))
    return catalogue().get(weights) or next(by_file, None)


def is_shipped(weights: str) -> bool:
    """Whether a `weights` setting names a file of the project, by name or path."""
    entry = catalogued(weights)
    if entry is None or entry.shipped is None:
        return False
    return weights == entry.name or (storage.is_local(weights) and Path(weights).resolve() == entry.shipped.resolve())


def local_file(weights: str) -> Path:
    """Local path of a `weights` setting: a path, a URI or a name in the catalogue. Downloads are cached.

    Raises:
        WeightsError: the checkpoint has no direct download address.
        storage.MissingObject: the file does not exist.
    """
    entry = catalogued(weights)
    if entry is None or weights != entry.name:
        try:
            path = storage.local_copy(weights)
        except storage.MissingObject as error:
            raise storage.MissingObject(f"{error}{_suggestion(weights)}") from None
    elif entry.shipped is not None:
        path = entry.shipped
    elif entry.url is not None:
        path = storage.local_copy(entry.url)
    else:
        raise WeightsError(
            f"{weights} has no direct download address; download it from {entry.page} and set the path of the file"
        )
    _refuse_placeholder(weights, path)
    return path


def _suggestion(weights: str) -> str:
    """What to do about a name that is neither a file nor in the catalogue, for the end of an error message."""
    name = storage.basename(weights)
    if "." in name:
        return ""
    named = [entry.name for entry in catalogue().values() if entry.network == name]
    close = named[:2] or difflib.get_close_matches(name, catalogue(), n=1, cutoff=0.5)
    did_you_mean = f"did you mean {' or '.join(close)}? " if close else ""
    return f", and no such name in the catalogue; {did_you_mean}uv run -m pipeline.weights list shows all names"


def _refuse_placeholder(weights: str, path: Path) -> None:
    """
    Raises:
        WeightsError: the file is what downloads often contain instead of weights.
    """
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if not head:
        raise WeightsError(f"{weights}: the file is empty; download it again")
    if path.suffix.lower() == ".xml":  # of OpenVINO; its digest would not cover the weights, which are in another file
        raise WeightsError(
            f"{weights}: annotate runs no OpenVINO files; export with --format onnx and set --compute.runtime openvino"
        )
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise WeightsError(f"{weights}: this is an HTML page, not weights; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{weights}: this is a Git LFS pointer, not weights; run git lfs pull in its repository")


def confirm(weights: str, path: Path, network: str, joints: int | None = None) -> CatalogueEntry | None:
    """The catalogue entry of a loaded file; None if it has none, or shares only its name with one.

    The SHA-256 of the file must be that of the catalogue. If the catalogue has none, it must be that of the first use
    on this machine, which is recorded in the cache folder.

    Args:
        weights: the setting: a path, URI or name.
        path: local path of the file.
        network: name of the network in the file.
        joints: number of outputs of a pose network; None for detectors.

    Raises:
        WeightsError: the digest differs.
    """
    entry = catalogued(weights)
    if entry is None or (entry.network, entry.joints) != (network, joints):
        return None
    digest = storage.file_sha256(path)
    expected, source = entry.sha256, "the catalogue"
    if expected is None:
        record = storage.cache_folder() / "digests.json"
        digests = json.loads(record.read_text()) if record.is_file() else {}
        if entry.name not in digests:
            digests[entry.name] = digest
            storage.write_bytes(str(record), json.dumps(digests, indent=1).encode())
        expected, source = digests[entry.name], str(record)
    if digest != expected:
        raise WeightsError(
            f"{path}: the name is that of {entry.name}, but the SHA-256 is {digest[:16]}... instead of "
            f"{expected[:16]}... in {source}; download it again, or rename it if it is another file"
        )
    return entry


def published_decodings(network: str, joints: int) -> list[str]:
    """Values of `pose.decode` of the published checkpoints of a network, sorted and distinct."""
    entries = [e for e in catalogue().values() if (e.network, e.joints) == (network, joints)]
    return sorted({entry.decode for entry in entries if entry.decode})
