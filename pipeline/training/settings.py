"""What a training run is told: the same kind of tree as the annotate job's, filled by YAML and flags."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings.paths import absolute_path
from pipeline.settings.tree import ComputeSettings, PoseName, Section, SkeletonName
from pipeline.training.options import BoxAugmentation, Optimisation, PoseAugmentation


class PseudoLabels(Section):
    """Joints of people that have a box and no joints, as a better network sees them."""

    weights: str = Field(description="the better network: a file, URI, or name in the catalogue")
    least_score: float = Field(0.5, ge=0, le=1, description="joints scored less stay unlabelled")


class AnnotatedSet(Section):
    """COCO annotations and their images."""

    annotations: str = Field(description="COCO annotations, .json")
    images: str = Field(description="folder that their file names are relative to")
    source: str | None = Field(None, description="only images with this `source`")
    skeleton: SkeletonName | None = Field(
        None, description="pose: whose joints the keypoints are; by default the person category's, by name"
    )
    weight: float = Field(1.0, gt=0, description="how often its people or images are drawn, relative to others")
    pseudo_labels: PseudoLabels | None = Field(None, description="pose: label people who have only a box")


Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]


class PoseToTrain(Section):
    """Which pose network is trained, and towards what."""

    name: PoseName = Field("fastpose_mobile_small", description="pose network")
    skeleton: SkeletonName = Field("coco17", description="joints that it learns; sets are mapped by joint names")
    conv_dim: int | None = Field(None, description="FastPose: channels before the heatmaps; by default 128")
    weights: str | None = Field(None, description="start from these weights; by default random ones")
    input_size: tuple[Side, Side] = Field((256, 192), description="height and width of crops, pixels")
    decode: Literal["argmax", "integral", "combined", "offset"] = Field("argmax", description="the head")
    norm: Literal["sigmoid", "softmax", "divide_sum"] = Field(
        "sigmoid", description="integral: how maps are normalised"
    )
    foreground: float = Field(
        0.0, ge=0, description="heatmaps: joints' cells weigh so much more; 0 as published, 20 from random weights"
    )
    teachers: tuple[str, ...] = Field((), description="weights whose mean heatmaps are learnt from beside the labels")
    teacher_share: Share = Field(0.5, description="of the loss, where there are teachers")
    augmentation: PoseAugmentation = PoseAugmentation()


class DetectorToTrain(Section):
    """Which person detector is trained."""

    cfg: str = Field("configs/detectors/person_small.cfg", description="Darknet description with one class")
    weights: str | None = Field(None, description="start from these weights; by default random ones")
    input_size: Side = Field(416, description="side of views, pixels")
    teacher: str | None = Field(
        None,
        description="a YOLOX network (.onnx, TorchScript) whose scores and boxes are learnt from beside the labels; "
        "images whose boxes are incomplete count too then",
    )
    teacher_share: Share = Field(0.5, description="of the loss, where there is a teacher")
    augmentation: BoxAugmentation = BoxAugmentation()


class TrainSettings(Section):
    """Everything a training run can be told."""

    output: str = Field("out/train", description="run directory, local or on object storage")
    resume: bool = Field(False, description="go on with the run in the output directory")
    task: Literal["pose", "detector"] = Field("pose", description="which of the two sections below counts")
    sets: tuple[AnnotatedSet, ...] = Field(
        (), description="what to learn from, e.g. [{annotations: train.json, images: images}]"
    )
    validation: AnnotatedSet | None = Field(None, description="what to measure on; poses with true boxes")
    cache: str | None = Field(None, description="file of cut-out people or shrunk images; made where it isn't there")
    about: str | None = Field(None, description="kept in the weights: whose data this was, under which licence")
    pose: PoseToTrain = PoseToTrain()
    detector: DetectorToTrain = DetectorToTrain()
    optimisation: Optimisation = Optimisation()
    compute: ComputeSettings = ComputeSettings()
    workers: int = Field(1, ge=1, description="processes that share each batch, by Ray Train where more than 1")
    address: str | None = Field(
        None, description="Ray cluster of the workers; by default RAY_ADDRESS, else a local one"
    )
    validate_every: int = Field(5, ge=1, description="epochs between measurements")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints; one is made after each epoch too")

    def with_absolute_paths(self) -> TrainSettings:
        """The same settings, for processes in other directories."""

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
            return "sets is empty; name annotations and images to learn from"
        if self.pose.conv_dim is not None and self.pose.weights is not None:
            return "pose.conv_dim is of a new network; that of pose.weights is what it is"
        batch = self.optimisation.batch
        if batch % self.workers:
            return f"workers is {self.workers}, which cannot share optimisation.batch {batch} evenly; choose a multiple"
        return None
