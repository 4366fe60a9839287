"""Annotated tracks: MOTChallenge's text files and PoseTrack18's JSON."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.boxes import xywh_to_xyxy
from pipeline.errors import UserError, first_line, parsing
from pipeline.skeletons import Skeleton

_PEDESTRIAN = (1, -1)  # classes of MOTChallenge that are people; -1 in files without classes
_HEAD_SIZE = 0.6  # of the diagonal of the head's box: MPII and PoseTrack
# Joints of PoseTrack by the names of other skeletons.
_NAMES = {"head_bottom": ("neck", "upper_neck"), "head_top": ("head", "head_top")}


class TrueFrame(NamedTuple):
    """The annotated people of a frame.

    Attributes:
        tracks: (G,).
        boxes: (G, 4) x1 y1 x2 y2, pixels.
        joints: (G, K, 3) x y and 1 if labelled, in the order of a skeleton; K is 0 for boxes.
        heads: (G,) sizes of the heads, pixels; 0 if unknown.
        ignored: polygons (N, 2) in which predictions do not count.
    """

    tracks: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    heads: np.ndarray
    ignored: list[np.ndarray]


class TrueVideo(NamedTuple):
    """An annotated video: its labelled frames by number, from 0. Frames without a person may be left out of a file.

    Attributes:
        all_labelled: whether frames that are not in `frames` are known to have no people.
    """

    name: str
    frames: dict[int, TrueFrame]
    all_labelled: bool
    has_joints: bool


def read_tracks(uri: str, skeleton: Skeleton) -> list[TrueVideo]:
    """The videos of a file or folder: `NAME.txt` or `NAME/gt/gt.txt` of MOTChallenge, `NAME.json` of PoseTrack18.

    Raises:
        UserError: there are no such files, or one is damaged.
    """
    if storage.is_file(uri):
        uris = [uri]
    else:
        uris = [entry.uri for entry in storage.list_files(uri) if entry.uri.endswith((".txt", ".json"))]
        uris = [found for found in uris if not storage.basename(found).startswith(".")]
        uris = [found for found in uris if found.endswith("/gt/gt.txt")] or uris  # beside det.txt and others
    if not uris:
        raise UserError(f"{uri} has no annotated tracks: expected .txt files of MOTChallenge or .json of PoseTrack18")
    return [_read_posetrack(u, skeleton) if u.endswith(".json") else _read_mot(u) for u in sorted(uris)]


def _video_name(uri: str) -> str:
    """`a` of `a.txt` and of `a/gt/gt.txt`."""
    parts = uri.split("/")
    if parts[-2:] == ["gt", "gt.txt"] and len(parts) > 2:
        return parts[-3]
    return parts[-1].removesuffix(storage.suffix(uri))


def _read_mot(uri: str) -> TrueVideo:
    try:
        rows = np.loadtxt(io.BytesIO(storage.read_bytes(uri)), delimiter=",", ndmin=2)
    except ValueError as error:
        raise UserError(f"{uri} is no file of MOTChallenge: {error}") from None
    if rows.size and rows.shape[1] < 6:
        raise UserError(f"{uri} has {rows.shape[1]} columns; expected frame, track, x, y, width, height, ...")
    frames: dict[int, TrueFrame] = {}
    for number in np.unique(rows[:, 0]) if rows.size else []:
        of_frame = rows[rows[:, 0] == number]
        if rows.shape[1] > 6:
            of_frame = of_frame[of_frame[:, 6] != 0]
        if rows.shape[1] > 7:
            of_frame = of_frame[np.isin(of_frame[:, 7], _PEDESTRIAN)]
        count = len(of_frame)
        boxes = xywh_to_xyxy(of_frame[:, 2:6]) - 1  # pixels count from 1
        tracks = of_frame[:, 1].astype(int)
        if len(np.unique(tracks)) != count:
            raise UserError(f"{uri}: frame {int(number)} has a track twice")
        frames[int(number) - 1] = TrueFrame(tracks, boxes, np.zeros((count, 0, 3)), np.zeros(count), [])
    return TrueVideo(_video_name(uri), frames, all_labelled=True, has_joints=False)


def _read_posetrack(uri: str, skeleton: Skeleton) -> TrueVideo:
    with parsing(uri, "a file of PoseTrack18"):
        content = json.loads(storage.read_bytes(uri))
    try:
        places = {name: _place(name, skeleton) for name in content["categories"][0]["keypoints"]}
        of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        frames = {}
        for order, image in enumerate(sorted(content["images"], key=lambda image: image["file_name"])):
            if image.get("is_labeled", True):
                number = _frame_number(image["file_name"], order)
                frames[number] = _posetrack_frame(of_image[image["id"]], image, places, len(skeleton))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{uri} is not a file of PoseTrack18, or is damaged ({reason})") from None
    return TrueVideo(_video_name(uri), frames, all_labelled=False, has_joints=True)


def _frame_number(file_name: str, order: int) -> int:
    """The number at the end of the name of a frame: PoseTrack's frames are `images/VIDEO/000012.jpg`."""
    stem = file_name.rsplit("/", 1)[-1].split(".", 1)[0]
    return int(stem) if stem.isascii() and stem.isdigit() else order


def _place(name: str, skeleton: Skeleton) -> int | None:
    """The number of PoseTrack's joint in a skeleton."""
    candidates = (name, *_NAMES.get(name, ()))
    return next((skeleton.joints.index(joint) for joint in candidates if joint in skeleton.joints), None)


def _posetrack_frame(
    annotations: list[dict[str, Any]], image: dict[str, Any], places: dict[str, int | None], num_joints: int
) -> TrueFrame:
    people = [a for a in annotations if "keypoints" in a and "track_id" in a]
    count = len(people)
    joints = np.zeros((count, num_joints, 3))
    boxes, heads = np.zeros((count, 4)), np.zeros(count)
    for i, person in enumerate(people):
        values = np.array(person["keypoints"], float).reshape(-1, 3)
        for value, place in zip(values, places.values(), strict=True):
            if place is not None and value[2] > 0:
                joints[i, place] = [*value[:2], 1]
        labelled = values[values[:, 2] > 0, :2]
        extent = np.concatenate([labelled.min(axis=0), labelled.max(axis=0)]) if len(labelled) else np.zeros(4)
        boxes[i] = xywh_to_xyxy(np.array(person["bbox"], float)) if person.get("bbox") else extent
        if person.get("bbox_head"):
            heads[i] = _HEAD_SIZE * float(np.hypot(*person["bbox_head"][2:4]))
    polygons = zip(image.get("ignore_regions_x") or [], image.get("ignore_regions_y") or [], strict=True)
    ignored = [np.column_stack([xs, ys]).astype(np.float32) for xs, ys in polygons if np.ndim(xs) == 1 and len(xs) > 2]
    return TrueFrame(np.array([a["track_id"] for a in people], int), boxes, joints, heads, ignored)
