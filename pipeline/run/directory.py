"""A run directory: what belongs where, what the run was told, and which shards are done."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings.tree import GIVEN, OWN_DETECTORS, Settings
from pipeline.sources import Manifest, plan_collection, write_manifest
from pipeline.weights.catalogue import catalogued, local_file

# Raised whenever the same settings and weights could give other rows.
RESULTS_VERSION = 5

_VERSIONS_OF = ("posemill", "torch", "torchvision", "opencv-python-headless", "numpy", "pillow", "simplejpeg", "ray")


class RunRefused(UserError):
    """A run directory that belongs to other settings, or to none; the text names the difference."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        uri: where it lies.
        settings: what the run was told.
        fingerprint: digest of everything that can change its rows.
    """

    uri: str
    settings: Settings
    fingerprint: str

    @classmethod
    def create(cls, settings: Settings) -> Run:
        """Start a run directory, or come back to it with the same settings.

        Raises:
            RunRefused: it belongs to other settings.
            storage.MissingObject: a weights, boxes or annotations file isn't there.
            UserError: a URI holds a password or a signature.
        """
        for text in _texts(settings.model_dump()):
            storage.refuse_secret(text)
        described = _describe(settings)
        uri = settings.output.uri
        path = storage.join(uri, "run.json")
        if not storage.exists(path):
            storage.write_bytes(path, json.dumps(described, indent=2).encode())
        stored = _load(path)
        if stored["fingerprint"] != described["fingerprint"]:
            differences = _differences(stored["results"], described["results"])
            raise RunRefused(
                f"{uri} belongs to a run with other settings ({'; '.join(differences) or 'fingerprint'}): name another "
                "--output, or give the same settings to go on with it"
            )
        return cls(uri, settings, described["fingerprint"])

    @staticmethod
    def fingerprint_of(settings: Settings) -> str:
        """What a run with these settings would have, wherever it lies."""
        return _describe(settings)["fingerprint"]

    @classmethod
    def open(cls, uri: str) -> Run:
        """A run directory as it was started.

        Raises:
            RunRefused: it isn't one.
        """
        path = storage.join(uri, "run.json")
        if not storage.exists(path):
            raise RunRefused(f"{uri} is no run directory: it has no run.json")
        stored = _load(path)
        settings = Settings.model_validate(_with_current_names(stored["settings"]))
        settings = settings.model_copy(update={"output": settings.output.model_copy(update={"uri": uri})})
        return cls(uri, settings, stored["fingerprint"])

    def check_files(self) -> None:
        """Make sure that this machine's copies of weights and descriptions are those that the run was started with.

        Raises:
            RunRefused: one differs.
        """
        started = _load(self.path("run.json"))["results"]["digests"]
        for name, digest in _digests(self.settings).items():
            if started.get(name) != digest:
                raise RunRefused(
                    f"{name} on this machine has the digest {_short(digest)}, the run was started with "
                    f"{_short(started.get(name))}: another file, or an old copy in {storage.cache_folder()}"
                )

    def path(self, *parts: str) -> str:
        return storage.join(self.uri, *parts)

    @property
    def manifest_uri(self) -> str:
        return self.path("manifest.parquet")

    def plan(self) -> Manifest:
        """The planned shards; planned by the first who asks.

        Raises:
            UserError, OSError: the collection cannot be read, or is empty.
        """
        if not storage.exists(self.manifest_uri):
            write_manifest(self.manifest_uri, plan_collection(self.settings.input, without=self.uri))
        return self.manifest()

    def manifest(self) -> Manifest:
        """The planned shards.

        Raises:
            RunRefused: planning never finished.
        """
        if not storage.exists(self.manifest_uri):
            raise RunRefused(
                f"{self.uri} has no manifest.parquet: planning was interrupted; run jobs/annotate.py again"
            )
        return Manifest(self.manifest_uri)

    def part_uri(self, shard_id: str) -> str:
        return self.path("parts", f"{shard_id}.parquet")

    def parts(self) -> dict[str, int]:
        """Bytes of each part that is there, by shard id: one listing tells what is done."""
        return {id_: entry.size for id_, entry in self._listed("parts", ".parquet")}

    def part_times(self) -> dict[str, float]:
        """When each part was written, seconds since 1970, by shard id; without those whose storage doesn't tell."""
        return {id_: e.modified for id_, e in self._listed("parts", ".parquet") if e.modified is not None}

    def quarantine_uri(self, shard_id: str) -> str:
        return self.path("quarantine", f"{shard_id}.json")

    def quarantined(self) -> dict[str, str]:
        """Why each shard without a part was given up, by shard id."""
        done = self.parts()
        return {
            id_: json.loads(storage.read_bytes(entry.uri))["reason"]
            for id_, entry in self._listed("quarantine", ".json")
            if id_ not in done
        }

    def _listed(self, folder: str, suffix: str) -> list[tuple[str, storage.Entry]]:
        try:
            entries = list(storage.list_files(self.path(folder)))
        except storage.MissingObject:
            return []
        named = [(storage.basename(entry.uri), entry) for entry in entries]
        return [(n.removesuffix(suffix), e) for n, e in named if n.endswith(suffix) and not n.startswith(".")]


def _with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run of an earlier version, with renamed ones under their current name."""
    fleet = dict(settings["fleet"])
    if "storage_patience" in fleet:
        fleet["storage_retry_seconds"] = fleet.pop("storage_patience")
    return {**settings, "fleet": fleet}


def _load(path: str) -> dict[str, Any]:
    try:
        return json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise RunRefused(f"{path} is not valid JSON ({error}); it is not a run directory of this job") from None


def _texts(told: Any) -> Iterator[str]:
    """Every text in a tree of settings."""
    if isinstance(told, str):
        yield told
    elif isinstance(told, dict | list | tuple):
        for value in told.values() if isinstance(told, dict) else told:
            yield from _texts(value)


def _describe(settings: Settings) -> dict[str, Any]:
    tree = settings.model_dump(mode="json")
    results: dict[str, Any] = {
        key: copy.deepcopy(tree[key]) for key in ("input", "images", "detector", "pose", "suppression", "compute")
    }
    # Files count by their content, so that the same run may find them elsewhere.
    for section, name in (("detector", "cfg"), ("detector", "weights"), ("detector", "boxes"), ("pose", "weights")):
        del results[section][name]
    for network in results["pose"]["ensemble"]:
        del network["weights"]
    results["output"] = {"candidates": tree["output"]["candidates"]}
    results["digests"] = _digests(settings)
    # An entry of the catalogue brings settings of its own.
    entries = [catalogued(network.weights) for network in settings.pose.networks() if network.weights]
    results["catalogued"] = [entry.name if entry else None for entry in entries]
    results["results_version"] = RESULTS_VERSION
    fingerprint = hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:16]
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS_OF}}
    return {"fingerprint": fingerprint, "results": results, "settings": tree, "versions": versions}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the project itself, where it runs from its folder as a submitted job does
        return "not installed"


def _digests(settings: Settings) -> dict[str, str]:
    """SHA-256 of each file that the results depend on."""
    weights = {
        "detector.weights": settings.detector.weights,
        "pose.weights": settings.pose.weights,
        **{f"pose.ensemble.{i}.weights": network.weights for i, network in enumerate(settings.pose.ensemble)},
    }
    others = {
        "detector.cfg": settings.detector.cfg,
        "detector.boxes": settings.detector.boxes if settings.detector.name == GIVEN else None,
        "annotations": settings.annotations,
    }
    files = {name: local_file(named) for name, named in weights.items() if named}
    files |= {name: storage.local_copy(uri) for name, uri in others.items() if uri}
    digests = {name: storage.file_sha256(path) for name, path in files.items()}
    if "detector.weights" not in digests and settings.detector.name not in OWN_DETECTORS:
        # Imported here: torchvision takes seconds, and a driver has no other use for it.
        from pipeline.detectors.torchvision_detector import default_weights

        digests["detector.weights"] = default_weights(settings.detector.name)
    return digests


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} was {_short(before)}, now {_short(after)}")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
