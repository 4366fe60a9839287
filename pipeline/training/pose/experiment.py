"""The experiment of pose training: network, people and teachers, and validation with ground-truth boxes."""

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
from pipeline.training.annotated_images import read_pixels
from pipeline.training.cache import cached
from pipeline.training.experiment import ValidationResult
from pipeline.training.pose.data import AnnotatedPerson, PeopleSet, cut_people, entries_with_joints, people_by_image
from pipeline.training.pose.losses import PoseLoss
from pipeline.training.pose.task import PoseTask
from pipeline.training.settings import AnnotatedSet, PoseToTrain, PseudoLabels, TrainSettings
from pipeline.weights.catalogue import local_file
from pipeline.weights.checkpoints import read_state_dict

_PICTURES = 12  # on the sheet of predictions


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
        """Build the network, load the teachers, read the people; settings are checked before people are read.

        Raises:
            AnnotationError: annotations or images that cannot be used.
            UserError: weights, decoding or skeleton that do not fit together.
        """
        s = settings.pose
        network, architecture = _build_network(settings)
        _check_decode(architecture, s)
        teachers = [_teacher(weights, SKELETONS[s.skeleton], device) for weights in s.teachers]
        if settings.validation is not None:
            _read_validation(settings.validation, SKELETONS[s.skeleton])
        people = read_people(settings)
        loss = PoseLoss(s.input_size, s.decode, s.norm, s.teacher_share, s.foreground)
        outputs = pose_spec(architecture.name).training_outputs
        task = PoseTask(people, SKELETONS[s.skeleton], s.augmentation, loss, outputs, teachers)
        return cls(network, architecture, task, settings)

    def __str__(self) -> str:
        return f"{self._architecture}, {len(self.task.weights)} people"

    def validate(self, weights: dict[str, Tensor]) -> ValidationResult:
        """AP and PCK with ground-truth boxes."""
        network = self._architecture.build()
        network.load_state_dict(weights)
        return _validate(network, self._architecture, self._settings)


def read_people(settings: TrainSettings) -> PeopleSet:
    """All people to train on, from the cache if it exists.

    Raises:
        AnnotationError: annotations or images that cannot be used.
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
    labeller = _PseudoLabeller(pseudo, skeleton, settings) if pseudo else None
    min_joints = 0 if labeller else 1
    people = people_by_image(content, skeleton.joints, annotated.annotations, min_joints, _file_joints(annotated))
    for image in content["images"]:
        if image["id"] in people and annotated.source in (None, image.get("source")):
            pixels = read_pixels(annotated.annotations, annotated.images, image)
            labelled = people[image["id"]]
            yield pixels, labeller(pixels, labelled) if labeller else labelled, annotated.weight


class _PseudoLabeller:
    """Adds the joints that a stronger network predicts to people without labelled joints."""

    def __init__(self, pseudo: PseudoLabels, skeleton: Skeleton, settings: TrainSettings) -> None:
        self._min_score = pseudo.least_score
        compute = Compute.resolve(settings.compute.device, settings.compute.precision)
        poses = PoseEstimator.from_settings(PoseSettings(weights=pseudo.weights, flip_test=True), compute)
        if poses.skeleton.joints != skeleton.joints:
            raise UserError(
                f"pseudo_labels.weights {pseudo.weights} predicts {poses.skeleton.name}; expected {skeleton.name}, the "
                "skeleton of --pose.skeleton"
            )
        self._annotator = Annotator(None, poses, PoseNMS(kind="none"), compute)

    def __call__(self, pixels: np.ndarray, people: list[AnnotatedPerson]) -> list[AnnotatedPerson]:
        """The people with labelled joints, those of the network included."""
        unlabelled = [person for person in people if not person.labelled.any()]
        labelled = [person for person in people if person.labelled.any()]
        if not unlabelled:
            return labelled
        boxes = Boxes(np.stack([person.box for person in unlabelled]), np.ones(len(unlabelled), np.float32))
        (poses,) = self._annotator.annotate([pixels], [boxes])
        for person, keypoints, scores in zip(unlabelled, poses.keypoints, poses.keypoint_scores, strict=True):
            confident = scores >= self._min_score
            if confident.any():
                labelled.append(AnnotatedPerson(person.id, person.box, keypoints * confident[:, None], confident))
        return labelled


def _build_network(settings: TrainSettings) -> tuple[nn.Module, Architecture]:
    """The network to train, with its initial weights."""
    s = settings.pose
    joints = len(SKELETONS[s.skeleton])
    options = {} if s.conv_dim is None else {"conv_dim": s.conv_dim}
    if s.weights is None:
        torch.manual_seed(settings.optimisation.seed)
        try:
            return build_pose_model(s.name, joints, **options), Architecture(s.name, joints, options)
        except TypeError:
            raise UserError(f"--pose.conv_dim {s.conv_dim}: {s.name} has no such option; leave it out") from None
    network, architecture = load_pose_network(read_state_dict(local_file(s.weights)), s.weights, s.name)
    if architecture.num_joints != joints:
        raise UserError(
            f"--pose.weights {s.weights} is {architecture}; --pose.skeleton {s.skeleton} needs {joints} joints"
        )
    return network, architecture


def _check_decode(architecture: Architecture, settings: PoseToTrain) -> None:
    """
    Raises:
        UserError: a decoding that does not fit the network or the skeleton.
    """
    decode, joints = settings.decode, architecture.num_joints
    possible = pose_spec(architecture.name).decodings
    if decode not in possible:
        raise UserError(f"--pose.decode {decode} does not fit the output of {architecture.name}; use {possible[0]}")
    if decode == "combined" and joints not in COMBINED_REGRESSED:
        *counts, last = map(str, COMBINED_REGRESSED)
        raise UserError(
            f"--pose.decode combined needs {', '.join(counts)} or {last} joints; --pose.skeleton {settings.skeleton} "
            f"has {joints}"
        )


def _file_joints(annotated: AnnotatedSet) -> Sequence[str] | None:
    """Joint names of a set's keypoints, if its settings name a skeleton."""
    return SKELETONS[annotated.skeleton].joints if annotated.skeleton else None


def _teacher(weights: str, skeleton: Skeleton, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from a batch of inputs (B, 3, H, W) to the teacher's heatmaps (B, K, H/4, W/4) of the skeleton."""
    network, architecture = load_pose_network(read_state_dict(local_file(weights)), weights)
    num_joints = pose_spec(architecture.name).num_skeleton_joints(architecture.num_joints)
    candidates = [other for other in SKELETONS.values() if len(other) == num_joints]
    if not any(other.joints[: len(skeleton)] == skeleton.joints for other in candidates):
        raise UserError(
            f"--pose.teachers {weights} is {architecture}; its first joints must be those of --pose.skeleton "
            f"{skeleton.name}"
        )
    teacher = network.eval().requires_grad_(False).to(device)
    return lambda inputs: teacher(inputs)[:, : len(skeleton)].float()


class _Validation(NamedTuple):
    """The validation set.

    Attributes:
        truth: content of a COCO file with the joints of the trained skeleton.
        images: its entries of images with people.
        people: by image id.
    """

    truth: dict[str, Any]
    images: list[dict[str, Any]]
    people: dict[int, list[AnnotatedPerson]]


def _read_validation(annotated: AnnotatedSet, skeleton: Skeleton) -> _Validation:
    """Read the validation set, and its first image as a check of the folder.

    Raises:
        AnnotationError: it cannot be used, or has no people with labelled joints.
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
        for entry in entries_with_joints(content, skeleton.joints, name, _file_joints(annotated))
    ]
    truth = subset({**content, "annotations": entries}, images)
    people = people_by_image(truth, skeleton.joints, name, file_joints=skeleton.joints)
    with_people = [image for image in images if image["id"] in people]
    if not with_people:
        raise AnnotationError(f"--validation {name} has no people with a box and labelled joints")
    read_pixels(name, annotated.images, with_people[0])
    return _Validation(truth, with_people, people)


def _validate(network: nn.Module, architecture: Architecture, settings: TrainSettings) -> ValidationResult:
    """AP and PCK of a network with ground-truth boxes, without pose NMS."""
    annotated = settings.validation
    assert annotated is not None
    skeleton = SKELETONS[settings.pose.skeleton]
    truth, images, people = _read_validation(annotated, skeleton)
    pictures: list[np.ndarray] = []
    results: list[dict[str, Any]] = []
    predicted = []
    for (pixels, poses), image in zip(_poses(network, architecture, images, people, settings), images, strict=True):
        if len(pictures) < _PICTURES:
            pictures.append(draw_people(pixels, poses, skeleton))
        predicted.append(poses.keypoints)
        for joints, scores, score in zip(poses.keypoints, poses.keypoint_scores, poses.pose_scores, strict=True):
            values = np.column_stack([joints, scores]).ravel().tolist()
            results.append({"image_id": image["id"], "keypoints": values, "score": float(score)})
    annotated_people = [person for image in images for person in people[image["id"]]]
    metrics = evaluate_keypoints(results, truth, skeleton)
    keypoints, labelled, boxes = (
        np.array([getattr(p, name) for p in annotated_people]) for name in ("keypoints", "labelled", "box")
    )
    correct = pck(np.concatenate(predicted), keypoints, labelled, long_sides(boxes), skeleton)
    by_joint = {f"pck/{joint}": share for joint, share in correct.joints.items()}
    numbers = {"ap": metrics.ap, "ap50": metrics.ap50, "ar": metrics.ar, "pck_body": correct.body, **by_joint}
    return ValidationResult(numbers, contact_sheet(pictures))


def _poses(
    network: nn.Module,
    architecture: Architecture,
    images: list[dict[str, Any]],
    people: dict[int, list[AnnotatedPerson]],
    settings: TrainSettings,
) -> Iterator[tuple[np.ndarray, People]]:
    """Each image (H, W, 3) uint8 RGB with the network's poses in the ground-truth boxes."""
    annotated = settings.validation
    assert annotated is not None
    s = settings.pose
    compute = Compute.resolve(settings.compute.device, settings.compute.precision)
    pose_network = PoseNetwork(
        TorchNetwork(copy.deepcopy(network), compute), str(architecture), (CropRule(s.input_size),)
    )
    poses = PoseEstimator([pose_network], make_head(s.decode, s.norm), SKELETONS[s.skeleton], compute)
    annotator = Annotator(None, poses, PoseNMS(kind="none"), compute)
    pending: list[np.ndarray] = []

    def images_with_boxes() -> Iterator[tuple[np.ndarray, Boxes]]:
        for image in images:
            pending.append(read_pixels(annotated.annotations, annotated.images, image))
            boxes = np.stack([person.box for person in people[image["id"]]])
            yield pending[-1], Boxes(boxes, np.ones(len(boxes), np.float32))

    for candidates in annotator.candidates(images_with_boxes()):
        yield pending.pop(0), annotator.suppress(candidates)
