"""What a training run is told: the same kind of tree as the annotate job's, filled by YAML and flags."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import ComputeSettings, PoseName, Section, SkeletonName
from pipeline.training.options import TrainOptions


class AnnotatedSet(Section):
    """COCO keypoint annotations and their images."""

    annotations: str = Field(description="COCO keypoint annotations, .json")
    images: str = Field(description="folder that their file names are relative to")
    source: str | None = Field(None, description="only images with this `source`")
    weight: float = Field(1.0, gt=0, description="how often its people are drawn, relative to others")


class NetworkToTrain(Section):
    """What is trained."""

    name: PoseName = Field("fastpose_mobile_small", description="pose network")
    skeleton: SkeletonName = Field("coco17", description="joints that it learns; sets are mapped by joint names")
    conv_dim: int | None = Field(None, description="FastPose: channels before the heatmaps; by default 128")
    weights: str | None = Field(None, description="start from these weights; by default random ones")
    teacher: str | None = Field(None, description="weights whose heatmaps are learnt from beside the labels")


class TrainSettings(Section):
    """Everything a training run can be told."""

    output: str = Field("out/train", description="run directory, local or on object storage")
    resume: bool = Field(False, description="go on with the run in the output directory")
    sets: tuple[AnnotatedSet, ...] = Field(
        (), description="what to learn from, e.g. [{annotations: train.json, images: images}]"
    )
    validation: AnnotatedSet | None = Field(None, description="what to measure on, with true boxes")
    cache: str | None = Field(None, description="file of cut-out people; made where it isn't there, read where it is")
    network: NetworkToTrain = NetworkToTrain()
    training: TrainOptions = TrainOptions()
    compute: ComputeSettings = ComputeSettings()
    validate_every: int = Field(5, ge=1, description="epochs between measurements")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints; one is made after each epoch too")

    def problem(self) -> str | None:
        if not self.sets:
            return "sets is empty; name annotations and images to learn from"
        return None
