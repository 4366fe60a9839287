"""The evaluation of the tracks of a run against annotated tracks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import cv2
import numpy as np

from pipeline import storage
from pipeline.boxes import areas, iou, xyxy_to_xywh
from pipeline.coco.columns import Detections, GroundTruth
from pipeline.errors import UserError
from pipeline.evaluation.matching import keypoint_similarity
from pipeline.evaluation.tracks.metrics import THRESHOLD, Clear, Frame, Hota, Identity, clear, hota, identity
from pipeline.evaluation.tracks.truth import TrueFrame, TrueVideo, read_tracks
from pipeline.run import Run
from pipeline.run.tables import table_skeleton
from pipeline.skeletons import Skeleton
from pipeline.sources.video.plan import VIDEO_SUFFIXES
from pipeline.tracking.videos import Frame as VideoFrame
from pipeline.tracking.videos import Video, tracked_videos

_PCKH = 0.5  # a joint is found within this share of the head's size


class TrackScores(NamedTuple):
    """Counts of a video or of several."""

    clear: Clear
    identity: Identity
    hota: Hota

    @classmethod
    def of(cls, frames: list[Frame]) -> TrackScores:
        return cls(clear(frames), identity(frames), hota(frames))

    def plus(self, other: TrackScores) -> TrackScores:
        return TrackScores(self.clear + other.clear, self.identity + other.identity, self.hota + other.hota)

    @property
    def numbers(self) -> dict[str, float]:
        return {
            "HOTA": self.hota.score,
            "DetA": self.hota.detection,
            "AssA": self.hota.associated,
            "MOTA": self.clear.mota,
            "MOTP": self.clear.motp,
            "IDF1": self.identity.f1,
            "switches": self.clear.switches,
            "missed": self.clear.missed,
            "false positives": self.clear.invented,
        }


@dataclass(frozen=True)
class TrackMetrics:
    """The evaluation of a run's tracks.

    Attributes:
        boxes, poses: scores by video and, under `all`, of all videos, by the overlap of boxes and by OKS; poses are
            empty for annotations without joints.
        joints: MOTA by joint name, of annotations with joints and heads; `mean` is their mean.
        unmatched: annotated videos that the run does not contain.
    """

    boxes: dict[str, dict[str, float]]
    poses: dict[str, dict[str, float]]
    joints: dict[str, float]
    unmatched: list[str]

    def lines(self) -> list[str]:
        """Lines for a terminal."""
        lines = []
        for name, scores in (("boxes", self.boxes), ("poses", self.poses)):
            if scores:
                total = scores["all"]
                shown = ", ".join(f"{key} {total[key]:.3f}" for key in ("HOTA", "MOTA", "IDF1"))
                lines.append(f"tracks of {name}: {shown}, {total['switches']:.0f} switches ({len(scores) - 1} videos)")
        if self.joints:
            lines.append(f"tracks of joints: MOTA {self.joints['mean']:.3f}")
        if self.unmatched:
            lines.append(
                f"note: {len(self.unmatched)} annotated videos are not in the run, and left out: "
                + ", ".join(self.unmatched[:5])
            )
        return lines


def evaluate_tracks(run: Run, annotations: str) -> TrackMetrics:
    """Compare the tracks of a run with annotated ones. A video belongs to annotations of the same base name.

    Only labelled frames that have a row count: a run on each second frame is judged on these. In frames that failed
    everybody is missed. People without a track, and those that were filled in, do not count.

    Raises:
        UserError: the annotations cannot be read, or fit no video.
    """
    skeleton = table_skeleton(run.uri)
    truth = {video.name: video for video in read_tracks(annotations, skeleton)}
    boxes: dict[str, TrackScores] = {}
    poses: dict[str, TrackScores] = {}
    joints = [Clear() for _ in skeleton.joints]
    heads = False
    found: set[str] = set()
    for video in tracked_videos(run):
        name = _base_name(video.name)
        if name not in truth:
            continue
        if name in found:
            raise UserError(
                f"{annotations}: two videos of the run are called {name}; annotations cannot tell them apart"
            )
        found.add(name)
        pairs = list(_pairs(video, truth[name]))
        boxes[video.name] = TrackScores.of([_by_boxes(*pair) for pair in pairs])
        if truth[name].has_joints:
            poses[video.name] = TrackScores.of([_by_poses(*pair, skeleton) for pair in pairs])
            heads |= any(pair[0].heads.any() for pair in pairs)
            for place in range(len(skeleton)):
                joints[place] += clear([_by_joint(*pair, place) for pair in pairs], lasting=True)
    if not found:
        raise UserError(
            f"{annotations} has tracks of {', '.join(list(truth)[:5])}, and {run.uri} has no video of such a name"
        )
    return TrackMetrics(
        _numbers(boxes),
        _numbers(poses),
        _joint_numbers(joints, skeleton) if heads else {},
        sorted(truth.keys() - found),
    )


def write_track_metrics(metrics: TrackMetrics, run: Run) -> str:
    """Write `track_metrics.json`; returns its URI."""
    uri = run.path("track_metrics.json")
    content = {"boxes": metrics.boxes, "poses": metrics.poses, "joints": metrics.joints, "unmatched": metrics.unmatched}
    storage.write_bytes(uri, json.dumps(content, indent=2).encode())
    return uri


def _numbers(scores: dict[str, TrackScores]) -> dict[str, dict[str, float]]:
    if not scores:
        return {}
    total = reduce(TrackScores.plus, scores.values())
    return {"all": total.numbers, **{name: score.numbers for name, score in scores.items()}}


def _joint_numbers(joints: list[Clear], skeleton: Skeleton) -> dict[str, float]:
    motas = {name: c.mota for name, c in zip(skeleton.joints, joints, strict=True) if c.matched + c.missed}
    return {"mean": float(np.mean(list(motas.values()))), **motas} if motas else {}


def _base_name(video: str) -> str:
    """`a` of `clips/a.mp4`, of the sequence `clips/a`, and of MOTChallenge's `a/img1`."""
    name = video.removesuffix("/img1").rsplit("/", 1)[-1]
    suffix = storage.suffix(name)
    return name.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else name


class _Found(NamedTuple):
    """The predicted people of a frame: tracks (P,), boxes (P, 4) xyxy, joints (P, K, 2), and their scores (P,)."""

    tracks: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    scores: np.ndarray


def _pairs(video: Video, truth: TrueVideo) -> Iterator[tuple[TrueFrame, _Found]]:
    """The labelled frames that have a row, in order. Frames of MOTChallenge count from the first of a video."""
    empty = TrueFrame(np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, 0, 3)), np.zeros(0), [])
    for frame in video.frames:
        number = frame.position if truth.all_labelled else frame.image["frame"]
        true = truth.frames.get(number, empty if truth.all_labelled else None)
        if true is not None:
            yield true, _found(frame, true)


def _found(frame: VideoFrame, true: TrueFrame) -> _Found:
    tracked = [person for person in frame.tracked if person.person is not None and not _is_ignored(person.box, true)]
    people = frame.people[[person.person for person in tracked if person.person is not None]]
    tracks = np.array([person.track for person in tracked], int)
    return _Found(tracks, people.boxes.astype(float), people.keypoints.astype(float), people.pose_scores)


def _is_ignored(box: np.ndarray, true: TrueFrame) -> bool:
    """Whether the centre of a box lies in a region that does not count."""
    centre = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    return any(cv2.pointPolygonTest(polygon, centre, False) >= 0 for polygon in true.ignored)


def _by_boxes(true: TrueFrame, found: _Found) -> Frame:
    overlaps = iou(np.concatenate([true.boxes, found.boxes]))[: len(true.boxes), len(true.boxes) :]
    return Frame(true.tracks, found.tracks, overlaps)


def _by_poses(true: TrueFrame, found: _Found, skeleton: Skeleton) -> Frame:
    """By OKS over the labelled joints; the area of a person is that of its box."""
    count = len(true.tracks)
    nobody = np.zeros(count, bool)
    ground_truth = GroundTruth(
        xyxy_to_xywh(true.boxes), areas(true.boxes), nobody, nobody, true.joints, np.full(count, np.nan)
    )
    scores = np.ones(found.joints.shape[:2])
    predicted = Detections(xyxy_to_xywh(found.boxes), areas(found.boxes), found.scores, found.joints, scores)
    similarity = keypoint_similarity(ground_truth, predicted, np.array(skeleton.oks_sigmas))
    return Frame(true.tracks, found.tracks, similarity.T)


def _by_joint(true: TrueFrame, found: _Found, place: int) -> Frame:
    """By one joint, labelled in a person whose head is known: 1 at its place, 0.5 at half the size of the head."""
    labelled = (true.joints[:, place, 2] > 0) & (true.heads > 0)
    distances = np.linalg.norm(true.joints[labelled, None, place, :2] - found.joints[None, :, place], axis=2)
    similarity = np.maximum(0.0, 1 - distances / true.heads[labelled, None] * (1 - THRESHOLD) / _PCKH)
    return Frame(true.tracks[labelled], found.tracks, similarity)
