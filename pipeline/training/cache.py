"""The cache of training samples: people cut out of their images, or images shrunk to the network's input."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from pipeline import storage
from pipeline.coco.errors import AnnotationError
from pipeline.training import jpegs
from pipeline.training.settings import AnnotatedSet, TrainSettings
from pipeline.weights.catalogue import local_file


class Samples(Protocol):
    """Training samples that can be stored in one file."""

    def to_bytes(self, made_for: str) -> bytes:
        """The samples as one .npz; `made_for` are the settings that they depend on, as text."""
        ...

    @classmethod
    def from_bytes(cls, content: bytes) -> Self: ...


_S = TypeVar("_S", bound=Samples)


def cached(settings: TrainSettings, options: dict[str, Any], kind: type[_S], read: Callable[[], _S]) -> _S:
    """The samples of a run's sets, from its cache if that exists; else read them and write the cache, if one is set.

    Args:
        options: everything that the samples depend on, except the sets.

    Raises:
        AnnotationError: the cache was made from other sets or with other options, or is another kind of file.
    """
    if not settings.cache:
        return read()
    expected = {"sets": [_fingerprint(s) for s in settings.sets], **options}
    if not storage.exists(settings.cache):
        samples = read()
        storage.write_bytes(settings.cache, samples.to_bytes(json.dumps(expected)))
        return samples
    content = storage.read_bytes(settings.cache)
    try:
        stored = json.loads(jpegs.made_for(content) or "{}")
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise AnnotationError(f"--cache {settings.cache} is not a file of training samples; name another") from None
    for name, value in json.loads(json.dumps(expected)).items():
        if stored.get(name) != value:
            raise AnnotationError(
                f"--cache {settings.cache} was made with {name} {stored.get(name)}, but this run has {value}; name "
                "another cache, or remove this one"
            )
    return kind.from_bytes(content)


def _fingerprint(annotated: AnnotatedSet) -> dict[str, Any]:
    """The settings of a set without folders, and digests of its files: the same wherever the files are stored."""
    fingerprint = annotated.model_dump(mode="json", exclude={"images"}, exclude_none=True)
    fingerprint["annotations"] = storage.basename(annotated.annotations)
    fingerprint["sha256"] = storage.file_sha256(storage.local_copy(annotated.annotations))
    if annotated.pseudo_labels is not None:
        fingerprint["pseudo_labels"]["weights"] = storage.basename(annotated.pseudo_labels.weights)
        fingerprint["pseudo_labels"]["sha256"] = storage.file_sha256(local_file(annotated.pseudo_labels.weights))
    return fingerprint
