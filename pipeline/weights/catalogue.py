"""Which checkpoints there are, where their authors host them, and what they may be used for.

On the command line: `__main__.py` beside this file.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from pipeline import storage
from pipeline.errors import UserError

_FOLDER = Path(__file__).resolve().parents[2] / "weights"


class WeightsError(UserError):
    """A weights file that is not what it was, or that cannot be had without its authors; the text says which."""


class CatalogueEntry(BaseModel):
    """A checkpoint that is published, or ships with the project.

    Attributes:
        name: what `--pose.weights` or `--detector.weights` may be given.
        file: what its authors call the file; None where that isn't known for certain.
        network: a pose network's name, or the detector's.
        joints: of its output; None for detectors.
        input_size: height and width of its input, pixels.
        decode: how a pose network's output is decoded.
        published: what its authors measured, with what it was measured on.
        config: the configuration that its authors name it by.
        licence: what its authors allow.
        page: where they host it.
        url: the file itself, where one address gives it.
        sha256: of the file, where it is known.
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
        """The file in the project's own weights folder."""
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
    """The entry that a setting names: by its name, or by the name of its file."""
    by_file = (entry for entry in catalogue().values() if entry.file == storage.basename(weights))
    return catalogue().get(weights) or next(by_file, None)


def local_file(weights: str) -> Path:
    """The file that a setting names: a local path, a URI, or a name in the catalogue.

    Raises:
        WeightsError: its authors give it only by hand.
        storage.MissingObject: there is no such file.
    """
    entry = catalogued(weights)
    if entry is None:
        return storage.local_copy(weights)
    if weights != entry.name:
        path = storage.local_copy(weights)
    elif entry.shipped is not None:
        path = entry.shipped
    elif entry.url is not None:
        path = storage.local_copy(entry.url)
    else:
        raise WeightsError(
            f"{weights}: its authors give it at {entry.page}, not by a link; get it there and pass the file"
        )
    return path


def confirm(weights: str, path: Path, network: str, joints: int | None = None) -> CatalogueEntry | None:
    """The entry that a loaded file belongs to; None where it is none, or only called like one.

    Its digest must be the catalogue's, or where that has none, the one of its first use on this machine.

    Args:
        weights: what the setting named.
        path: the file.
        network, joints: what was found in it.

    Raises:
        WeightsError: it is not the file that it was.
    """
    entry = catalogued(weights)
    if entry is None or (entry.network, entry.joints) != (network, joints):
        return None
    digest = storage.file_sha256(path)
    expected, source = entry.sha256, "the catalogue"
    if expected is None:
        book = storage.cache_folder() / "digests.json"
        known = json.loads(book.read_text()) if book.is_file() else {}
        if entry.name not in known:
            known[entry.name] = digest
            storage.write_bytes(str(book), json.dumps(known, indent=1).encode())
        expected, source = known[entry.name], str(book)
    if digest != expected:
        raise WeightsError(
            f"{path} is {entry.name} by its name, but its SHA-256 is {digest[:16]}..., not {expected[:16]}... "
            f"as {source} has it: a broken download, or another file of that name; get it again, or rename it"
        )
    return entry


def published_decodings(network: str, joints: int) -> list[str]:
    """How the published checkpoints of a network are decoded, each way once."""
    entries = [e for e in catalogue().values() if (e.network, e.joints) == (network, joints)]
    return sorted({entry.decode for entry in entries if entry.decode})
