"""The settings of the train job: a typed tree, filled by a YAML file and by flags."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.decodings import Norm, TrainedDecode
from pipeline.settings.paths import absolute_path
from pipeline.settings.tree import ComputeSettings, PoseName, Section, SkeletonName
from pipeline.skeletons import SKELETONS
from pipeline.training.options import BoxAugmentation, Optimisation, PoseAugmentation


class PseudoLabels(Section):
    """Joints that a stronger network predicts for people who have a box but no labelled joints."""

    weights: str = Field(description="weights of the stronger network: a file, URI, or name in the catalogue")
    least_score: float = Field(0.5, ge=0, le=1, description="minimum score of a joint; others stay unlabelled")


class AnnotatedSet(Section):
    """COCO annotations and their images."""

    annotations: str = Field(description="COCO annotations, .json")
    images: str = Field(description="folder that the file names are relative to")
    source: str | None = Field(None, description="only images with this `source`")
    skeleton: SkeletonName | None = Field(
        None, description="pose: skeleton of the keypoints; by default the joint names of the person category"
    )
    weight: float = Field(1.0, gt=0, description="how often its people or images are drawn, relative to other sets")
    pseudo_labels: PseudoLabels | None = Field(None, description="pose: label people who have a box only")

    @property
    def file_joints(self) -> tuple[str, ...] | None:
        """Joint names of the keypoints, if the settings name a skeleton."""
        return SKELETONS[self.skeleton].joints if self.skeleton else None


Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]


class PoseToTrain(Section):
    """The pose network, its decoding and its loss."""

    name: PoseName = Field("fastpose_mobile_small", description="pose network")
    skeleton: SkeletonName = Field("coco17", description="joints of the network; those of the sets are mapped by name")
    conv_dim: int | None = Field(None, description="FastPose: channels before the heatmaps; by default 128")
    weights: str | None = Field(None, description="initial weights; by default random")
    prune: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the inner channels of the weights to remove before training",
    )
    input_size: tuple[Side, Side] = Field((256, 192), description="height and width of crops, pixels")
    decode: TrainedDecode = Field("argmax", description="how heatmaps become keypoints; decides the loss")
    norm: Norm = Field("sigmoid", description="integral, combined: how heatmaps are normalised")
    foreground: float = Field(
        0.0, ge=0, description="extra weight of cells near joints; 0 as published, 20 for training from random weights"
    )
    teachers: tuple[str, ...] = Field(
        (), description="weights of teacher networks: their mean heatmaps are targets too"
    )
    teacher_share: Share = Field(0.5, description="share of the loss against the teachers")
    augmentation: PoseAugmentation = PoseAugmentation()


class DetectorToTrain(Section):
    """The person detector and its loss."""

    cfg: str = Field("configs/detectors/person_small.cfg", description="Darknet description with one class")
    weights: str | None = Field(None, description="initial weights; by default random")
    input_size: Side = Field(416, description="side of the square input, pixels")
    teacher: str | None = Field(
        None,
        description="a YOLOX network (.onnx, TorchScript) whose scores and boxes are targets too; with it, images "
        "with incomplete boxes are used as well",
    )
    teacher_share: Share = Field(0.5, description="share of the loss against the teacher")
    hard_negatives: float = Field(
        0.0,
        ge=0,
        description="images are drawn this many times as often again for each false positive of the initial weights",
    )
    augmentation: BoxAugmentation = BoxAugmentation()


class TrainSettings(Section):
    """All settings of a training run."""

    output: str = Field("out/train", description="run directory, local or on object storage")
    resume: bool = Field(False, description="resume the run in the output directory")
    task: Literal["pose", "detector"] = Field(
        "pose", description="which network is trained; the section of the other is ignored"
    )
    sets: tuple[AnnotatedSet, ...] = Field(
        (), description="training sets, for example [{annotations: train.json, images: images}]"
    )
    validation: AnnotatedSet | None = Field(None, description="validation set; poses are evaluated with its boxes")
    cache: str | None = Field(None, description="file of the prepared samples; created if missing")
    about: str | None = Field(None, description="a note on the data and its licence, stored in the weights")
    pose: PoseToTrain = PoseToTrain()
    detector: DetectorToTrain = DetectorToTrain()
    optimisation: Optimisation = Optimisation()
    compute: ComputeSettings = ComputeSettings()
    workers: int = Field(1, ge=1, description="processes that share each batch; with more than 1 they run on Ray Train")
    address: str | None = Field(
        None, description="Ray cluster of the workers; by default RAY_ADDRESS, else a local one"
    )
    validate_every: int = Field(5, ge=1, description="epochs between validations")
    patience: int | None = Field(
        None, ge=1, description="end after this many validations without a higher AP; by default train all epochs"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints; each epoch ends with one too")

    def with_absolute_paths(self) -> TrainSettings:
        """The same settings with absolute paths, for processes with other working directories."""

        def of_set(s: AnnotatedSet) -> AnnotatedSet:
            pseudo = s.pseudo_labels
            if pseudo is not None:
                pseudo = pseudo.model_copy(update={"weights": absolute_path(pseudo.weights)})
            paths = {"annotations": absolute_path(s.annotations), "images": absolute_path(s.images)}
            return s.model_copy(update={**paths, "pseudo_labels": pseudo})

        teachers = tuple(absolute_path(weights) for weights in self.pose.teachers)
        pose = {"weights": absolute_path(self.pose.weights), "teachers": teachers}
        detector = {key: absolute_path(getattr(self.detector, key)) for key in ("cfg", "weights", "teacher")}
        return self.model_copy(
            update={
                "output": absolute_path(self.output),
                "cache": absolute_path(self.cache),
                "sets": tuple(of_set(s) for s in self.sets),
                "validation": None if self.validation is None else of_set(self.validation),
                "pose": self.pose.model_copy(update=pose),
                "detector": self.detector.model_copy(update=detector),
            }
        )

    def problem(self) -> str | None:
        if not self.sets:
            return "--sets is empty; name annotations and images to train on"
        if self.pose.conv_dim is not None and self.pose.weights is not None:
            return "--pose.conv_dim cannot be set with --pose.weights, whose network has its own; leave one of them out"
        if self.patience is not None and self.validation is None:
            return "--patience counts validations; name a set by --validation, or leave it out"
        if self.detector.hard_negatives and self.detector.weights is None:
            return "--detector.hard_negatives counts mistakes of trained weights; name them by --detector.weights"
        if self.pose.prune and self.pose.weights is None:
            return "--pose.prune removes channels of trained weights; name them by --pose.weights"
        batch = self.optimisation.batch
        if batch % self.workers:
            return f"--optimisation.batch {batch} cannot be shared evenly by --workers {self.workers}; use a multiple"
        return None
