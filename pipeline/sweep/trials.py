"""The trials of a sweep: settings, and which of them need networks of their own."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

from pipeline.run import Run
from pipeline.settings.flags import SettingsError, as_flags, leaves, load_settings, nearest
from pipeline.settings.paths import absolute_paths
from pipeline.settings.tree import Settings
from pipeline.suppression import PoseNMS
from pipeline.sweep.settings import SweepSettings

CONFIDENCE = "detector.confidence"
_AFTER = "suppression."


@dataclass(frozen=True)
class Trial:
    """One set of settings.

    Attributes:
        varied: what it has of its own, by dotted name.
        settings: all of them.
    """

    varied: Mapping[str, Any]
    settings: Settings

    @property
    def confidence(self) -> float:
        """What a candidate's box has to score more than."""
        return self.settings.detector.confidence if self.settings.detector.has_confidence else -inf

    @property
    def command(self) -> str:
        """What annotates with these settings."""
        flags = [flag for flag in as_flags(self.settings) if not flag.startswith("--output.")]
        return shlex.join(["uv", "run", "jobs/annotate.py", *flags, "--output=out/run"])


def trials_of(sweep: SweepSettings) -> list[Trial]:
    """Every trial, each once, in the order of the sweep.

    Raises:
        SettingsError: a setting that isn't there or has a wrong value, or one that the sweep itself decides about.
        RunRefused: `run` is no run directory.
    """
    defaults = {leaf.name: leaf.value for leaf in leaves(Settings())}
    shared = Run.open(sweep.run).settings if sweep.run else sweep.base
    # What they leave open stays open: a default of one detector is not one of another.
    base = {leaf.name: leaf.value for leaf in leaves(shared) if leaf.value != defaults[leaf.name]}
    base["annotations"] = sweep.annotations
    trials = []
    for varied in _combinations(sweep):
        if bad := [name for name in varied if name.startswith(("input.", "output.", "fleet."))]:
            raise SettingsError(f"{bad[0]} cannot be tried: it doesn't change what is found")
        if unknown := [name for name in varied if name not in defaults]:
            raise SettingsError(f"{unknown[0]} is unknown{nearest(unknown[0], list(defaults))}")
        trial = Trial(varied, absolute_paths(load_settings(None, base | varied)))
        if problem := trial.settings.problem():
            raise SettingsError(problem)
        if CONFIDENCE in varied and not trial.settings.detector.has_confidence:
            raise SettingsError(
                f"{CONFIDENCE} cannot be tried: {trial.settings.detector.name} boxes are taken as they are"
            )
        trials.append(trial)
    return trials


def needs_networks(name: str) -> bool:
    """Whether another value of this setting needs the networks to run again."""
    return not name.startswith(_AFTER) and name != CONFIDENCE


def by_networks(trials: Sequence[Trial]) -> list[tuple[Settings, list[Trial]]]:
    """Trials that can share one run, with the settings of that run.

    It keeps candidates down to the lowest confidence of its trials. Its own suppression doesn't matter; it is the
    default, so that the run is found again whatever is tried after it.
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
    # A grid may have more combinations than fit into memory; those that are drawn are made alone.
    for number in numbers:
        chosen = {}
        for (name, choices), size in reversed(list(zip(values.items(), sizes, strict=True))):
            number, place = divmod(number, size)
            chosen[name] = choices[place]
        yield dict(reversed(chosen.items()))
