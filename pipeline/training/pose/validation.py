"""The accuracy of a pose network on people whose boxes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.annotator import Annotator, Picture
from pipeline.boxes import long_sides
from pipeline.coco.annotations import load_annotations
from pipeline.coco.errors import AnnotationError
from pipeline.coco.subset import subset
from pipeline.evaluation import evaluate_keypoints
from pipeline.evaluation.pck import pck
from pipeline.people import Boxes, People
from pipeline.pose.estimator import PoseEstimator
from pipeline.runtime.device import Compute
from pipeline.skeletons import Skeleton
from pipeline.suppression import PoseNMS
from pipeline.training.annotated_images import read_pixels
from pipeline.training.pose.data import AnnotatedPerson, entries_with_joints, people_by_image
from pipeline.training.settings import AnnotatedSet


class PoseAccuracy(NamedTuple):
    """Accuracy with ground-truth boxes, each number in 0..1.

    Attributes:
        ap: mean over OKS 0.50:0.05:0.95.
        pck: of each joint of the skeleton.
    """

    ap: float
    ap50: float
    ar: float
    pck_body: float
    pck: Mapping[str, float]


@dataclass(frozen=True)
class PoseValidation:
    """Annotated people and their images.

    Attributes:
        truth: content of a COCO file with the joints of the skeleton.
        images: its entries of images with people.
        people: by image id.
        pixels: reads an entry's image, (H, W, 3) uint8 RGB.
    """

    truth: dict[str, Any]
    images: Sequence[Mapping[str, Any]]
    people: Mapping[int, Sequence[AnnotatedPerson]]
    skeleton: Skeleton
    pixels: Callable[[Mapping[str, Any]], np.ndarray]

    @classmethod
    def read(cls, annotated: AnnotatedSet, skeleton: Skeleton, setting: str = "validation") -> PoseValidation:
        """Read annotations, and their first image as a check of the folder.

        Args:
            setting: that names them, for error messages.

        Raises:
            AnnotationError: they cannot be used, or have no people with labelled joints.
        """
        name = annotated.annotations
        content = load_annotations(name)
        selected = [image for image in content["images"] if annotated.source in (None, image.get("source"))]
        entries = [
            {
                **entry,
                "keypoints": entry["keypoints"].ravel().tolist(),
                "num_keypoints": int((entry["keypoints"][:, 2] > 0).sum()),
            }
            for entry in entries_with_joints(content, skeleton.joints, name, annotated.file_joints)
        ]
        truth = subset({**content, "annotations": entries}, selected)
        people = people_by_image(truth, skeleton.joints, name, file_joints=skeleton.joints)
        images = [image for image in selected if image["id"] in people]
        if not images:
            raise AnnotationError(f"--{setting} {name} has no people with a box and labelled joints")
        read_pixels(name, annotated.images, images[0])
        return cls(truth, images, people, skeleton, lambda image: read_pixels(name, annotated.images, image))

    @property
    def num_people(self) -> int:
        return sum(len(self.people[image["id"]]) for image in self.images)

    def poses(self, estimator: PoseEstimator, compute: Compute) -> Iterator[tuple[np.ndarray, People]]:
        """Each image (H, W, 3) uint8 RGB with the poses in the boxes of its people, without pose NMS."""
        annotator = Annotator(None, estimator, PoseNMS(kind="none"), compute)
        pending: list[np.ndarray] = []

        def images_with_boxes() -> Iterator[Picture]:
            for image in self.images:
                pending.append(self.pixels(image))
                boxes = np.stack([person.box for person in self.people[image["id"]]])
                yield Picture(pending[-1], Boxes(boxes, np.ones(len(boxes), np.float32)))

        for candidates in annotator.candidates(images_with_boxes()):
            yield pending.pop(0), annotator.suppress(candidates)

    def accuracy(self, poses: Sequence[People]) -> PoseAccuracy:
        """AP and PCK of the poses of each image, in order."""
        results = [
            {
                "image_id": image["id"],
                "keypoints": np.column_stack([joints, scores]).ravel().tolist(),
                "score": float(score),
            }
            for image, found in zip(self.images, poses, strict=True)
            for joints, scores, score in zip(found.keypoints, found.keypoint_scores, found.pose_scores, strict=True)
        ]
        metrics = evaluate_keypoints(results, self.truth, self.skeleton)
        annotated = [person for image in self.images for person in self.people[image["id"]]]
        keypoints, labelled, boxes = (
            np.array([getattr(p, name) for p in annotated]) for name in ("keypoints", "labelled", "box")
        )
        predicted = np.concatenate([found.keypoints for found in poses])
        correct = pck(predicted, keypoints, labelled, long_sides(boxes), self.skeleton)
        return PoseAccuracy(metrics.ap, metrics.ap50, metrics.ar, correct.body, correct.joints)
