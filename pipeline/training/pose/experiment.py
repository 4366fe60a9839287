"""A pose network's training: its people, its teachers, and how well it does with true boxes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.annotator import Annotator
from pipeline.boxes import long_sides
from pipeline.coco.annotations import load_annotations
from pipeline.coco.errors import AnnotationError
from pipeline.coco.subset import subset
from pipeline.errors import UserError
from pipeline.evaluation import evaluate_keypoints
from pipeline.evaluation.pck import pck
from pipeline.people import Boxes, People
from pipeline.pose import build_pose_model
from pipeline.pose.crop import CropRule
from pipeline.pose.estimator import PoseEstimator, PoseNetwork, make_head
from pipeline.pose.heads import COMBINED_REGRESSED
from pipeline.pose.networks import pose_spec
from pipeline.pose.networks.recognition import Architecture, load_pose_network
from pipeline.report.draw import contact_sheet, draw_people
from pipeline.runtime.device import Compute
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import PoseSettings
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.suppression import PoseNMS
from pipeline.training.cache import cached
from pipeline.training.experiment import ValidationResult
from pipeline.training.photographs import read_pixels
from pipeline.training.pose.data import AnnotatedPerson, PeopleSet, cut_people, in_joints, people_of
from pipeline.training.pose.losses import PoseLoss
from pipeline.training.pose.task import PoseTask
from pipeline.training.settings import AnnotatedSet, PoseToTrain, PseudoLabels, TrainSettings
from pipeline.weights.catalogue import local_file
from pipeline.weights.checkpoints import read_state_dict

_PICTURES = 12


class PoseExperiment:
    """See `pipeline.training.experiment.Experiment`."""

    def __init__(self, network: nn.Module, architecture: Architecture, task: PoseTask, settings: TrainSettings) -> None:
        self.network = network
        self.task = task
        self.metadata = {
            "network": str(architecture),
            "skeleton": settings.pose.skeleton,
            "input_size": "x".join(map(str, settings.pose.input_size)),
            "decode": settings.pose.decode,
            "norm": settings.pose.norm,
        }
        self._architecture = architecture
        self._settings = settings

    @classmethod
    def from_settings(cls, settings: TrainSettings, device: torch.device) -> PoseExperiment:
        """Make the network, load the teachers, read the people; what is wrong with settings is told first."""
        s = settings.pose
        network, architecture = _make_network(settings)
        _check_head(architecture, s)
        teachers = [_teacher(weights, SKELETONS[s.skeleton], device) for weights in s.teachers]
        if settings.validation is not None:
            _validation(settings.validation, SKELETONS[s.skeleton])
        people = read_people(settings)
        loss = PoseLoss(s.input_size, s.decode, s.norm, s.teacher_share, s.foreground)
        task = PoseTask(people, SKELETONS[s.skeleton], s.augmentation, loss, teachers, pose_spec(architecture.name).training_outputs)
        return cls(network, architecture, task, settings)

    def __str__(self) -> str:
        return f"{self._architecture}, {len(self.task.weights)} people"

    def measure(self, weights: dict[str, Tensor]) -> ValidationResult:
        network = self._architecture.build()
        network.load_state_dict(weights)
        return _measure(network, self._architecture, self._settings)


def read_people(settings: TrainSettings) -> PeopleSet:
    """Everyone to learn from, from the cache where there is one.

    Raises:
        AnnotationError: annotations or images that cannot be used, named.
    """
    size, skeleton = settings.pose.input_size, SKELETONS[settings.pose.skeleton]

    def read() -> PeopleSet:
        return PeopleSet.join([cut_people(_images(s, skeleton, settings), size) for s in settings.sets])

    return cached(settings, {"input_size": size, "skeleton": skeleton.name}, PeopleSet, read)


def _images(
    annotated: AnnotatedSet, skeleton: Skeleton, settings: TrainSettings
) -> Iterator[tuple[np.ndarray, list[AnnotatedPerson], float]]:
    content = load_annotations(annotated.annotations)
    pseudo = annotated.pseudo_labels
    label = _PseudoLabeller(pseudo, skeleton, settings) if pseudo else None
    people = people_of(
        content, skeleton.joints, annotated.annotations, least_joints=0 if label else 1, own=_own_joints(annotated)
    )
    for image in content["images"]:
        if image["id"] in people and annotated.source in (None, image.get("source")):
            pixels = read_pixels(annotated.annotations, annotated.images, image)
            found = label(pixels, people[image["id"]]) if label else people[image["id"]]
            yield pixels, found, annotated.weight


class _PseudoLabeller:
    """Gives people without labelled joints those that a better network is sure of."""

    def __init__(self, pseudo: PseudoLabels, skeleton: Skeleton, settings: TrainSettings) -> None:
        self._least = pseudo.least_score
        compute = Compute.resolve(settings.compute.device, settings.compute.precision)
        poses = PoseEstimator.from_settings(PoseSettings(weights=pseudo.weights, flip_test=True), compute)
        if poses.skeleton.joints != skeleton.joints:
            raise UserError(
                f"pseudo_labels.weights {pseudo.weights} gives {poses.skeleton.name}; {skeleton.name} is trained"
            )
        self._annotator = Annotator(None, poses, PoseNMS(kind="none"), compute)

    def __call__(self, pixels: np.ndarray, people: list[AnnotatedPerson]) -> list[AnnotatedPerson]:
        plain = [person for person in people if not person.labelled.any()]
        labelled = [person for person in people if person.labelled.any()]
        if not plain:
            return labelled
        boxes = Boxes(np.stack([person.box for person in plain]), np.ones(len(plain), np.float32))
        (found,) = self._annotator.annotate([pixels], [boxes])
        for person, keypoints, scores in zip(plain, found.keypoints, found.keypoint_scores, strict=True):
            sure = scores >= self._least
            if sure.any():
                labelled.append(AnnotatedPerson(person.id, person.box, keypoints * sure[:, None], sure))
        return labelled


def _make_network(settings: TrainSettings) -> tuple[nn.Module, Architecture]:
    """The network to train, from its first weights or random."""
    s = settings.pose
    joints = len(SKELETONS[s.skeleton])
    options = {} if s.conv_dim is None else {"conv_dim": s.conv_dim}
    if s.weights is None:
        torch.manual_seed(settings.optimisation.seed)
        try:
            return build_pose_model(s.name, joints, **options), Architecture(s.name, joints, options)
        except TypeError:
            raise UserError(f"pose.conv_dim is {s.conv_dim}; {s.name} has no such choice") from None
    network, found = load_pose_network(read_state_dict(local_file(s.weights)), s.weights, s.name)
    if found.num_joints != joints:
        raise UserError(f"{s.weights} is {found}; {s.skeleton} has {joints} joints")
    return network, found


def _check_head(architecture: Architecture, settings: PoseToTrain) -> None:
    """Refuse a head that the network, or the skeleton, doesn't have."""
    decode, joints = settings.decode, architecture.num_joints
    possible = pose_spec(architecture.name).decodings
    if decode not in possible:
        raise UserError(f"--pose.decode {decode} does not fit the output of {architecture.name}; use {possible[0]}")
    if decode == "combined" and joints not in COMBINED_REGRESSED:
        counts = ", ".join(map(str, COMBINED_REGRESSED))
        raise UserError(f"pose.decode is combined, which skeletons of {counts} joints have; this one has {joints}")


def _own_joints(annotated: AnnotatedSet) -> Sequence[str] | None:
    """Whose joints a set's keypoints are, where it is said."""
    return SKELETONS[annotated.skeleton].joints if annotated.skeleton else None


def _teacher(weights: str, skeleton: Skeleton, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Heatmaps of a teacher for a batch of inputs; its first joints are those of the skeleton."""
    network, architecture = load_pose_network(read_state_dict(local_file(weights)), weights)
    own = [other for other in SKELETONS.values() if len(other) == pose_spec(architecture.name).num_skeleton_joints(architecture.num_joints)]
    if not any(other.joints[: len(skeleton)] == skeleton.joints for other in own):
        raise UserError(
            f"pose.teachers: {weights} is {architecture}, whose first joints are not those of {skeleton.name}"
        )
    teacher = network.eval().requires_grad_(False).to(device)
    return lambda inputs: teacher(inputs)[:, : len(skeleton)].float()


class _Validation(NamedTuple):
    """What to measure on: a COCO file with the trained joints, its images with people, and these by image id."""

    truth: dict[str, Any]
    images: list[dict[str, Any]]
    people: dict[int, list[AnnotatedPerson]]


def _validation(annotated: AnnotatedSet, skeleton: Skeleton) -> _Validation:
    """Read what to measure on.

    Raises:
        AnnotationError: it cannot be used, or holds nobody.
    """
    name = annotated.annotations
    content = load_annotations(name)
    images = [image for image in content["images"] if annotated.source in (None, image.get("source"))]
    entries = [
        {
            **entry,
            "keypoints": entry["keypoints"].ravel().tolist(),
            "num_keypoints": int((entry["keypoints"][:, 2] > 0).sum()),
        }
        for entry in in_joints(content, skeleton.joints, name, _own_joints(annotated))
    ]
    truth = subset({**content, "annotations": entries}, images)
    people = people_of(truth, skeleton.joints, name, own=skeleton.joints)
    shown = [image for image in images if image["id"] in people]
    if not shown:
        raise AnnotationError(f"validation: {name} has nobody with a box and labelled joints to measure on")
    read_pixels(name, annotated.images, shown[0])
    return _Validation(truth, shown, people)


def _measure(network: nn.Module, architecture: Architecture, settings: TrainSettings) -> ValidationResult:
    """AP and PCK of a network with true boxes; pose NMS has no part in it."""
    annotated = settings.validation
    assert annotated is not None
    skeleton = SKELETONS[settings.pose.skeleton]
    truth, images, people = _validation(annotated, skeleton)
    pictures: list[np.ndarray] = []
    results: list[dict[str, Any]] = []
    found = []
    for (pixels, poses), image in zip(_poses(network, architecture, images, people, settings), images, strict=True):
        if len(pictures) < _PICTURES:
            pictures.append(draw_people(pixels, poses, skeleton))
        found.append(poses.keypoints)
        for keypoints, scores, score in zip(poses.keypoints, poses.keypoint_scores, poses.pose_scores, strict=True):
            values = np.column_stack([keypoints, scores]).ravel().tolist()
            results.append({"image_id": image["id"], "keypoints": values, "score": float(score)})
    everyone = [person for image in images for person in people[image["id"]]]
    metrics = evaluate_keypoints(results, truth, skeleton)
    true, labelled, boxes = (
        np.array([getattr(p, name) for p in everyone]) for name in ("keypoints", "labelled", "box")
    )
    correct = pck(np.concatenate(found), true, labelled, long_sides(boxes), skeleton)
    joints = {f"pck/{joint}": share for joint, share in correct.joints.items()}
    numbers = {"ap": metrics.ap, "ap50": metrics.ap50, "ar": metrics.ar, "pck_body": correct.body, **joints}
    return ValidationResult(numbers, contact_sheet(pictures))


def _poses(
    network: nn.Module,
    architecture: Architecture,
    images: list[dict[str, Any]],
    people: dict[int, list[AnnotatedPerson]],
    settings: TrainSettings,
) -> Iterator[tuple[np.ndarray, People]]:
    """Each image with what the network sees in the true boxes."""
    annotated = settings.validation
    assert annotated is not None
    s = settings.pose
    compute = Compute.resolve(settings.compute.device, settings.compute.precision)
    member = PoseNetwork(TorchNetwork(copy.deepcopy(network), compute), str(architecture), (CropRule(s.input_size),))
    poses = PoseEstimator([member], make_head(s.decode, s.norm), SKELETONS[s.skeleton], compute)
    annotator = Annotator(None, poses, PoseNMS(kind="none"), compute)
    shown: list[np.ndarray] = []

    def given() -> Iterator[tuple[np.ndarray, Boxes]]:
        for image in images:
            shown.append(read_pixels(annotated.annotations, annotated.images, image))
            boxes = np.stack([person.box for person in people[image["id"]]])
            yield shown[-1], Boxes(boxes, np.ones(len(boxes), np.float32))

    for candidates in annotator.candidates(given()):
        yield shown.pop(0), annotator.suppress(candidates)
