"""A run directory: its layout, the settings of the run, and which shards are done."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import ValidationError

from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings.tree import COLOUR, GIVEN, OWN_DETECTORS, Settings
from pipeline.sources import Manifest, PlannedShard, plan_collection, write_manifest
from pipeline.weights.catalogue import catalogued, local_file

# Increased whenever the same settings and weights may give other rows.
RESULTS_VERSION = 9

_VERSIONS_OF = ("posemill", "torch", "torchvision", "opencv-python-headless", "numpy", "pillow", "simplejpeg", "ray")


class RunRefused(UserError):
    """A directory that is not a run directory, or belongs to other settings; the message names the difference."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        uri: of the directory.
        settings: of the run.
        fingerprint: digest of everything that can change its rows.
    """

    uri: str
    settings: Settings
    fingerprint: str

    @classmethod
    def create(cls, settings: Settings) -> Run:
        """A new run, or an existing one with the same settings. Nothing is written before `plan`.

        A directory without a manifest and without parts holds no work, and takes other settings.

        Raises:
            RunRefused: the directory belongs to other settings.
            storage.MissingObject: a weights, boxes or annotations file does not exist.
            UserError: a URI contains a password or a signature.
        """
        for text in _texts(settings.model_dump()):
            storage.refuse_secret(text)
        described = _describe(settings)
        uri = settings.output.uri
        run = cls(uri, settings, described["fingerprint"])
        if storage.exists(run.path("run.json")) and (storage.exists(run.manifest_uri) or run.parts()):
            run._check_settings(described)
        return run

    def _check_settings(self, described: dict[str, Any]) -> None:
        """
        Raises:
            RunRefused: run.json has other settings.
        """
        stored = _load(self.path("run.json"))
        if stored.get("fingerprint") != self.fingerprint:
            differences = _differences(stored.get("results", {}), described["results"])
            raise RunRefused(
                f"{self.uri} belongs to a run with other settings ({'; '.join(differences) or 'fingerprint'}); set "
                "another --output, or use the same settings to resume it"
            )

    @staticmethod
    def fingerprint_of(settings: Settings) -> str:
        """The fingerprint of a run with these settings; independent of its directory."""
        return _describe(settings)["fingerprint"]

    @classmethod
    def open(cls, uri: str) -> Run:
        """Open a run directory with the settings that it was created with.

        Raises:
            RunRefused: it is not a run directory.
        """
        path = storage.join(uri, "run.json")
        if not storage.exists(path):
            raise RunRefused(f"{uri} is not a run directory: it has no run.json")
        stored = _load(path)
        try:
            settings = Settings.model_validate(_with_current_names(stored["settings"]))
            fingerprint = stored["fingerprint"]
        except (ValidationError, KeyError, TypeError) as error:
            raise RunRefused(
                f"{path} is of another version of Posemill ({' '.join(str(error).split())[:200]})"
            ) from None
        settings = settings.model_copy(update={"output": settings.output.model_copy(update={"uri": uri})})
        return cls(uri, settings, fingerprint)

    def check_files(self) -> None:
        """Compare this machine's copies of weights and other files with those that the run was created with.

        Raises:
            RunRefused: a digest differs.
        """
        expected = _load(self.path("run.json"))["results"]["digests"]
        for name, digest in _digests(self.settings).items():
            if expected.get(name) != digest:
                raise RunRefused(
                    f"{name} on this machine has the digest {_short(digest)}, the run was created with "
                    f"{_short(expected.get(name))}: it is another file, or an old copy in {storage.cache_folder()}"
                )

    def drawn_videos(self) -> list[str]:
        """The URIs of the drawn videos."""
        try:
            return [entry.uri for entry in storage.list_files(self.path("videos"))]
        except storage.MissingObject:
            return []

    def path(self, *parts: str) -> str:
        return storage.join(self.uri, *parts)

    @property
    def manifest_uri(self) -> str:
        return self.path("manifest.parquet")

    def plan(self) -> Manifest:
        """The planned shards; the first call plans them, and writes the settings after that.

        Raises:
            UserError, OSError: the collection cannot be read, or is empty.
            RunRefused: another command planned other settings in this directory at the same time.
        """
        described = _describe(self.settings)
        is_planned = storage.exists(self.manifest_uri)
        if not (is_planned and storage.exists(self.path("run.json"))):
            # Without run.json, the manifest may be of other settings, whose planning was interrupted at its end.
            if not (is_planned and self.manifest().fingerprint == self.fingerprint):
                write_manifest(self.manifest_uri, self._plan_collection(), self.fingerprint)
            storage.write_bytes(self.path("run.json"), json.dumps(described, indent=2).encode())
        self._check_settings(described)
        manifest = self.manifest()
        if manifest.fingerprint not in (None, self.fingerprint):
            raise RunRefused(
                f"{self.uri}: another command with other settings was started in this directory at the same time; set "
                "another --output"
            )
        return manifest

    def _plan_collection(self) -> Iterator[PlannedShard]:
        """The shards of the collection.

        Raises:
            RunRefused: another command has planned this directory in the meantime.
        """
        claimed = storage.exists(self.path("run.json"))
        yield from plan_collection(self.settings.input, without=self.uri)
        if not claimed and storage.exists(self.path("run.json")):  # planning may take hours
            raise RunRefused(f"{self.uri}: another command was started in this directory; rerun this one to resume it")

    def manifest(self) -> Manifest:
        """The planned shards.

        Raises:
            RunRefused: planning has not finished.
        """
        if not storage.exists(self.manifest_uri):
            raise RunRefused(f"{self.uri} has no manifest.parquet: planning was interrupted; rerun jobs/annotate.py")
        return Manifest(self.manifest_uri)

    def part_uri(self, shard_id: str) -> str:
        return self.path("parts", f"{shard_id}.parquet")

    def parts(self) -> dict[str, int]:
        """Size in bytes of each existing part, by shard id. Costs one listing."""
        return {id_: entry.size for id_, entry in self.listed("parts", ".parquet")}

    def part_times(self) -> dict[str, float]:
        """Modification time of each part, seconds since 1970, by shard id; empty if the storage has none."""
        return {id_: e.modified for id_, e in self.listed("parts", ".parquet") if e.modified is not None}

    def quarantine_uri(self, shard_id: str) -> str:
        return self.path("quarantine", f"{shard_id}.json")

    def quarantined(self) -> dict[str, str]:
        """The reason for each quarantined shard that has no part, by shard id."""
        done = self.parts()
        return {
            id_: json.loads(storage.read_bytes(entry.uri))["reason"]
            for id_, entry in self.listed("quarantine", ".json")
            if id_ not in done
        }

    def listed(self, folder: str, suffix: str) -> list[tuple[str, storage.Entry]]:
        """Name without suffix, and entry, of the finished files in a folder of the run."""
        try:
            entries = list(storage.list_files(self.path(folder)))
        except storage.MissingObject:
            return []
        named = [(storage.basename(entry.uri), entry) for entry in entries]
        return [(n.removesuffix(suffix), e) for n, e in named if n.endswith(suffix) and not n.startswith(".")]


def _with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an earlier version, with renamed settings under their current name."""
    fleet = dict(settings["fleet"])
    if "storage_patience" in fleet:
        fleet["storage_retry_seconds"] = fleet.pop("storage_patience")
    return {**settings, "fleet": fleet}


def _load(path: str) -> dict[str, Any]:
    try:
        return json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise RunRefused(f"{path} is not valid JSON ({error}); it is not a run directory of Posemill") from None


def _texts(tree: Any) -> Iterator[str]:
    """All strings in a tree of settings."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(value)


def _describe(settings: Settings) -> dict[str, Any]:
    tree = settings.model_dump(mode="json")
    results: dict[str, Any] = {
        key: copy.deepcopy(tree[key]) for key in ("input", "images", "detector", "pose", "suppression", "compute")
    }
    # Files count by their content: the same file may be at another path.
    for section, name in (("detector", "cfg"), ("detector", "weights"), ("detector", "boxes"), ("pose", "weights")):
        del results[section][name]
    for network in results["pose"]["ensemble"]:
        del network["weights"]
    colour = settings.output.appearance in (None, COLOUR)
    results["output"] = {
        "candidates": tree["output"]["candidates"],
        "appearance": settings.output.appearance if colour else "network",
    }
    results["digests"] = _digests(settings)
    # A catalogue entry implies further settings.
    entries = [catalogued(network.weights) for network in settings.pose_networks() if network.weights]
    results["catalogued"] = [entry.name if entry else None for entry in entries]
    results["results_version"] = RESULTS_VERSION
    fingerprint = hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:16]
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS_OF}}
    return {"fingerprint": fingerprint, "results": results, "settings": tree, "versions": versions}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the project itself, if it runs from its folder as a submitted job does
        return "not installed"


def _digests(settings: Settings) -> dict[str, str]:
    """SHA-256 of each file that the results depend on."""
    weights = {
        "detector.weights": settings.detector.weights,
        "pose.weights": settings.pose.weights if settings.pose_networks() else None,
        "output.appearance": None if settings.output.appearance in (None, COLOUR) else settings.output.appearance,
        **{f"pose.ensemble.{i}.weights": network.weights for i, network in enumerate(settings.pose.ensemble)},
    }
    others = {
        "detector.cfg": settings.detector.cfg,
        "detector.boxes": settings.detector.boxes if settings.detector.name == GIVEN else None,
        "annotations": settings.annotations,
    }
    files = {name: local_file(weight) for name, weight in weights.items() if weight}
    files |= {name: storage.local_copy(uri) for name, uri in others.items() if uri}
    digests = {name: storage.file_sha256(path) for name, path in files.items()}
    if "detector.weights" not in digests and settings.detector.name not in OWN_DETECTORS:
        # Imported here: importing torchvision takes seconds, and a driver needs it for nothing else.
        from pipeline.detectors.torchvision_detector import default_weights

        digests["detector.weights"] = default_weights(settings.detector.name)
    return digests


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    differences = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            differences += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            differences.append(f"{prefix}{key} was {_short(before)}, now {_short(after)}")
    return differences


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
