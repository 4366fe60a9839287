"""The settings of the export job."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.paths import absolute_path
from pipeline.settings.tree import Decode, InputSize, PoseName, Section, SkeletonName


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
    input: str | None = Field(
        None,
        description="images to compare the exported networks on: folder, glob, archive or list; by default the demo's",
    )
    images: int = Field(16, ge=1, description="number of these images")
    pose: PoseToExport = PoseToExport()
    detector: DetectorToExport = DetectorToExport()

    def problem(self) -> str | None:
        if self.pose.weights is None and self.detector.weights is None:
            return "--pose.weights and --detector.weights are both none; set one of them, or both"
        return None

    def with_absolute_paths(self) -> ExportSettings:
        """The same settings with absolute paths."""
        pose = self.pose.model_copy(update={"weights": absolute_path(self.pose.weights)})
        detector = {name: absolute_path(getattr(self.detector, name)) for name in ("weights", "cfg")}
        paths = {"output": absolute_path(self.output), "input": absolute_path(self.input)}
        return self.model_copy(update={**paths, "pose": pose, "detector": self.detector.model_copy(update=detector)})
