"""The settings of the annotate job: one typed tree."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.decodings import Decode, Norm, Pixels
from pipeline.errors import UserError
from pipeline.images import DecodeLimits
from pipeline.suppression import PoseNMS, unused_settings

DEFAULT_DETECTOR_WEIGHTS = "nanodet_g_person"  # a name in the catalogue
GIVEN = "given"  # detector.name if boxes are read from a file
POSE_DETECTORS = ("yolo_pose", "movenet")  # these find boxes and joints at once
FILE_DETECTORS = ("darknet", "yolox", "yolo", *POSE_DETECTORS)  # these need a weights file
OWN_DETECTORS = (*FILE_DETECTORS, GIVEN, "whole_image")  # the others are torchvision models


class Section(BaseModel):
    """A settings section: frozen, without unknown names and without infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def problem(self) -> str | None:
        """The error message if valid settings contradict each other, else None."""
        return None

    def unused(self) -> dict[str, str]:
        """Settings that were changed and have no effect beside the others: dotted name to the reason."""
        return {}


class VideoSettings(Section):
    """Videos: which of their frames are annotated, and whether numbered images are such frames."""

    every: int = Field(1, ge=1, description="each n-th frame, counted from the start of the video")
    fps: float | None = Field(
        None, gt=0, description="instead: frames per second; for each point in time the last frame until then"
    )
    sequence_fps: float | None = Field(
        None,
        gt=0,
        description="frames per second of image sequences: an image whose name ends in a number is that frame of its "
        "folder; by default images are no frames",
    )


class InputSettings(Section):
    """The images to annotate."""

    uri: str | None = Field(
        None,
        description="folder, prefix, glob, video, archive (.tar, .zip), Parquet, list (.txt, .csv, .jsonl), COCO .json",
    )
    image_root: str | None = Field(
        None, description="folder of the images that a list or COCO file names; by default the folder of that file"
    )
    image_column: str | None = Field(
        None, description="column of a Parquet or CSV input with the images or their URIs; by default detected"
    )
    shard_size: int = Field(
        1000, ge=1, description="images per shard, for inputs of single image files; about as many frames of videos"
    )
    video: VideoSettings = VideoSettings()

    def problem(self) -> str | None:
        if self.video.fps is not None and self.video.every != 1:
            return "--input.video.every and --input.video.fps choose frames in two ways; leave one of them out"
        return None

    def unused(self) -> dict[str, str]:
        named_images = (".json", ".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
        if self.image_root is not None and not (self.uri or "").lower().endswith(named_images):
            return {
                "input.image_root": "with this --input; it is the folder of the images in a list or COCO file "
                f"({', '.join(named_images)})"
            }
        return {}


COLOUR = "colour"  # the appearance that needs no network


class OutputSettings(Section):
    """The run directory and its tables."""

    uri: str = Field("out/demo", description="run directory, local or on object storage")
    candidates: bool = Field(False, description="also store the candidates before suppression, which sweeps need")
    appearance: str | None = Field(
        None,
        description="also store what people look like, for --tracking.reunite: colour, or an exported network for "
        "re-identification, .onnx or TorchScript",
    )
    table_megabytes: int = Field(256, ge=1, description="target size of a table file, megabytes")


class ImageSettings(Section):
    """Limits that are checked before an image is decoded."""

    max_megapixels: float = Field(
        100.0, gt=0, description="maximum size of an image according to its header, megapixels; larger ones are refused"
    )
    max_megabytes: float = Field(
        256.0, gt=0, description="maximum size of an image file, megabytes; larger ones are not read"
    )

    @property
    def limits(self) -> DecodeLimits:
        """The same limits, as sources and decoders take them."""
        return DecodeLimits(self.max_megapixels, self.max_megabytes)


class DetectorSettings(Section):
    """The person detector."""

    name: str = Field(
        "darknet",
        description="darknet, yolox, yolo (exports of YOLOv5 or YOLOv8), yolo_pose or movenet (these find "
        "joints themselves), given (boxes from a file), whole_image, or a torchvision model",
    )
    cfg: str | None = Field(
        None,
        description="darknet: network description, .cfg; by default as in .safetensors, and YOLOv3-SPP for .weights",
    )
    weights: str | None = Field(
        None,
        description="file, URI or name in the catalogue; torchvision models have default weights",
    )
    boxes: str | None = Field(
        None, description="given: COCO results or annotations with the boxes; by default --annotations"
    )
    input_size: int | None = Field(
        None,
        ge=32,
        multiple_of=32,
        description="side of the square input, pixels; by default as in the weights file or its description, else 640",
    )
    person_class: int | None = Field(
        None,
        ge=0,
        description="darknet and exported networks: index of the class person, from 0; by default the class named "
        "person in the file, else the only class, else the first of COCO's 80",
    )
    letterbox: bool | None = Field(
        None,
        description="darknet: keep the aspect ratio of images, or stretch them; by default as letter_box in the "
        "description, else true",
    )
    confidence: float = Field(
        0.4, ge=0, le=1, description="minimum objectness (darknet) or score (others) of a box, exclusive"
    )
    weak_confidence: float | None = Field(
        0.3,
        ge=0,
        le=1,
        description="in frames of videos, boxes from this score up to the confidence are kept for tracking: they count "
        "only if they continue a track; null keeps none of these",
    )
    nms_iou: float = Field(0.6, gt=0, le=1, description="NMS drops a box if its IoU with a better one is at least this")
    max_boxes: int = Field(100, ge=1, description="images with more boxes repeat NMS with a lower nms_iou")
    batch: int | None = Field(None, ge=1, description="images per batch; by default 8 on a GPU and 1 on a CPU")

    @model_validator(mode="before")
    @classmethod
    def _own_weights(cls, data: Any) -> Any:
        own = isinstance(data, dict) and data.get("name", "darknet") == "darknet"
        if own and data.get("weights") is None and data.get("cfg") is None:
            return {**data, "weights": DEFAULT_DETECTOR_WEIGHTS}
        return data

    def unused(self) -> dict[str, str]:
        torchvision = self.name not in OWN_DETECTORS
        used_by = {
            "cfg": self.name == "darknet",
            "boxes": self.name == GIVEN,
            "person_class": self.name in FILE_DETECTORS,
            "letterbox": self.name == "darknet",
            "weights": self.name in FILE_DETECTORS or torchvision,
            "confidence": self.has_confidence,
            "weak_confidence": self.has_confidence,
            "nms_iou": self.name in FILE_DETECTORS,
            "max_boxes": self.name in FILE_DETECTORS,
            "input_size": self.name in FILE_DETECTORS,
            "batch": self.name != GIVEN,
        }
        changed = [n for n, used in used_by.items() if not used and getattr(self, n) != _default(self, n)]
        return {f"detector.{name}": f"with --detector.name {self.name}; leave it out" for name in changed}

    @property
    def has_confidence(self) -> bool:
        """Whether boxes are selected by score; boxes from a file are all used."""
        return self.name not in (GIVEN, "whole_image")

    @property
    def least_confidence(self) -> float:
        """The score that any box must exceed, those for tracking as well."""
        return self.confidence if self.weak_confidence is None else min(self.confidence, self.weak_confidence)


def _default(section: Section, name: str) -> Any:
    return type(section).model_fields[name].default


def detector_batch(settings: DetectorSettings, device: str) -> int:
    """Images per batch of a detector; `device` is `cuda` or `cpu`."""
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
    "movenet_pyramid",
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

    weights: str | None = Field(None, description="file, URI or name in the catalogue")
    name: PoseName | None = Field(None, description="pose network; by default recognised from the weights")
    input_size: InputSize = Field(
        None, description="height and width of a crop, pixels; by default as published for the weights"
    )


class PoseSettings(Section):
    """The pose network, its crops and the decoding of its output."""

    weights: str | None = Field(
        "weights/movenet_thunder_coco17.safetensors", description="file, URI or name in the catalogue"
    )
    name: PoseName | None = Field(None, description="pose network; by default recognised from the weights")
    input_size: InputSize = Field(
        None, description="height and width of a crop, pixels; by default as published for the weights"
    )
    skeleton: SkeletonName | None = Field(
        None, description="joints of the output; by default as in the weights file, else by their number"
    )
    crop: Literal["padded", "classic"] = Field(
        "padded", description="crop rule; classic: as in the first PyTorch release"
    )
    decode: Decode | None = Field(
        None,
        description="how heatmaps become keypoints; by default as in the catalogue or the weights file, else argmax; "
        "simcc: of exported networks with two outputs, recognised by these",
    )
    pixels: Pixels | None = Field(
        None,
        description="exported networks: normalisation of crops; imagenet: as in MMPose and ViTPose; by default mean, "
        "as in AlphaPose",
    )
    norm: Norm | None = Field(
        None,
        description="integral, combined: heatmap normalisation; by default as in the weights file, else sigmoid",
    )
    flip_test: bool = Field(False, description="average with the mirrored crop: more accurate, half the speed")
    scales: tuple[Annotated[float, Field(gt=0.2, lt=5)], ...] = Field(
        (1.0,), min_length=1, description="average over crops of these relative sizes, for example 1,1.25"
    )
    ensemble: tuple[NetworkSettings, ...] = Field(
        (), description="more networks to average with, for example [{weights: b.pth, input_size: [384, 288]}]"
    )
    batch: int = Field(32, ge=1, description="people per batch, across images")

    @model_validator(mode="after")
    def _classic_stands_alone(self) -> PoseSettings:
        if self.crop == "classic":
            if self.decode not in (None, "classic"):
                raise UserError(f"--pose.crop classic needs --pose.decode classic, not {self.decode}")
            if self.scales != (1.0,) or self.ensemble:
                raise UserError("--pose.crop classic cannot be combined with --pose.scales or --pose.ensemble")
        elif self.decode == "classic":
            raise UserError("--pose.decode classic needs --pose.crop classic")
        if self.decode == "simcc" and (self.scales != (1.0,) or self.ensemble):
            raise UserError("--pose.decode simcc cannot be combined with --pose.scales or --pose.ensemble")
        return self

    def networks(self) -> tuple[NetworkSettings, ...]:
        """All networks of the ensemble, the main one first."""
        first = NetworkSettings(weights=self.weights, name=self.name, input_size=self.input_size)
        return (first, *self.ensemble)


class ComputeSettings(Section):
    """The device and the precision of the networks."""

    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: a GPU if one is available")
    precision: Literal["auto", "bf16", "fp16", "float32"] = Field(
        "auto",
        description="auto: bf16 if the processor has instructions for it, else fp16 on a GPU and float32 on a CPU",
    )


class AnnotateComputeSettings(ComputeSettings):
    """The device, the precision and the runtime of the networks."""

    runtime: Literal["auto", "torch", "onnx", "openvino", "tensorrt"] = Field(
        "auto",
        description="what runs the networks; auto: as an exported file needs it, else torch, or onnx on a CPU without "
        "bf16 instructions",
    )
    pixels: Literal["auto", "opencv", "torch"] = Field(
        "auto",
        description="what scales and crops images; opencv: on the CPU; torch: where the networks run; auto: torch on a "
        "GPU, else opencv",
    )

    mode: Literal["auto", "eager", "graph", "compile"] = Field(
        "auto",
        description="how torch runs networks; eager: operation by operation; graph: as one CUDA graph, with equal "
        "results; compile: fused, which rounds differently; auto: on a GPU the faster of eager and graph, else eager",
    )

    jpeg: Literal["cpu", "device"] = Field(
        "cpu",
        description="what decodes plain JPEGs; device: where the networks run, after a comparison with the CPU",
    )

    def problem(self) -> str | None:
        if self.jpeg == "device" and self.pixels == "opencv":
            return "--compute.jpeg device needs --compute.pixels torch; leave out one of them"
        if self.runtime in ("onnx", "openvino", "tensorrt") and self.mode in ("graph", "compile"):
            return f"--compute.mode {self.mode} is for torch, not for --compute.runtime {self.runtime}; leave it out"
        if self.mode == "graph" and self.device == "cpu":
            return "--compute.mode graph needs a GPU; leave out --compute.device"
        if self.runtime in ("onnx", "openvino", "tensorrt") and self.precision in ("bf16", "fp16"):
            return f"--compute.runtime {self.runtime} has no {self.precision}; leave out --compute.precision"
        if self.runtime == "openvino" and self.device == "cuda":
            return "--compute.runtime openvino runs on the CPU; leave out --compute.device"
        if self.runtime == "tensorrt" and self.device == "cpu":
            return "--compute.runtime tensorrt needs a GPU; leave out --compute.device"
        return None


class TrackingSettings(Section):
    """How people are followed through a video, and their joints smoothed. Durations are in seconds."""

    kind: Literal["oks", "iou", "poseflow"] = Field(
        "oks",
        description="oks and iou compare poses or boxes with the predictions of tracks; poseflow finds the best paths",
    )
    similarity: float = Field(
        0.2, gt=0, le=1, description="minimum similarity of a person and a prediction for the same track"
    )
    sure: float = Field(0.3, ge=0, le=1, description="people with a lower box score continue tracks, but start none")
    memory: float = Field(
        1.0, gt=0, le=3600, description="a person who is not seen for longer gets a new track, seconds"
    )
    reunite: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="people who come back within this time get their number back if they look alike, seconds; needs "
        "--output.appearance",
    )
    confirm: float = Field(
        0.2, ge=0, le=3600, description="people who are seen for a shorter time have no track, seconds"
    )
    smooth: Literal["rts", "butterworth", "one_euro", "none"] = Field(
        "rts",
        description="filter of the joints: rts (Kalman, in both directions), butterworth, one_euro (past frames alone)",
    )
    gap: float = Field(
        0.2, ge=0, le=0.5, description="people and joints that are not seen for up to this time are filled in, seconds"
    )
    cutoff: float = Field(6.0, gt=0, le=1000, description="cut-off frequency of the butterworth filter, Hz")

    def unused(self) -> dict[str, str]:
        used_by = {"cutoff": self.smooth == "butterworth", "gap": self.smooth != "none"}
        changed = [n for n, used in used_by.items() if not used and getattr(self, n) != _default(self, n)]
        return {f"tracking.{name}": f"with --tracking.smooth {self.smooth}; leave it out" for name in changed}


class FleetSettings(Section):
    """The distribution of the work over a Ray cluster."""

    address: str | None = Field(None, description="Ray cluster; by default RAY_ADDRESS, else a local one is started")
    workers: int | None = Field(
        None, ge=1, description="maximum number of workers; by default as many as fit on the cluster"
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs per worker; by default 1 if the cluster has any"
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPU threads per worker; with a GPU they decode images; by default up to 4"
    )
    max_attempts: int = Field(6, ge=1, description="failures of a shard in a row before it is quarantined")
    image_seconds: float = Field(
        120.0, gt=0, description="time limit for decoding one image, seconds; after it the worker is ended"
    )
    worker_gigabytes: float | None = Field(
        None,
        gt=0,
        description="memory at which a worker is replaced, gigabytes; by default its share of the machine",
    )
    storage_retry_seconds: float = Field(
        300.0, ge=0, description="how long failed requests to remote storage are retried, seconds"
    )
    grace_seconds: float = Field(20.0, ge=0, description="time for shards in progress after a stop signal, seconds")


class Settings(Section):
    """All settings of an annotation run."""

    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    annotations: str | None = Field(
        None, description="COCO annotations to evaluate against, matched by id or file name"
    )
    profile: bool = Field(False, description="print the time that the workers spent in each stage")
    draw: int = Field(0, ge=0, description="number of images, and of videos, to draw with boxes and skeletons")
    motion: bool | None = Field(
        None, description="write joint angles, centres of mass and events of movements; by default of runs with videos"
    )
    images: ImageSettings = ImageSettings()
    detector: DetectorSettings = DetectorSettings()
    pose: PoseSettings = PoseSettings()
    suppression: PoseNMS = PoseNMS()
    compute: AnnotateComputeSettings = AnnotateComputeSettings()
    tracking: TrackingSettings = TrackingSettings()
    fleet: FleetSettings = FleetSettings()

    @model_validator(mode="before")
    @classmethod
    def _uri_shorthand(cls, data: Any) -> Any:
        return with_uris(data) if isinstance(data, dict) else data

    def problem(self) -> str | None:
        if self.detector.name in FILE_DETECTORS and self.detector.weights is None:
            return f"--detector.name {self.detector.name} needs --detector.weights, which is none"
        if self.detector.name not in OWN_DETECTORS and self.compute.runtime not in ("auto", "torch"):
            return f"--compute.runtime {self.compute.runtime} does not run torchvision detectors; leave it out"
        if self.tracking.reunite and self.output.appearance is None:
            return f"--tracking.reunite {self.tracking.reunite:g} needs --output.appearance, which is none"
        return self.compute.problem() or self.input.problem()

    def unused(self) -> dict[str, str]:
        suppression = {
            f"suppression.{name}": f"with --suppression.kind {self.suppression.kind}; leave it out"
            for name in unused_settings(self.suppression)
        }
        others = self.detector.unused() | self.input.unused() | self.tracking.unused()
        return others | suppression | self._unused_pose()

    def pose_networks(self) -> tuple[NetworkSettings, ...]:
        """The networks of the ensemble; none if the detector finds joints as well."""
        return () if self.detector.name in POSE_DETECTORS else self.pose.networks()

    def _unused_pose(self) -> dict[str, str]:
        """The settings of pose networks that were changed, if there are none."""
        if self.detector.name not in POSE_DETECTORS:
            return {}
        changed = [
            name for name in type(self.pose).model_fields if getattr(self.pose, name) != _default(self.pose, name)
        ]
        reason = f"with --detector.name {self.detector.name}, which finds joints itself; leave it out"
        return {f"pose.{name}": reason for name in changed if name != "skeleton"}


def with_uris(tree: dict[str, Any]) -> dict[str, Any]:
    """`input: photos/` as `input: {uri: photos/}`, and output likewise."""
    short = {key: {"uri": tree[key]} for key in ("input", "output") if isinstance(tree.get(key), str)}
    return {**tree, **short}
