"""The settings of the export job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.paths import absolute_path
from pipeline.settings.tree import Decode, InputSize, PoseName, Section, SkeletonName

Format = Literal["onnx", "torchscript", "openvino", "tensorrt", "litert"]
Precision = Literal["float32", "fp16", "int8"]
_ELSEWHERE = {
    "tensorrt": "an engine fits one GPU and one version. Export with --format onnx --precision fp16, and annotate with "
    "--compute.runtime tensorrt, which builds the engine and keeps it; for trtexec see infra/edge",
    "litert": "the converter needs an older PyTorch than this project. See infra/edge for an environment of its own",
}


class PoseToExport(Section):
    """The pose network to export."""

    weights: str | None = Field(None, description="file, URI or name in the catalogue")
    name: PoseName | None = Field(None, description="pose network; by default recognised from the weights")
    input_size: InputSize = Field(None, description="height and width of a crop, pixels; by default as in annotate")
    skeleton: SkeletonName | None = Field(None, description="joints of the output; by default as in annotate")
    decode: Decode | None = Field(None, description="how heatmaps become keypoints; by default as in annotate")


class DetectorToExport(Section):
    """The Darknet detector to export."""

    weights: str | None = Field(None, description="file, URI or name in the catalogue")
    cfg: str | None = Field(None, description="network description; by default as in annotate")
    input_size: int | None = Field(
        None, ge=32, multiple_of=32, description="side of the square input, pixels; by default as in the description"
    )


class ExportSettings(Section):
    """All settings of an export: of a pose network, of a detector, or of both."""

    output: str = Field("out/export", description="folder of the exported files")
    format: Format = Field("onnx", description="format of the file; tensorrt, litert: explains what to do instead")
    precision: Precision = Field(
        "float32", description="fp16: half the size, for GPUs; int8: about a quarter, and faster on CPUs"
    )
    input: str | None = Field(
        None,
        description="images to compare the exported networks on, and to calibrate int8: folder, glob, archive or list; "
        "by default the demo's",
    )
    images: int = Field(100, ge=1, description="maximum number of these images")
    annotations: str | None = Field(
        None, description="COCO annotations, .json: accuracy is measured on all their images, in the folder --input"
    )
    max_loss: float = Field(
        1.0, ge=0, le=100, description="points by which AP or PCK may fall on --annotations, of 100 people or more"
    )
    pose: PoseToExport = PoseToExport()
    detector: DetectorToExport = DetectorToExport()

    def problem(self) -> str | None:
        if self.pose.weights is None and self.detector.weights is None:
            return "--pose.weights and --detector.weights are both none; set one of them, or both"
        if self.format in _ELSEWHERE:
            return f"--format {self.format} is not written: {_ELSEWHERE[self.format]}"
        if self.format == "torchscript" and self.precision != "float32":
            return f"--format torchscript holds float32 alone, not {self.precision}; use --format onnx"
        if self.precision == "int8" and self.input is None:
            return "--precision int8 is calibrated on images like those to annotate: set --input"
        if self.annotations is not None and self.input is None:
            return "--annotations needs --input, the folder of the images"
        return None

    def unused(self) -> dict[str, str]:
        if self.annotations is None and self.max_loss != type(self).model_fields["max_loss"].default:
            return {"max_loss": "without --annotations"}
        return {}

    def with_absolute_paths(self) -> ExportSettings:
        """The same settings with absolute paths."""
        pose = self.pose.model_copy(update={"weights": absolute_path(self.pose.weights)})
        detector = {name: absolute_path(getattr(self.detector, name)) for name in ("weights", "cfg")}
        paths = {name: absolute_path(getattr(self, name)) for name in ("output", "input", "annotations")}
        return self.model_copy(update={**paths, "pose": pose, "detector": self.detector.model_copy(update=detector)})
