"""The trials of a sweep, grouped by the networks that they need."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

from pipeline.run import Run
from pipeline.settings.flags import SettingsError, leaves, load_settings, nearest
from pipeline.settings.paths import absolute_paths
from pipeline.settings.tree import Settings
from pipeline.suppression import PoseNMS
from pipeline.sweep.settings import SweepSettings

CONFIDENCE = "detector.confidence"
_SUPPRESSION = "suppression."


@dataclass(frozen=True)
class Trial:
    """One set of settings.

    Attributes:
        varied: the settings that the sweep varies, by dotted name.
        settings: all settings.
    """

    varied: Mapping[str, Any]
    settings: Settings

    @property
    def confidence(self) -> float:
        """The score that a candidate's box must exceed."""
        return self.settings.detector.confidence if self.settings.detector.has_confidence else -inf


def trials_of(sweep: SweepSettings) -> list[Trial]:
    """All trials, in the order of the sweep.

    Raises:
        SettingsError: a setting that is unknown, has a wrong value, or cannot be varied.
        RunRefused: `run` is not a run directory.
    """
    defaults = {leaf.name: leaf.value for leaf in leaves(Settings())}
    shared = Run.open(sweep.run).settings if sweep.run else sweep.base
    # Defaults are left out: they depend on other settings, for example on the detector.
    base = {leaf.name: leaf.value for leaf in leaves(shared) if leaf.value != defaults[leaf.name]}
    base["annotations"] = sweep.annotations
    trials = []
    for varied in _combinations(sweep):
        if bad := [name for name in varied if name.startswith(("input.", "output.", "fleet."))]:
            raise SettingsError(f"{bad[0]} cannot be varied: it is the same for all trials; set it under base")
        if unknown := [name for name in varied if name not in defaults]:
            raise SettingsError(f"{unknown[0]} is unknown{nearest(unknown[0], list(defaults))}")
        trial = Trial(varied, absolute_paths(load_settings(None, base | varied)))
        if problem := trial.settings.problem():
            raise SettingsError(problem)
        if CONFIDENCE in varied and not trial.settings.detector.has_confidence:
            raise SettingsError(
                f"{CONFIDENCE} cannot be varied: it does not apply to --detector.name {trial.settings.detector.name}"
            )
        trials.append(trial)
    return trials


def needs_networks(name: str) -> bool:
    """Whether changing this setting requires running the networks again."""
    return not name.startswith(_SUPPRESSION) and name != CONFIDENCE


def by_networks(trials: Sequence[Trial]) -> list[tuple[Settings, list[Trial]]]:
    """Group trials that can share one run; returns the settings of each run, and its trials.

    The run stores candidates down to the lowest confidence of its trials. It has the default suppression, so that
    sweeps over other suppression settings reuse it.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        key = repr({name: value for name, value in trial.varied.items() if needs_networks(name)})
        groups.setdefault(key, []).append(trial)
    return [(_run_settings(group), group) for group in groups.values()]


def _run_settings(group: Sequence[Trial]) -> Settings:
    settings = group[0].settings
    lowest = min(trial.settings.detector.confidence for trial in group)
    return settings.model_copy(
        update={
            "detector": settings.detector.model_copy(update={"confidence": lowest}),
            "output": settings.output.model_copy(update={"candidates": True}),
            "suppression": PoseNMS(),
        }
    )


def _combinations(sweep: SweepSettings) -> Iterator[dict[str, Any]]:
    if sweep.trials:
        yield from sweep.trials
        return
    values = sweep.grid or sweep.random
    if empty := [name for name, choices in values.items() if not choices]:
        raise SettingsError(f"{empty[0]} has no values to try")
    sizes = [len(choices) for choices in values.values()]
    numbers: Sequence[int] = range(prod(sizes))
    if sweep.random:
        numbers = sorted(random.Random(sweep.seed).sample(numbers, min(sweep.draws, len(numbers))))
    # All combinations of a grid may not fit into memory: each is computed from its number.
    for number in numbers:
        chosen = {}
        for (name, choices), size in reversed(list(zip(values.items(), sizes, strict=True))):
            number, index = divmod(number, size)
            chosen[name] = choices[index]
        yield dict(reversed(chosen.items()))
