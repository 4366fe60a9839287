"""The experiment of pose training: network, people and teachers, and validation with ground-truth boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.annotator import Annotator
from pipeline.coco.annotations import load_annotations
from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.pose import build_pose_model
from pipeline.pose.crop import CropRule
from pipeline.pose.estimator import PoseEstimator, PoseNetwork, make_head
from pipeline.pose.heads import COMBINED_REGRESSED
from pipeline.pose.networks import pose_spec
from pipeline.pose.networks.pruning import inner_channels, prune
from pipeline.pose.networks.recognition import Architecture, load_pose_network, recognise
from pipeline.report.draw import contact_sheet, draw_people
from pipeline.runtime.device import Compute
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import PoseSettings
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.suppression import PoseNMS
from pipeline.training.annotated_images import read_pixels
from pipeline.training.cache import cached
from pipeline.training.experiment import ValidationResult
from pipeline.training.pose.data import AnnotatedPerson, PeopleSet, cut_people, people_by_image
from pipeline.training.pose.losses import PoseLoss
from pipeline.training.pose.task import PoseTask
from pipeline.training.pose.validation import PoseValidation
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
            PoseValidation.read(settings.validation, SKELETONS[s.skeleton])
        people = read_people(settings)
        loss = PoseLoss(s.input_size, s.decode, s.norm, s.teacher_share, s.foreground)
        outputs = pose_spec(architecture.name).training_outputs
        task = PoseTask(people, SKELETONS[s.skeleton], s.augmentation, loss, outputs, teachers)
        return cls(network, architecture, task, settings)

    def __str__(self) -> str:
        return f"{self._architecture}, {len(self.task.weights)} people"

    def validate(self, weights: dict[str, Tensor]) -> ValidationResult:
        """AP and PCK with ground-truth boxes."""
        annotated, s = self._settings.validation, self._settings.pose
        assert annotated is not None
        network = self._architecture.build()
        network.load_state_dict(weights)
        compute = Compute.resolve(self._settings.compute.device, self._settings.compute.precision, mode="eager")
        pose_network = PoseNetwork(TorchNetwork(network, compute), str(self._architecture), (CropRule(s.input_size),))
        skeleton = SKELETONS[s.skeleton]
        estimator = PoseEstimator([pose_network], make_head(s.decode, s.norm, s.input_size), skeleton, compute)
        validation = PoseValidation.read(annotated, skeleton)
        pictures: list[np.ndarray] = []
        found = []
        for pixels, poses in validation.poses(estimator, compute):
            if len(pictures) < _PICTURES:
                pictures.append(draw_people(pixels, poses, skeleton))
            found.append(poses)
        accuracy = validation.accuracy(found)
        numbers = {name: getattr(accuracy, name) for name in ("ap", "ap50", "ar", "pck_body")}
        by_joint = {f"pck/{joint}": share for joint, share in accuracy.pck.items()}
        return ValidationResult(numbers | by_joint, contact_sheet(pictures))


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
    people = people_by_image(content, skeleton.joints, annotated.annotations, min_joints, annotated.file_joints)
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
    return (network, architecture) if s.prune == 0 else _pruned(network, architecture, s.prune)


def _pruned(network: nn.Module, architecture: Architecture, share: float) -> tuple[nn.Module, Architecture]:
    """The network without a share of its inner channels."""
    if not prune(network, share):
        least = "" if inner_channels(network) else ", and has none"
        raise UserError(
            f"--pose.prune {share:g} removes nothing from {architecture}: inner channels are removed in multiples of 8"
            f"{least}; use a larger share or leave it out"
        )
    pruned = recognise(network.state_dict())
    assert pruned is not None
    return network, pruned


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
