"""Images to people, batched across images. Independent of Ray and of stored collections.

>>> annotator = Annotator.from_settings(Settings(detector={"name": "whole_image"}))  # doctest: +SKIP
>>> people = annotator.annotate([pixels])  # doctest: +SKIP
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from pipeline.appearance import Appearance, build_appearance
from pipeline.boxes import areas, iou
from pipeline.detectors import Detector, build_detector
from pipeline.detectors.pose_detector import PoseDetector
from pipeline.errors import UserError, first_line
from pipeline.people import Boxes, People
from pipeline.pose.checkpoint import skeleton_of
from pipeline.pose.crop import CropBatch
from pipeline.pose.estimator import PoseEstimator
from pipeline.pose.heads import ArgmaxHead
from pipeline.process.stopwatch import Stopwatch
from pipeline.run.columns import APPEARANCE
from pipeline.runtime.device import Compute, Image
from pipeline.settings.tree import PoseSettings, Settings
from pipeline.suppression import PoseNMS, pose_nms, pose_score

_T = TypeVar("_T")

# IoU of boxes below which people may be two, whatever their joints are: in the demo of Pose2Sim a man behind a woman
# gets her face. Detectors drop boxes only from a higher IoU.
_ELSEWHERE = 0.5

# Failures of the machine; never attributed to an image.
MACHINE_ERRORS = (OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)


class Picture(NamedTuple):
    """What is annotated.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; also as `Compute.upload` returns them, if no appearance is described.
        boxes: person boxes, if the detector is `given`.
        is_frame: whether it is a frame of a video; weak people are looked for in frames alone.
    """

    pixels: Image
    boxes: Boxes | None = None
    is_frame: bool = False


_Group = Sequence[tuple[Picture, Image]]  # with the uploaded pixels


class NetworksError(RuntimeError):
    """The networks fail on this machine for any image; the message has the error."""


class Annotator:
    """A person detector, a pose network and pose NMS.

    Results depend on the image, the settings and the weights alone: batches have one fixed shape, and images in a batch
    do not affect each other.

    Attributes:
        confidence: people with a box score up to this count only if they continue a track, see `suppress_weak`.
        groups_ahead: number of detector batches in flight while the people of earlier batches are cropped and posed: 1
            on a GPU, so that it does not wait for the CPU; 0 on a CPU, which would not gain.
    """

    def __init__(
        self,
        detector: Detector | None,
        poses: PoseEstimator,
        suppression: PoseNMS,
        compute: Compute,
        appearance: Appearance | None = None,
        confidence: float = -np.inf,
    ) -> None:
        self.detector = detector
        self.appearance = appearance
        self.poses = poses
        self.suppression = suppression
        self.compute = compute
        self.confidence = confidence
        self.groups_ahead = 1 if compute.device.type == "cuda" else 0
        self.stopwatch = Stopwatch()
        # A single lasting thread: on a GPU every new thread plans its convolutions again.
        self._detecting = ThreadPoolExecutor(1, "detect")

    @classmethod
    def from_settings(cls, settings: Settings) -> Annotator:
        """Load the networks.

        Raises:
            UserError, OSError: a network cannot be built or loaded; the message names it.
        """
        compute = Compute.resolve(**settings.compute.model_dump())
        detector = build_detector(settings.detector, compute)
        poses = build_poses(settings.pose, detector, compute)
        suppression = settings.suppression
        if suppression.head == "auto":
            suppression = replace(suppression, head=poses.head.kind)
        appearance = build_appearance(settings.output.appearance, poses.skeleton, compute)
        confidence = settings.detector.confidence if settings.detector.has_confidence else -np.inf
        compute.await_loading()
        return cls(detector, poses, suppression, compute, appearance, confidence)

    def annotate(self, images: Sequence[np.ndarray], boxes: Sequence[Boxes] | None = None) -> list[People]:
        """The people of each image.

        Args:
            images: (H, W, 3) uint8 RGB each, sizes may differ.
            boxes: person boxes of each image, if the detector is `given`.
        """
        given = [None] * len(images) if boxes is None else boxes
        return [self.suppress(people) for people in self.candidates(map(Picture, images, given))]

    def candidates(self, pictures: Iterable[Picture]) -> Iterator[People]:
        """The people of each picture before suppression, in order, as soon as their batches are full."""
        batch = self._pose_batch()
        pending: deque[_PendingImage] = deque()
        uploaded = ((picture, self.compute.upload(picture.pixels)) for picture in pictures)
        for group, detected in self._with_boxes(_batched(uploaded, self.detector.batch if self.detector else 1)):
            for (picture, image), found in zip(group, detected, strict=True):
                boxes = found if picture.is_frame else found[found.scores > self.confidence]
                shown = picture.pixels if self.appearance and isinstance(picture.pixels, np.ndarray) else None
                pending_image = _PendingImage(boxes, len(self.poses.skeleton), shown)
                pending.append(pending_image)
                if boxes.poses is None:
                    batch.add(image, pending_image)
            while pending and pending[0].missing == 0:
                yield self._people(pending.popleft())
        batch.run()
        while pending:
            yield self._people(pending.popleft())

    def _pose_batch(self) -> _PoseBatch:
        return _PoseBatch(self.poses, CropBatch(self.poses.rules, self.poses.batch, self.compute), self.stopwatch)

    def _people(self, done: _PendingImage) -> People:
        people = done.people()
        if self.appearance is None or done.image is None:
            return people
        with self.stopwatch("appearance"):
            return replace(people, extra={APPEARANCE: self.appearance.describe(done.image, people)})

    def check(self) -> None:
        """Run a grey image through the networks.

        Raises:
            NetworksError: the networks fail.
            OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError: the machine fails.
        """
        grey = np.full((64, 64, 3), 128, np.uint8)
        boxes = Boxes(np.array([[8, 8, 56, 56]], np.float32), np.ones(1, np.float32))
        try:
            if self.detector is not None:
                self.detector.detect([grey])
            if self.poses.networks:
                batch = self._pose_batch()
                batch.add(grey, _PendingImage(boxes, len(self.poses.skeleton)))
                batch.run()
        except MACHINE_ERRORS:
            raise
        except Exception as error:
            raise NetworksError(
                f"the networks also fail on a grey image: {type(error).__name__}: {first_line(error)}; the cause is "
                "this machine or an installed package, not an image: try --compute.device cpu to rule out the GPU"
            ) from error

    def empty(self) -> People:
        """The people of an image without people."""
        nobody = People.empty(len(self.poses.skeleton))
        if self.appearance is None:
            return nobody
        return replace(nobody, extra={APPEARANCE: np.zeros((0, self.appearance.size), np.float32)})

    def suppress(self, candidates: People) -> People:
        """One pose per person; weak people do not count."""
        with self.stopwatch("suppress"):
            return self._suppressed(candidates[candidates.box_scores > self.confidence])[0]

    def suppress_weak(self, candidates: People) -> People:
        """The people of a frame who count only if they continue a track; one pose per person.

        They are those with low scores that are no copy of another person, and those that `suppress` takes for a copy
        although their box is another one: in the box of a person who is partly hidden, a network often finds the face
        of the one in front.
        """
        is_weak = candidates.box_scores <= self.confidence
        sure = candidates[~is_weak]
        with self.stopwatch("suppress"):
            people, copies = self._suppressed(candidates)
            weak = people[[i for i, rows in enumerate(copies) if is_weak[rows].all()]]
            people, copies = self._suppressed(sure)
            rows = np.array(sorted(row for merged in copies for row in merged), int)
            overlaps = iou(np.concatenate([sure.boxes[rows], people.boxes]))[: len(rows), len(rows) :]
            elsewhere = rows[(overlaps < _ELSEWHERE).all(axis=1) & (areas(sure.boxes[rows]) > 0)]
            return People.concatenate([weak, self._suppressed(sure[elsewhere])[0]])

    def _suppressed(self, candidates: People) -> tuple[People, list[list[int]]]:
        return pose_nms(candidates, self.suppression, self.poses.skeleton.oks_sigmas)

    def _with_boxes(self, groups: Iterable[_Group]) -> Iterator[tuple[_Group, list[Boxes]]]:
        """Each group and its boxes; the detector runs `groups_ahead`."""
        if not self.groups_ahead:
            for group in groups:
                with self.stopwatch("detect"):
                    boxes = self._boxes(group)
                yield group, boxes
            return
        ahead: deque[tuple[_Group, Future[list[Boxes]]]] = deque()

        def first() -> tuple[_Group, list[Boxes]]:
            group, boxes = ahead.popleft()
            with self.stopwatch("detect"):
                return group, boxes.result()

        try:
            for group in groups:
                ahead.append((group, self._detecting.submit(self._boxes, group)))
                if len(ahead) > self.groups_ahead:
                    yield first()
            while ahead:
                yield first()
        finally:
            wait([boxes for _, boxes in ahead])  # a later call must not share the detector's input buffer

    def _boxes(self, group: _Group) -> list[Boxes]:
        if self.detector is not None:
            with self.compute.beside_poses():
                return self.detector.detect([image for _, image in group])
        boxes = [picture.boxes for picture, _ in group if picture.boxes is not None]
        if len(boxes) < len(group):
            raise UserError("--detector.name is given, but an image came without boxes")
        return boxes


def build_poses(settings: PoseSettings, detector: Detector | None, compute: Compute) -> PoseEstimator:
    """The pose networks that the settings name; none for a detector that finds joints itself.

    Raises:
        UserError: a network cannot be built or loaded, or no skeleton fits.
    """
    if not isinstance(detector, PoseDetector):
        return PoseEstimator.from_settings(settings, compute)
    skeleton = skeleton_of(detector.num_joints, settings.skeleton, f"one with {detector.num_joints} joints")
    return PoseEstimator([], ArgmaxHead(), skeleton, compute)


def _batched(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    """itertools.batched of Python 3.12."""
    iterator = iter(items)
    while group := tuple(islice(iterator, size)):
        yield group


@dataclass
class _PendingImage:
    """An image whose people have not all been through the pose networks."""

    boxes: Boxes
    num_joints: int
    image: np.ndarray | None = None  # for the appearance of its people

    def __post_init__(self) -> None:
        if self.boxes.poses is not None:
            self.keypoints, self.scores = self.boxes.poses[..., :2], self.boxes.poses[..., 2]
            self.missing = 0
            return
        self.keypoints = np.zeros((len(self.boxes), self.num_joints, 2), np.float32)
        self.scores = np.zeros((len(self.boxes), self.num_joints), np.float32)
        self.missing = len(self.boxes)

    def people(self) -> People:
        total = pose_score(self.scores, self.boxes.scores)
        return People(self.boxes.xyxy, self.boxes.scores, self.keypoints, self.scores, total)


class _PoseBatch:
    """Crops of people of many images; the pose networks run whenever the batch is full."""

    def __init__(self, poses: PoseEstimator, crops: CropBatch, stopwatch: Stopwatch) -> None:
        self._poses = poses
        self._crops = crops
        self._stopwatch = stopwatch
        self._owners: list[tuple[_PendingImage, int]] = []  # image and row of the person of each crop

    def add(self, image: Image, pending_image: _PendingImage) -> None:
        row = 0
        while row < len(pending_image.boxes):
            count = min(len(pending_image.boxes) - row, self._crops.room)
            with self._stopwatch("crop"):
                self._crops.add(image, pending_image.boxes.xyxy[row : row + count])
            self._owners += [(pending_image, i) for i in range(row, row + count)]
            row += count
            if not self._crops.room:
                self.run()

    def run(self) -> None:
        """Run the batch; rows beyond the filled ones are ignored."""
        if not self._owners:
            return
        with self._stopwatch("crop"):
            crops, boxes = self._crops.take()
        with self._stopwatch("poses"):
            keypoints, scores = self._poses.estimate(crops, boxes)
        for row, (pending_image, i) in enumerate(self._owners):
            pending_image.keypoints[i], pending_image.scores[i] = keypoints[row], scores[row]
            pending_image.missing -= 1
        self._owners = []
