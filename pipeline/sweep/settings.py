"""What a sweep is told: what is tried, on top of which settings, on which images."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline.settings.paths import absolute_path, absolute_paths
from pipeline.settings.tree import Section, Settings, with_uris


class SweepSettings(Section):
    """Everything a sweep can be told; one of `grid`, `random` and `trials` says what is tried."""

    output: str = Field("out/sweep", description="directory of the leaderboard and of the sweep's own runs")
    annotations: str | None = Field(None, description="COCO annotations that trials are measured by")
    run: str | None = Field(
        None, description="a run made with output.candidates, to try settings after its networks without any network"
    )
    base: Settings = Field(Settings(), description="what all trials share, as jobs/annotate.py takes it")
    grid: dict[str, list[Any]] = Field({}, description="values by setting: every combination is tried")
    random: dict[str, list[Any]] = Field({}, description="values by setting: `draws` combinations are tried")
    draws: int = Field(50, ge=1, description="random: how many")
    seed: int = Field(0, description="random: of the draws")
    trials: tuple[dict[str, Any], ...] = Field((), description="settings of each trial, e.g. [{pose.flip_test: true}]")
    limit: int | None = Field(None, ge=1, description="only so many of the annotated images, for a quick look")

    @model_validator(mode="before")
    @classmethod
    def _uri_shorthand(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("base"), dict):
            return {**data, "base": with_uris(data["base"])}
        return data

    def problem(self) -> str | None:
        told = [name for name in ("grid", "random", "trials") if getattr(self, name)]
        if len(told) != 1:
            return f"one of grid, random and trials says what is tried; told: {', '.join(told) or 'none'}"
        if self.annotations is None:
            return "annotations is none; trials are measured by them"
        if self.run is not None and self.base != Settings():
            return "run and base are both told; the settings of the run are what its trials share"
        return None

    def with_absolute_paths(self) -> SweepSettings:
        """The same settings, for processes in other directories."""
        paths = {name: absolute_path(getattr(self, name)) for name in ("output", "annotations", "run")}
        return self.model_copy(update={**paths, "base": absolute_paths(self.base)})
