"""The settings of a sweep: the trials, the settings that they share, and the annotations."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline.settings.paths import absolute_path, absolute_paths
from pipeline.settings.tree import Section, Settings, with_uris


class SweepSettings(Section):
    """All settings of a sweep. Exactly one of `grid`, `random` and `trials` defines the trials."""

    output: str = Field("out/sweep", description="directory of the leaderboard and of the runs")
    annotations: str | None = Field(None, description="COCO annotations to evaluate trials against")
    run: str | None = Field(
        None, description="a run with stored candidates (--output.candidates), to try settings that need no network"
    )
    base: Settings = Field(Settings(), description="settings that all trials share, as in jobs/annotate.py")
    grid: dict[str, list[Any]] = Field({}, description="values by setting; every combination is a trial")
    random: dict[str, list[Any]] = Field({}, description="values by setting; `draws` random combinations are trials")
    draws: int = Field(50, ge=1, description="random: number of trials")
    seed: int = Field(0, description="random: seed of the draws")
    trials: tuple[dict[str, Any], ...] = Field((), description="settings of each trial, e.g. [{pose.flip_test: true}]")
    limit: int | None = Field(None, ge=1, description="number of annotated images to use; by default all")

    @model_validator(mode="before")
    @classmethod
    def _uri_shorthand(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("base"), dict):
            return {**data, "base": with_uris(data["base"])}
        return data

    def problem(self) -> str | None:
        given = [name for name in ("grid", "random", "trials") if getattr(self, name)]
        if len(given) != 1:
            return f"exactly one of --grid, --random and --trials must be set, not {' and '.join(given) or 'none'}"
        if self.annotations is None:
            return "--annotations is none; trials are evaluated against them"
        if self.run is not None and self.base != Settings():
            return "--run and --base.* cannot be combined; trials share the settings of the run"
        return None

    def with_absolute_paths(self) -> SweepSettings:
        """The same settings with absolute paths, for processes in other working directories."""
        paths = {name: absolute_path(getattr(self, name)) for name in ("output", "annotations", "run")}
        return self.model_copy(update={**paths, "base": absolute_paths(self.base)})
