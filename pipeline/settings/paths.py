"""Absolute paths in settings, so that they are valid in every process and working directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, overload

from pipeline import storage
from pipeline.settings.tree import COLOUR, Settings
from pipeline.weights.catalogue import catalogue

_PATHS = {
    "input": ("uri", "image_root"),
    "detector": ("cfg", "weights", "boxes"),
    "pose": ("weights",),
}
_PROJECT = Path(__file__).resolve().parents[2]


@overload
def absolute_path(path: str) -> str: ...
@overload
def absolute_path(path: None) -> None: ...
def absolute_path(path: str | None) -> str | None:
    """A local path as an absolute path. URIs and names in the catalogue of weights are returned unchanged.

    A relative path that does not exist in the working directory is looked up in the project (its weights and its demo).
    """
    if path is None:
        return None
    path = storage.normalised(path)
    if not storage.is_local(path):
        return path
    path = path.removeprefix("file://")
    absolute = os.path.abspath(os.path.expanduser(path))
    in_project = str(_PROJECT / path)
    if path in catalogue() and not os.path.isfile(absolute):
        return path
    return in_project if not os.path.exists(absolute) and os.path.exists(in_project) else absolute


def absolute_paths(settings: Settings) -> Settings:
    """The same settings with absolute paths."""
    changed: dict[str, Any] = {
        section: getattr(settings, section).model_copy(
            update={name: absolute_path(getattr(getattr(settings, section), name)) for name in names}
        )
        for section, names in _PATHS.items()
    }
    ensemble = [n.model_copy(update={"weights": absolute_path(n.weights)}) for n in settings.pose.ensemble]
    changed["pose"] = changed["pose"].model_copy(update={"ensemble": tuple(ensemble)})
    changed["annotations"] = absolute_path(settings.annotations)
    output = storage.normalised(settings.output.uri)
    if storage.is_local(output):
        output = os.path.abspath(os.path.expanduser(output.removeprefix("file://")))
    looks = settings.output.appearance
    looks = looks if looks == COLOUR else absolute_path(looks)
    changed["output"] = settings.output.model_copy(update={"uri": output, "appearance": looks})
    return settings.model_copy(update=changed)
