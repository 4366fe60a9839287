"""Trials without networks: suppression is applied again to the stored candidates of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from pipeline.coco.annotations import Annotations, group_by_image
from pipeline.errors import UserError
from pipeline.evaluation import Metrics
from pipeline.evaluation.errors import count_people
from pipeline.evaluation.eval_images import pair
from pipeline.evaluation.intervals import average_precisions, resamples
from pipeline.evaluation.keypoints import match_keypoints
from pipeline.evaluation.matching import KEYPOINT_RULES, Matches, join
from pipeline.evaluation.operating_point import OperatingPoint, join_points, mean_f1
from pipeline.evaluation.partial import Map
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.detections import pose_detections
from pipeline.run.tables import image_ids, read_candidates, table_metadata
from pipeline.skeletons import Skeleton
from pipeline.suppression import PoseNMS, pose_nms

_CHUNK_SIZE = 1000  # images per task
_TRIALS_PER_TASK = 8


class Rescoring(NamedTuple):
    """Settings that apply after the networks: the box score that candidates must exceed, and the suppression."""

    confidence: float
    suppression: PoseNMS


class Outcome(NamedTuple):
    """The result of a trial.

    Attributes:
        metrics: of COCO.
        f1: mean F1 over the similarities of AP, at the threshold of the trial.
        people: found, missed and false positives of each annotated image.
        num_people: number of detected people in the annotated images.
        resampled_ap, resampled_f1: (R,) on resampled images, the same resamples for all trials.
    """

    metrics: Metrics
    f1: float
    people: OperatingPoint
    num_people: int
    resampled_ap: np.ndarray
    resampled_f1: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """The candidates of annotated images.

    Attributes:
        truth: the I annotated images.
        people: the candidates of all images, image after image; those of an image in the order of the run.
        starts: (I + 1,) where the candidates of each image start.
        head: kind of the pose network's head, which decides the constants of the suppression.
    """

    truth: Annotations
    people: People
    starts: np.ndarray
    head: Literal["heatmap", "regression"]

    def chunks(self, size: int) -> Iterator[Candidates]:
        """Chunks of `size` images, in their order."""
        for start in range(0, len(self.truth.ids), size):
            truth = self.truth.slice(start, start + size)
            starts = self.starts[start : start + size + 1]
            yield Candidates(truth, self.people[starts[0] : starts[-1]], starts - starts[0], self.head)


def stored_candidates(run: Run, truth: Annotations) -> Candidates:
    """The candidates of a reduced run in the annotated images.

    Raises:
        UserError: the run has no candidates, or the annotations name none of its images.
    """
    ids = truth.match_ids(image_ids(run.uri))
    rows_of_ids, people, num_known = [], [], 0
    for shard, count in run.manifest().counts.items():
        names, lengths, candidates = read_candidates(run.uri, shard, count, run.fingerprint)
        # Images that the annotations do not name get the id -1; `group_by_image` leaves them out.
        numbers = np.array([-1 if (number := ids.get(name)) is None else number for name in names])
        num_known += int((numbers >= 0).sum())
        rows_of_ids.append(np.repeat(numbers, lengths))
        people.append(candidates)
    head = table_metadata(run.uri).get("head")
    if head is None:
        raise UserError(f"{run.uri} was made by an older version that did not store the kind of head; annotate again")
    if not num_known:
        raise UserError(f"the annotations name none of the images in {run.uri}; are they for another collection?")
    rows, starts = group_by_image(truth.ids, np.concatenate(rows_of_ids))
    return Candidates(truth, People.concatenate(people)[rows], starts, head)


def score_trials(
    candidates: Candidates, trials: Sequence[Rescoring], skeleton: Skeleton, map_chunks: Map = map
) -> Iterator[Outcome]:
    """The outcome of each trial, in their order; the time grows with trials times candidates.

    Args:
        map_chunks: where chunks of images are computed.
    """
    yield from map_chunks(_outcome, _rescored(candidates, trials, skeleton, map_chunks))


def people_of_trials(
    candidates: Candidates, trials: Sequence[Rescoring], skeleton: Skeleton, map_chunks: Map = map
) -> Iterator[OperatingPoint]:
    """The people found and the false positives of each trial alone; arguments as of `score_trials`."""
    return (rescored.people for rescored in _rescored(candidates, trials, skeleton, map_chunks))


def _rescored(
    candidates: Candidates, trials: Sequence[Rescoring], skeleton: Skeleton, map_chunks: Map
) -> Iterator[_Rescored]:
    """Each trial on all images, in their order."""
    batches = [trials[i : i + _TRIALS_PER_TASK] for i in range(0, len(trials), _TRIALS_PER_TASK)]
    num_chunks = -(-len(candidates.truth.ids) // _CHUNK_SIZE)
    work = ((batch, chunk) for batch in batches for chunk in candidates.chunks(_CHUNK_SIZE))
    results = iter(map_chunks(partial(_score, skeleton=skeleton), work))
    for _ in batches:
        for parts in zip(*islice(results, num_chunks), strict=True):
            yield _Rescored(
                join([part.matches for part in parts]),
                join_points([part.people for part in parts]),
                sum(part.num_people for part in parts),
            )


def _outcome(rescored: _Rescored) -> Outcome:
    return outcome_of(*rescored)


def outcome_of(matches: Matches, people: OperatingPoint, num_people: int) -> Outcome:
    """The outcome of a trial with these matches in all images."""
    num_images = len(matches.detections)
    (f1,) = mean_f1(matches)
    resampled = (values(matches, resamples(num_images)) for values in (average_precisions, mean_f1))
    return Outcome(
        Metrics.of(matches, KEYPOINT_RULES), f1, people, num_people, *(np.array(list(values)) for values in resampled)
    )


class _Rescored(NamedTuple):
    """A trial on some images."""

    matches: Matches
    people: OperatingPoint
    num_people: int


def _score(work: tuple[Sequence[Rescoring], Candidates], skeleton: Skeleton) -> list[_Rescored]:
    trials, candidates = work
    return [_rescore(candidates, trial, skeleton) for trial in trials]


def _rescore(candidates: Candidates, trial: Rescoring, skeleton: Skeleton) -> _Rescored:
    suppression = trial.suppression
    if suppression.head == "auto":
        suppression = replace(suppression, head=candidates.head)
    people, counts = [], []
    for start, end in zip(candidates.starts[:-1], candidates.starts[1:], strict=True):
        image = candidates.people[start:end]
        detected, _ = pose_nms(image[image.box_scores > trial.confidence], suppression, skeleton.oks_sigmas)
        people.append(detected)
        counts.append(len(detected))
    truth = candidates.truth
    eval_images = pair(truth, np.repeat(truth.ids, counts), pose_detections(people), KEYPOINT_RULES.max_detections)
    (people_found,) = count_people(eval_images, skeleton)
    return _Rescored(match_keypoints(eval_images, skeleton), people_found, sum(counts))
