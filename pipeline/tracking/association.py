"""Association of the people in the frames of one video to tracks.

Each track predicts its box and pose by a Kalman filter; people are assigned to predictions by the similarity of their
poses, then, if they are left, to the boxes where tracks were seen last (observation-centric recovery: Cao et al.,
Observation-Centric SORT, CVPR 2023). People with low scores come last, and start no track (Zhang et al., ByteTrack,
ECCV 2022). All durations are seconds: results hardly depend on the frame rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np

from pipeline.boxes import areas, iou
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.box_motion import BoxMotion
from pipeline.tracking.duplicates import confidences_of, find_duplicates, merge_duplicates
from pipeline.tracking.frames import FramePeople, Places
from pipeline.tracking.pose_flow import find_flows
from pipeline.tracking.reunion import reunite

_CONFIDENT = 0.2  # score from which a joint is compared
_MARGIN = 2.0  # OKS tells apart two annotators of one image; a person moves more between frames
_RECOVERY_IOU = 0.3
_WEAK_SIMILARITY = 0.3  # of a person with a low score, or of a copy, so that it does not lead a track away
_LARGEST_RATIO = 2.5  # of the heights of a track's last box and the next: a head alone is not the person
_MEMORY_STEPS = 2.5  # usual steps between frames that a track lives at least
_JUST_SEEN = 0.12  # seconds: a detector that misses a person once or twice does not make a track stale


@dataclass(eq=False)
class _Track:
    """A person over time: the last observation, the motion, and where it was seen."""

    motion: BoxMotion
    box: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    seen: Places = field(default_factory=list)


def track_people(frames: Iterable[FramePeople], sigmas: np.ndarray, settings: TrackingSettings) -> list[np.ndarray]:
    """The tracks of the people of a video.

    A person that is seen only once, or for a shorter time than `confirm`, has no track; weak people do not count here,
    and start no track. Results do not depend on the order of the people in a frame. All tracks end at a cut, and where
    the time goes back, in videos in a row. A person may be unseen in one frame, however far apart the frames are.

    Args:
        frames: in order of presentation.
        sigmas: (K,) of OKS, see `Skeleton`.
        settings: how people are compared, and for how long tracks live.

    Returns:
        For each frame (N,) int64 track numbers from 1, 0 without a track. Tracks are numbered by their first frame,
        then by the left edge of their box; numbers are never used again.
    """
    ordered: list[FramePeople] = []
    orders: list[np.ndarray] = []
    counts: list[int] = []
    latest = -np.inf
    for frame in frames:
        keys = np.concatenate(
            [frame.boxes, frame.keypoints.reshape(len(frame.boxes), 2 * frame.keypoints.shape[1])], axis=1
        )
        order = np.lexsort(keys.T[::-1])  # by left edge, top, ...
        if frame.seconds == latest:  # the same time again: nobody can be followed to it
            order = order[:0]
        orders.append(order)
        ordered.append(frame.rows(order)._replace(first_of_scene=frame.first_of_scene or frame.seconds < latest))
        counts.append(len(frame.boxes))
        latest = frame.seconds
    times = np.array([frame.seconds for frame in ordered])
    steps = np.diff(times)[np.diff(times) > 0]
    if len(steps):
        settings = settings.model_copy(update={"memory": max(settings.memory, _MEMORY_STEPS * float(np.median(steps)))})
    tracks = find_flows(ordered, settings) if settings.kind == "poseflow" else _follow(ordered, sigmas, settings)
    numbers = [np.zeros(count, np.int64) for count in counts]
    confirmed = [seen for seen in tracks if _is_confirmed(seen, ordered, settings.confirm)]
    if settings.reunite:
        confirmed = reunite(confirmed, ordered, settings.reunite)
    for identity, seen in enumerate(sorted(confirmed, key=lambda seen: seen[0]), 1):
        for frame_number, person in seen:
            numbers[frame_number][orders[frame_number][person]] = identity
    return numbers


def _is_confirmed(places: Places, frames: Sequence[FramePeople], seconds: float) -> bool:
    """Whether a person was seen at least twice, over this time at least; sightings of weak people do not count."""
    sure = [frame for frame, person in places if frames[frame].surely()[person]]
    return len(sure) > 1 and frames[sure[-1]].seconds - frames[sure[0]].seconds >= seconds


def _follow(frames: Sequence[FramePeople], sigmas: np.ndarray, settings: TrackingSettings) -> list[Places]:
    """The people that belong together."""
    similarity = _pose_similarity if settings.kind == "oks" else _box_similarity
    living: list[_Track] = []
    ended: list[_Track] = []
    for number, people in enumerate(frames):
        unseen = [people.seconds - track.motion.seconds for track in living]
        alive = [not people.first_of_scene and 0 <= seconds <= settings.memory for seconds in unseen]
        ended += compress(living, (not lives for lives in alive))
        living = list(compress(living, alive))
        sure = people.surely(settings.sure) & ~find_duplicates(people)
        assigned = _assign(living, people, sure, similarity(living, people, sigmas) if living else None, settings)
        for person in range(len(people.boxes)):
            track = assigned.get(person)
            observed = (people.boxes[person], people.keypoints[person], people.keypoint_scores[person])
            if track is None and not sure[person]:
                continue
            if track is None:
                track = _Track(BoxMotion(observed[0], people.seconds), *observed)
                living.append(track)
            else:
                track.motion.update(observed[0], people.seconds)
                track.box, track.keypoints, track.keypoint_scores = observed
            track.seen.append((number, person))
    tracks = [track.seen for track in [*ended, *living]]
    scores = [confidences_of(frame) for frame in frames]
    return merge_duplicates(tracks, frames, [float(sum(scores[f][n] for f, n in track)) for track in tracks])


def _assign(
    tracks: Sequence[_Track],
    people: FramePeople,
    sure: np.ndarray,
    predicted: np.ndarray | None,
    settings: TrackingSettings,
) -> dict[int, _Track]:
    """The track of each person that continues one.

    Args:
        sure: (N,) bool, whether a person may start a track; others come last.
        predicted: (T, N) similarity of the people to the predictions of the tracks; None without tracks.
    """
    if predicted is None or len(people.boxes) == 0:
        return {}
    last = _overlaps(_last_boxes(tracks), people.boxes)
    # Tracks that were just seen come first: the tolerance of others is wider, so that they would take over people.
    latest = max(track.motion.seconds for track in tracks)
    just_seen = np.array([track.motion.seconds >= latest - _JUST_SEEN for track in tracks])
    every = np.ones(len(tracks), bool)
    heights = [np.maximum(boxes[:, 3] - boxes[:, 1], 1.0) for boxes in (_last_boxes(tracks), people.boxes)]
    ratios = heights[0][:, None] / heights[1]
    fitting = np.maximum(ratios, 1 / ratios) <= _LARGEST_RATIO
    pairs: list[tuple[int, int]] = []
    for values, least, from_tracks, to_people in (
        (predicted, settings.similarity, just_seen, sure),
        (predicted, settings.similarity, ~just_seen, sure),
        (last, _RECOVERY_IOU, every, sure),
        (predicted, _WEAK_SIMILARITY, just_seen, ~sure),
    ):
        left = np.where(from_tracks[:, None] & to_people & fitting, values, -1.0)
        left[[track for track, _ in pairs]] = -1.0
        left[:, [person for _, person in pairs]] = -1.0
        pairs += _best_pairs(left, least)
    return {person: tracks[track] for track, person in pairs}


def _last_boxes(tracks: Sequence[_Track]) -> np.ndarray:
    """(T, 4) where the tracks were seen last."""
    return np.stack([track.box for track in tracks])


def _best_pairs(similarity: np.ndarray, least: float) -> list[tuple[int, int]]:
    """The assignment of rows to columns with the largest sum, of pairs with at least this similarity."""
    from scipy.optimize import linear_sum_assignment  # imported here: runs without videos need not wait for it

    rows, columns = linear_sum_assignment(np.where(similarity >= least, similarity, 0.0), maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= least]


def _box_similarity(tracks: Sequence[_Track], people: FramePeople, sigmas: np.ndarray) -> np.ndarray:
    """(T, N) IoU of the predicted boxes with those of the people."""
    return _overlaps(np.stack([track.motion.predict(people.seconds)[0] for track in tracks]), people.boxes)


def _pose_similarity(tracks: Sequence[_Track], people: FramePeople, sigmas: np.ndarray) -> np.ndarray:
    """(T, N) mean of the OKS of predicted poses and the IoU of predicted boxes; without common joints the IoU.

    A predicted pose is the last one, moved with its box. Its uncertainty is added to the tolerance of OKS: the longer a
    track is unseen, the wider it searches.
    """
    predicted, variances = zip(*(track.motion.predict(people.seconds) for track in tracks), strict=True)
    boxes = np.stack(predicted)
    last = _last_boxes(tracks)
    moved = (boxes[:, :2] + boxes[:, 2:] - last[:, :2] - last[:, 2:]) / 2
    poses = np.stack([track.keypoints for track in tracks]) + moved[:, None]
    seen = np.stack([track.keypoint_scores for track in tracks]) > _CONFIDENT
    common = seen[:, None] & (people.keypoint_scores > _CONFIDENT)[None]  # (T, N, K)
    distances = ((poses[:, None] - people.keypoints[None]) ** 2).sum(axis=3)
    tolerance = 2 * areas(last)[:, None] * (_MARGIN * 2 * sigmas) ** 2 + 2 * np.array(variances)[:, None]  # (T, K)
    agreement = np.exp(-distances / tolerance[:, None]) * common
    joints = common.sum(axis=2)
    overlaps = _overlaps(boxes, people.boxes)
    return np.where(joints > 0, (agreement.sum(axis=2) / np.maximum(joints, 1) + overlaps) / 2, overlaps)


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(T, N) IoU of (T, 4) and (N, 4) boxes xyxy."""
    return iou(np.concatenate([first, second]))[: len(first), len(first) :]
