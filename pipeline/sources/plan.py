"""Plan a collection: list it and group its images into shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import chain, groupby, islice

from pipeline import storage
from pipeline.coco.annotations import load_annotations
from pipeline.errors import UserError
from pipeline.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    OTHER_IMAGE_SUFFIXES,
    VIDEO_SIGNATURE_BYTES,
    has_image_signature,
    has_video_signature,
)
from pipeline.settings.tree import InputSettings, VideoSettings
from pipeline.sources.files import plan_files
from pipeline.sources.kinds import KINDS, Kind, container_kind
from pipeline.sources.lists import LIST_SUFFIXES, read_list, unique
from pipeline.sources.parquet import PARQUET_SUFFIXES, image_column
from pipeline.sources.shard import PlannedShard, frame_of_sequence
from pipeline.sources.video.plan import frames_at

_CONTAINERS_AT_A_TIME = 16
_CHECKED_NAMES = 20  # one of the first names of a list must exist,
_MORE_CHECKED_NAMES = 500  # or one of these, spread over the whole list
_COCO_SUFFIX = ".json"
_WILDCARDS = "*?["
_Keyed = tuple[str, storage.Entry]


def plan_collection(settings: InputSettings, without: str | None = None) -> Iterator[PlannedShard]:
    """The shards of a collection, in an order that depends only on its names. The collection is listed once.

    Containers (tar archives, Parquet files with images) have separate shards; loose files are grouped.

    Args:
        settings: the collection to annotate.
        without: a folder or prefix to exclude: the output of the run, if it is below the input.

    Raises:
        UserError: the input is not a collection, or an empty one.
        storage.MissingObject: the input does not exist.
    """
    uri = settings.uri
    if not uri:
        raise UserError("--input is not set; name a folder, prefix, glob, archive, list or annotation file")
    empty = True
    for shard in _plan(uri, settings, without):
        empty = False
        yield shard
    if empty:
        raise UserError(f"--input {uri}: no files found")


def _plan(uri: str, settings: InputSettings, without: str | None) -> Iterator[PlannedShard]:
    kind_of: Callable[[str], Kind | None]
    if (names := _listed_names(uri, settings.image_column)) is not None:
        listed, kind_of = _located(names, uri, settings.image_root), _video_kind
    else:
        output = None if without is None else without.rstrip("/") + "/"
        listed = ((key, entry) for key, entry in _list_input(uri) if output is None or not entry.uri.startswith(output))
        kind_of = _named_kind(uri)
    if settings.video.sequence_fps is not None:
        listed = _with_sequences(listed, settings.video)
    return _plan_listed(iter(listed), settings, kind_of)


def _with_sequences(listed: Iterable[_Keyed], settings: VideoSettings) -> Iterator[_Keyed]:
    """The entries; of image sequences the frames that the settings choose.

    Raises:
        UserError: frames of a sequence come after those of another: they could not be tracked.
    """
    positions = ((frame_of_sequence(keyed[0], settings.sequence_fps), keyed) for keyed in listed)
    latest: str | None = None
    seen: set[str] = set()
    for video, group in groupby(positions, key=lambda pair: None if pair[0] is None else pair[0].video):
        if video is None:
            yield from (keyed for _, keyed in group)
            continue
        sequence = [(position.frame, keyed) for position, keyed in group if position is not None]
        if video in seen and video != latest:
            key, _ = sequence[0][1]
            raise UserError(
                f"the frames of the sequence {video} are not together: {key} comes after frames of {latest}; sort the "
                "list of --input, or leave out --input.video.sequence_fps"
            )
        latest = video
        seen.add(video)
        yield from _chosen_frames(sequence, settings)


def _chosen_frames(sequence: Sequence[tuple[int, _Keyed]], settings: VideoSettings) -> list[_Keyed]:
    """The chosen frames of a sequence, in the order of their names, which may not be that of their numbers."""
    numbers = sorted({number for number, _ in sequence})
    chosen = {number for number in numbers if (number - numbers[0]) % settings.every == 0}
    if settings.fps is not None and settings.sequence_fps is not None:
        times = [number / Fraction(settings.sequence_fps) for number in numbers]
        chosen = {numbers[i] for i in frames_at(times, settings.fps)}
    return [keyed for number, keyed in sequence if number in chosen]


def _listed_names(uri: str, column: str | None) -> Iterator[str] | None:
    """The image names in a list or COCO file; None if the URI is neither."""
    lower = uri.lower()
    if not lower.endswith((_COCO_SUFFIX, *LIST_SUFFIXES, *PARQUET_SUFFIXES)) or not storage.is_file(uri):
        return None
    if lower.endswith(_COCO_SUFFIX):
        return unique(image["file_name"] for image in load_annotations(uri)["images"])
    if lower.endswith(PARQUET_SUFFIXES) and image_column(uri, column) is not None:
        return None
    return read_list(uri, column)


def _list_input(uri: str) -> Iterator[_Keyed]:
    is_pattern = any(c in uri for c in _WILDCARDS) and not storage.exists(uri)
    if is_pattern:
        root = uri[: min(uri.index(c) for c in _WILDCARDS if c in uri)].rpartition("/")[0]
        return _keyed(storage.glob_files(uri), root)
    if not storage.is_file(uri):
        return _keyed(storage.list_files(uri), uri)
    entry = storage.stat(uri)
    if entry.size == 0 and not storage.is_local(uri):  # consoles create such an object for a folder
        below = _keyed(storage.list_files(uri), uri)
        if (first := next(below, None)) is not None:
            return chain([first], below)
    if container_kind(uri) is None and not uri.lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)):
        _refuse_unknown(uri)
    return iter([(storage.basename(uri), entry)])


def _refuse_unknown(uri: str) -> None:
    head = storage.read_bytes(uri, VIDEO_SIGNATURE_BYTES)
    if not has_image_signature(head) and not has_video_signature(head):
        archives = ", ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
        raise UserError(
            f"--input {uri} is neither an image ({', '.join(FORMATS)}) nor a known kind of file; known are folders, "
            f"archives, Parquet and videos ({archives}), lists ({', '.join(LIST_SUFFIXES)}) and COCO files "
            f"({_COCO_SUFFIX})"
        )


def _named_kind(uri: str) -> Callable[[str], Kind | None]:
    """The kind of container by its name; a file that `--input` names is a video by its content, too."""
    is_loose = container_kind(uri) is None and storage.is_file(uri)
    if is_loose and has_video_signature(storage.read_bytes(uri, VIDEO_SIGNATURE_BYTES)):
        return lambda key: KINDS["video"]
    return container_kind


def _video_kind(key: str) -> Kind | None:
    """Of the names in a list, videos alone are containers."""
    kind = container_kind(key)
    return kind if kind is KINDS["video"] else None


def _keyed(entries: Iterable[storage.Entry], root: str) -> Iterator[_Keyed]:
    """Entries with their path below the root as key, without hidden files."""
    start = root.removeprefix("file://").rstrip("/") + "/"
    for entry in entries:
        key = entry.uri.removeprefix(start)
        if not any(part.startswith(".") for part in key.split("/")):
            yield key, entry


def _plan_listed(
    listed: Iterator[_Keyed], settings: InputSettings, kind_of: Callable[[str], Kind | None]
) -> Iterator[PlannedShard]:
    """The shards of listed entries in order. Containers, by the kind of their key, are planned concurrently."""

    def loose(first: _Keyed) -> Iterator[_Keyed]:
        yield first
        for key, entry in listed:
            if kind_of(key) is not None:
                containers.append((key, entry))
                return
            yield key, entry

    # Loose files before and after a container are in separate shards, so that no container waits for them.
    containers: deque[_Keyed] = deque()
    planning: deque[Future[list[PlannedShard]]] = deque()
    with ThreadPoolExecutor(_CONTAINERS_AT_A_TIME) as pool:
        while True:
            item = containers.popleft() if containers else next(listed, None)
            if item is None:
                break
            kind = kind_of(item[0])
            if kind is not None:
                planning.append(pool.submit(_plan_container, kind, item, settings))
                if len(planning) >= 2 * _CONTAINERS_AT_A_TIME:
                    yield from planning.popleft().result()
            else:
                while planning:
                    yield from planning.popleft().result()
                yield from plan_files(loose(item), settings)
        while planning:
            yield from planning.popleft().result()


def _plan_container(kind: Kind, item: _Keyed, settings: InputSettings) -> list[PlannedShard]:
    return list(kind.plan([item], settings))


def _located(names: Iterable[str], list_uri: str, root: str | None) -> Iterator[_Keyed]:
    """The names of a list with their entries. Relative names are below the root, by default the folder of the list.

    Raises:
        UserError: none of the names exists, of many checked ones; the root is probably wrong.
    """
    if root is None:
        root = list_uri.rpartition("/")[0] or "."
    keyed = (_keyed_name(name, root) for name in names)
    first = list(islice(keyed, _CHECKED_NAMES))
    if not first or _any_exists(first):
        return chain(first, keyed)
    everything = [*first, *keyed]
    if not _any_exists(everything[:: max(1, len(everything) // _MORE_CHECKED_NAMES)]):
        spaces = any(name != name.strip() for name, _ in first)
        raise UserError(
            f"none of the listed images exists ({first[0][1].uri!r}, ...; {min(len(everything), _MORE_CHECKED_NAMES)} "
            f"of {len(everything)} checked); names are relative to {root}: set --input.image_root"
            + ("; names are used with their leading and trailing spaces" if spaces else "")
        )
    return iter(everything)


def _keyed_name(name: str, root: str) -> _Keyed:
    uri = storage.normalised(name) if "://" in name or name.startswith("/") else storage.join(root, name)
    storage.refuse_password(uri)
    return name, storage.Entry(uri, -1, "")


def _any_exists(keyed: Sequence[_Keyed]) -> bool:
    with ThreadPoolExecutor(_CONTAINERS_AT_A_TIME) as pool:
        return any(pool.map(_exists, (entry.uri for _, entry in keyed)))


def _exists(uri: str) -> bool:
    try:
        return storage.exists(uri)
    except (ValueError, OSError):  # a URI that no storage accepts, a server that fails: its image gets a row
        return False
