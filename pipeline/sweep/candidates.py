"""Trials without networks: the candidates that a run has stored, suppressed anew."""

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
from pipeline.evaluation.eval_images import pair
from pipeline.evaluation.keypoints import match_keypoints
from pipeline.evaluation.matching import KEYPOINT_RULES, Matches, join
from pipeline.evaluation.partial import Map
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.detections import pose_detections
from pipeline.run.tables import read_candidates, table_metadata
from pipeline.skeletons import Skeleton
from pipeline.suppression import PoseNMS, pose_nms

_IMAGES_AT_ONCE = 1000
_TRIALS_AT_ONCE = 8


class Rescoring(NamedTuple):
    """Settings after the networks: candidates' boxes score more than `confidence`, and `suppression` is theirs."""

    confidence: float
    suppression: PoseNMS


class Outcome(NamedTuple):
    """Of a trial: its numbers, and how many people it finds in the annotated images."""

    metrics: Metrics
    people: int


@dataclass(frozen=True)
class Candidates:
    """The candidates of annotated images.

    Attributes:
        truth: the images.
        people: of all images, in their order; of each, as the run found them.
        starts: (I + 1,) where the candidates of each image begin.
        head: whose scores they have.
    """

    truth: Annotations
    people: People
    starts: np.ndarray
    head: Literal["heatmap", "regression"]

    def groups(self, images: int) -> Iterator[Candidates]:
        """So many images at a time, in their order."""
        for start in range(0, len(self.truth.ids), images):
            truth = self.truth.slice(start, start + images)
            starts = self.starts[start : start + images + 1]
            yield Candidates(truth, self.people[starts[0] : starts[-1]], starts - starts[0], self.head)


def stored_candidates(run: Run, truth: Annotations) -> Candidates:
    """The candidates of a reduced run in the images of the truth.

    Raises:
        UserError: the run holds none, or the annotations know none of its images.
    """
    ids = truth.coco_ids()
    image_ids, people, known = [], [], 0
    for shard, count in run.manifest().counts.items():
        names, lengths, found = read_candidates(run.uri, shard, count, run.fingerprint)
        # Images without an id go to the image -1, which no annotation has.
        numbers = np.array([-1 if (number := ids.get(name)) is None else number for name in names])
        known += int((numbers >= 0).sum())
        image_ids.append(np.repeat(numbers, lengths))
        people.append(found)
    head = table_metadata(run.uri).get("head")
    if head is None:
        raise UserError(f"{run.uri} was made by an older version, which doesn't tell what its scores are; make it anew")
    if not known:
        raise UserError(f"the annotations name none of the images in {run.uri}; are they for another collection?")
    rows, starts = group_by_image(truth.ids, np.concatenate(image_ids))
    return Candidates(truth, People.concatenate(people)[rows], starts, head)


def score_trials(
    candidates: Candidates, trials: Sequence[Rescoring], skeleton: Skeleton, map_chunks: Map = map
) -> Iterator[Outcome]:
    """What each trial's settings make of the candidates; the time grows with trials times people.

    Args:
        map_chunks: where trials are made.
    """
    batches = [trials[i : i + _TRIALS_AT_ONCE] for i in range(0, len(trials), _TRIALS_AT_ONCE)]
    groups = -(-len(candidates.truth.ids) // _IMAGES_AT_ONCE)
    work = ((batch, group) for batch in batches for group in candidates.groups(_IMAGES_AT_ONCE))
    done = iter(map_chunks(partial(_score, skeleton=skeleton), work))
    for _ in batches:
        for parts in zip(*islice(done, groups), strict=True):
            metrics = Metrics.of(join([matches for matches, _ in parts]), KEYPOINT_RULES)
            yield Outcome(metrics, sum(people for _, people in parts))


def _score(work: tuple[Sequence[Rescoring], Candidates], skeleton: Skeleton) -> list[tuple[Matches, int]]:
    trials, candidates = work
    return [_rescore(candidates, trial, skeleton) for trial in trials]


def _rescore(candidates: Candidates, trial: Rescoring, skeleton: Skeleton) -> tuple[Matches, int]:
    suppression = trial.suppression
    if suppression.head == "auto":
        suppression = replace(suppression, head=candidates.head)
    people, counts = [], []
    for start, end in zip(candidates.starts[:-1], candidates.starts[1:], strict=True):
        image = candidates.people[start:end]
        found, _ = pose_nms(image[image.box_scores > trial.confidence], suppression, skeleton.oks_sigmas)
        people.append(found)
        counts.append(len(found))
    truth = candidates.truth
    eval_images = pair(truth, np.repeat(truth.ids, counts), pose_detections(people), KEYPOINT_RULES.max_detections)
    return match_keypoints(eval_images, skeleton), sum(counts)
