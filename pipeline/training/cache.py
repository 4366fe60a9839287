"""Samples that are read once and kept: people cut out of their photographs, images shrunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from pipeline import storage
from pipeline.coco.errors import AnnotationError
from pipeline.training import jpegs
from pipeline.training.settings import AnnotatedSet, TrainSettings
from pipeline.weights.catalogue import local_file


class Samples(Protocol):
    """What a training run learns from."""

    def to_bytes(self, made_for: str) -> bytes:
        """One .npz that holds everything, and what it was made for."""
        ...

    @classmethod
    def from_bytes(cls, content: bytes) -> Self: ...


_S = TypeVar("_S", bound=Samples)


def cached(settings: TrainSettings, options: dict[str, Any], kind: type[_S], read: Callable[[], _S]) -> _S:
    """The samples of the run's sets: from its cache where there is one, else read, and kept in the cache.

    Args:
        options: all beside the sets that samples depend on.

    Raises:
        AnnotationError: the cache was made of other sets, or with other options.
    """
    if not settings.cache:
        return read()
    wanted = {"sets": [_without_folders(s) for s in settings.sets], **options}
    if not storage.exists(settings.cache):
        samples = read()
        storage.write_bytes(settings.cache, samples.to_bytes(json.dumps(wanted)))
        return samples
    content = storage.read_bytes(settings.cache)
    there = json.loads(jpegs.made_for(content) or "{}")
    for name, value in json.loads(json.dumps(wanted)).items():
        if there.get(name) != value:
            raise AnnotationError(
                f"{settings.cache} was made with {name} {there.get(name)}, and this run has {value}; name another "
                "cache, or remove this one"
            )
    return kind.from_bytes(content)


def _without_folders(annotated: AnnotatedSet) -> dict[str, Any]:
    """A set by what tells it from others wherever it lies: names, and digests of what the names stand for."""
    told = annotated.model_dump(mode="json", exclude={"images"}, exclude_none=True)
    told["annotations"] = storage.basename(annotated.annotations)
    told["sha256"] = storage.file_sha256(storage.local_copy(annotated.annotations))
    if annotated.pseudo_labels is not None:
        told["pseudo_labels"]["weights"] = storage.basename(annotated.pseudo_labels.weights)
        told["pseudo_labels"]["sha256"] = storage.file_sha256(local_file(annotated.pseudo_labels.weights))
    return told
