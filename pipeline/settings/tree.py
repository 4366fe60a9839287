"""The settings of the annotate job: one typed tree."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.decodings import Decode, Norm
from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.suppression import PoseNMS

OWN_DETECTOR = "person_small"  # in the catalogue: the weights of the project's own person detector
GIVEN = "given"  # the detector's name where boxes come with the images
FILE_DETECTORS = ("darknet", "yolox", "yolo")  # those that need a weights file
OWN_DETECTORS = (*FILE_DETECTORS, GIVEN, "whole_image")  # all others are torchvision's


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def problem(self) -> str | None:
        """What is wrong with settings that are each right, in words; None where nothing is."""
        return None


class InputSettings(Section):
    """What to annotate. `--input X` is short for `--input.uri X`."""

    uri: str | None = Field(
        None,
        description="folder, prefix, glob, .tar/.tar.gz, Parquet with images, list (.txt .csv .parquet), or COCO .json",
    )
    image_root: str | None = Field(None, description="folder that the names of a list or COCO file are relative to")
    image_column: str | None = Field(None, description="column of a Parquet or CSV input; by default recognised")
    shard_size: int = Field(1000, ge=1, description="images per shard, for loose files")


class OutputSettings(Section):
    """What to write. `--output X` is short for `--output.uri X`."""

    uri: str = Field("out/demo", description="run directory, local or on object storage")
    candidates: bool = Field(False, description="also store the people before suppression, for sweeps")
    table_megabytes: int = Field(256, ge=1, description="parts folded into one table file, megabytes")


class ImageSettings(Section):
    """Limits that are checked before an image is decoded."""

    max_megapixels: float = Field(100.0, gt=0, description="a header that announces more is refused, megapixels")
    max_megabytes: float = Field(256.0, gt=0, description="a file that is larger is not read, megabytes")

    @property
    def limits(self) -> DecodeLimits:
        """As values that sources and decoders take."""
        return DecodeLimits(self.max_megapixels, self.max_megabytes)


class DetectorSettings(Section):
    """Where people are."""

    name: str = Field(
        "darknet",
        description="darknet, yolox, yolo (exports of YOLOv5/v8), given, whole_image, or a torchvision model's name",
    )
    cfg: str | None = Field(
        None, description="darknet: description, .cfg; by default the weights' own, YOLOv3-SPP's for .weights"
    )
    weights: str | None = Field(
        None,
        description="a file, URI, or name in the catalogue; by default the project's own for darknet, torchvision's "
        "own for its models",
    )
    boxes: str | None = Field(None, description="given: COCO detection results or annotations; --annotations if empty")
    input_size: int | None = Field(
        None, ge=32, multiple_of=32, description="side of the letterbox, pixels; by default the file's own, or 608"
    )
    confidence: float = Field(0.3, ge=0, le=1, description="least objectness (darknet) or score, exclusive")
    nms_iou: float = Field(0.6, gt=0, le=1, description="overlap from which the weaker of two boxes goes")
    max_boxes: int = Field(100, ge=1, description="more boxes in an image tighten its NMS")
    batch: int | None = Field(None, ge=1, description="images per batch; by default 8 on a GPU and 1 on a CPU")

    @model_validator(mode="before")
    @classmethod
    def _own_weights(cls, data: Any) -> Any:
        own = isinstance(data, dict) and data.get("name", "darknet") == "darknet"
        if own and data.get("weights") is None and data.get("cfg") is None:
            return {**data, "weights": OWN_DETECTOR}
        return data

    @property
    def has_confidence(self) -> bool:
        """Whether boxes are chosen by their scores; those that are given are taken as they are."""
        return self.name not in (GIVEN, "whole_image")


def detector_batch(settings: DetectorSettings, device: str) -> int:
    """Images per batch of a detector on a `cuda` or `cpu` device."""
    return settings.batch or (8 if device == "cuda" else 1)


PoseName = Literal[
    "fastpose_r50",
    "fastpose_r101",
    "fastpose_r152",
    "fastpose_r50_dcn",
    "fastpose_duc_r50",
    "fastpose_duc_r152",
    "fastpose_duc_dense",
    "fastpose_mobile_small",
    "fastpose_mobile_large",
    "fastpose_lite0",
    "fastpose_classic",
    "simplepose_r50",
    "simplepose_r101",
    "simplepose_r152",
    "hrnet_w32",
    "hourglass",
    "fpn_offset_r50",
]
SkeletonName = Literal["coco17", "halpe26", "halpe68", "halpe136", "wholebody133", "hand21", "mpii16"]
_InputSize = tuple[int, int]


def _multiples_of_32(size: _InputSize | None) -> _InputSize | None:
    if size is not None and any(side < 32 or side % 32 for side in size):
        raise UserError("height and width must be multiples of 32")
    return size


InputSize = Annotated[_InputSize | None, AfterValidator(_multiples_of_32)]


class NetworkSettings(Section):
    """A pose network of an ensemble."""

    weights: str | None = Field(None, description="weights file, URI, or name in the catalogue")
    name: PoseName | None = Field(None, description="pose network; by default the one that the weights are for")
    input_size: InputSize = Field(None, description="height and width of a crop, pixels; by default the published")


class PoseSettings(Section):
    """Which pose each person has."""

    weights: str | None = Field(
        "weights/fastpose_lite0_coco17.safetensors", description="weights file, URI, or name in the catalogue"
    )
    name: PoseName | None = Field(None, description="pose network; by default the one that the weights are for")
    input_size: InputSize = Field(None, description="height and width of a crop, pixels; by default the published")
    skeleton: SkeletonName | None = Field(None, description="joints of the output; by default by their number")
    crop: Literal["padded", "classic"] = Field("padded", description="crop rule; classic: the first PyTorch release's")
    decode: Decode | None = Field(
        None, description="how heatmaps become keypoints; by default as the catalogue or the file says, else argmax"
    )
    norm: Norm | None = Field(
        None, description="integral: how maps are normalised; by default as the weights say, else sigmoid"
    )
    flip_test: bool = Field(False, description="average with the mirrored crop: better, half as fast")
    scales: tuple[Annotated[float, Field(gt=0.2, lt=5)], ...] = Field(
        (1.0,), min_length=1, description="average over crops that show so many times the usual, e.g. 1,1.25"
    )
    ensemble: tuple[NetworkSettings, ...] = Field(
        (), description="more networks to average with, e.g. [{weights: b.pth, input_size: [384, 288]}]"
    )
    batch: int = Field(32, ge=1, description="people per batch, over images")

    @model_validator(mode="after")
    def _classic_stands_alone(self) -> PoseSettings:
        if self.crop == "classic":
            if self.decode not in (None, "classic"):
                raise UserError(f"--pose.crop classic needs --pose.decode classic, not {self.decode}")
            if self.scales != (1.0,) or self.ensemble:
                raise UserError("--pose.crop classic cannot be combined with --pose.scales or --pose.ensemble")
        elif self.decode == "classic":
            raise UserError("--pose.decode classic needs --pose.crop classic")
        return self

    def networks(self) -> tuple[NetworkSettings, ...]:
        """All networks, the first one with its own settings."""
        first = NetworkSettings(weights=self.weights, name=self.name, input_size=self.input_size)
        return (first, *self.ensemble)


class ComputeSettings(Section):
    """On what, and how precisely, the networks run."""

    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: the GPU where there is one")
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", description="auto: bf16 where the processor computes in it, else float32"
    )


class FleetSettings(Section):
    """How the work is spread over a Ray cluster."""

    address: str | None = Field(None, description="Ray cluster; by default RAY_ADDRESS, else a local one is started")
    workers: int | None = Field(None, ge=1, description="at most so many; by default what the cluster has room for")
    gpus_per_worker: float | None = Field(None, ge=0, description="GPUs of a worker; by default 1 where there are any")
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPU threads of a worker, which decode where it has a GPU; by default up to 4"
    )
    max_attempts: int = Field(6, ge=1, description="attempts at a shard, without news of it, until it is quarantined")
    image_seconds: float = Field(
        120.0, gt=0, description="decoding one image may take so long, seconds; then its worker is ended"
    )
    worker_gigabytes: float | None = Field(
        None, gt=0, description="memory a worker may hold before it is replaced; by default its share of the machine"
    )
    storage_retry_seconds: float = Field(
        300.0, ge=0, description="how long failing requests to remote storage are retried, seconds"
    )
    grace_seconds: float = Field(20.0, ge=0, description="on a stop signal, time for shards in flight, seconds")


class Settings(Section):
    """Everything a run can be told."""

    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    annotations: str | None = Field(None, description="COCO annotations to evaluate against (file names or ids match)")
    profile: bool = Field(False, description="print where the workers' time went, stage by stage")
    draw: int = Field(0, ge=0, description="images to draw with boxes and skeletons")
    images: ImageSettings = ImageSettings()
    detector: DetectorSettings = DetectorSettings()
    pose: PoseSettings = PoseSettings()
    suppression: PoseNMS = PoseNMS()
    compute: ComputeSettings = ComputeSettings()
    fleet: FleetSettings = FleetSettings()

    @model_validator(mode="before")
    @classmethod
    def _uri_shorthand(cls, data: Any) -> Any:
        return with_uris(data) if isinstance(data, dict) else data

    def problem(self) -> str | None:
        if self.detector.name in FILE_DETECTORS and self.detector.weights is None:
            return f"--detector.weights is none; a {self.detector.name} detector needs its file"
        return None


def with_uris(tree: dict[str, Any]) -> dict[str, Any]:
    """`input: photos/` as `input: {uri: photos/}`, and output likewise."""
    short = {key: {"uri": tree[key]} for key in ("input", "output") if isinstance(tree.get(key), str)}
    return {**tree, **short}
