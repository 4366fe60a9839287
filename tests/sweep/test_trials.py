from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation.intervals import Estimate
from pipeline.settings.flags import SettingsError
from pipeline.settings.tree import Settings
from pipeline.sweep.leaderboard import Row, _shown, changes, pareto, ranked, value_of
from pipeline.sweep.settings import SweepSettings
from pipeline.sweep.trials import Trial, by_networks, trials_of

BASE = {"input": "s3://b/photos", "detector": {"name": "darknet", "weights": "s3://b/a.weights", "confidence": 0.2}}


def sweep(**settings) -> SweepSettings:
    return SweepSettings.model_validate({"annotations": "s3://b/a.json", "base": BASE, **settings})


def test_a_grid_is_every_combination_and_its_last_setting_changes_fastest() -> None:
    grid = {"suppression.kind": ["pose", "oks"], "pose.flip_test": [False, True]}
    trials = trials_of(sweep(grid=grid))
    assert [tuple(t.varied.values()) for t in trials] == [
        ("pose", False),
        ("pose", True),
        ("oks", False),
        ("oks", True),
    ]
    assert trials[1].settings.pose.flip_test
    assert trials[2].settings.suppression.kind == "oks"
    assert all(t.settings.detector.weights == "s3://b/a.weights" for t in trials)


def test_random_draws_are_distinct_and_reproducible() -> None:
    values = {f"suppression.{name}": [0.1 * i for i in range(1, 40)] for name in ("gamma", "mu", "delta1", "delta2")}
    first = [t.varied for t in trials_of(sweep(random=values, draws=30))]
    assert len({tuple(v.values()) for v in first}) == 30
    assert first == [t.varied for t in trials_of(sweep(random=values, draws=30))]
    assert first != [t.varied for t in trials_of(sweep(random=values, draws=30, seed=1))]
    assert len(trials_of(sweep(random={"suppression.mu": [1, 2]}, draws=30))) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": {"suppression.gama": [1]}}, "suppression.gama is unknown; did you mean suppression.gamma?"),
        ({"grid": {"suppression.gamma": ["many"]}}, "suppression.gamma is 'many'"),
        ({"grid": {"suppression.gamma": []}}, "suppression.gamma has no values to try"),
        ({"grid": {"input.shard_size": [1]}}, "input.shard_size cannot be varied"),
        (
            {"trials": [{"detector.name": "given", "detector.confidence": 0.5}]},
            "detector.confidence cannot be varied: it does not apply to --detector.name given",
        ),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
        trials_of(sweep(**settings))


def test_exactly_one_form_and_annotations_are_required() -> None:
    assert sweep(grid={"pose.batch": [1]}).problem() is None
    assert "must be set, not none" in str(sweep().problem())
    assert "must be set, not grid and random" in str(sweep(grid={"a": [1]}, random={"b": [1]}).problem())
    assert "--annotations is none" in str(sweep(grid={"a": [1]}, annotations=None).problem())


def test_trials_with_the_same_networks_share_a_run() -> None:
    """The run stores candidates down to the lowest confidence, and always has the default suppression."""
    grid = {"pose.flip_test": [False, True], "detector.confidence": [0.3, 0.1], "suppression.gamma": [5, 9]}
    groups = by_networks(trials_of(sweep(grid=grid)))
    assert [(s.pose.flip_test, len(trials)) for s, trials in groups] == [(False, 4), (True, 4)]
    for settings, _ in groups:
        assert settings.detector.confidence == 0.1
        assert settings.output.candidates
        assert settings.suppression == Settings().suppression


def row(f1: float, speed: float | None, ap: float = 0.5) -> Row:
    outcome = SimpleNamespace(f1=f1, metrics=SimpleNamespace(ap=ap))
    no = Estimate(0, 0, 0)
    return Row(Trial({}, Settings()), outcome, False, no, no, speed, None, "", "")  # type: ignore[arg-type]


def test_the_pareto_front_of_f1_and_speed() -> None:
    rows = [row(0.5, 1.0), row(0.4, 5.0), row(0.3, 4.0), row(0.2, 9.0), row(0.5, 0.5), row(0.9, None), row(0.4, 5.0)]
    assert pareto(rows) == [True, True, False, True, False, False, True]
    assert [r.outcome.f1 for r in ranked(rows)] == [0.9, 0.5, 0.5, 0.4, 0.4, 0.3, 0.2]


def test_false_positives_rank_before_ap() -> None:
    many_false, few_false, undefined = row(0.3, None, ap=0.33), row(0.4, None, ap=0.32), row(float("nan"), None, ap=0.9)
    assert ranked([many_false, undefined, few_false]) == [few_false, many_false, undefined]


def test_changes_are_paired_over_the_same_resamples() -> None:
    """Two trials whose metrics vary with the images by 0.2, and whose difference varies by 0.01."""
    images, difference = np.linspace(0.2, 0.4, 201), np.linspace(0.01, 0.02, 201)[::-1]
    before = SimpleNamespace(f1=0.3, metrics=SimpleNamespace(ap=0.3), resampled_ap=images, resampled_f1=images)
    now = SimpleNamespace(
        f1=0.315, metrics=SimpleNamespace(ap=0.315), resampled_ap=images + difference, resampled_f1=images + difference
    )
    for changed in changes(now, before):  # type: ignore[arg-type]
        assert changed == pytest.approx((0.015, 0.01025, 0.01975))


def test_settings_are_shown_as_people_write_them() -> None:
    trials = trials_of(sweep(grid={"pose.scales": [[1.0], [0.9, 1.1]], "suppression.gamma": [5.0]}))
    rows = [replace(row(0.5, None), trial=trial) for trial in trials]
    assert [_shown(value_of(r, "pose.scales")) for r in rows] == ["1.0", "0.9, 1.1"]


def test_a_stored_run_and_base_settings_cannot_be_combined() -> None:
    assert "--run and --base.* cannot be combined" in str(sweep(grid={"pose.batch": [1]}, run="out/run1").problem())
    assert sweep(grid={"pose.batch": [1]}, run="out/run1", base={}).problem() is None


def test_paths_of_trials_are_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (trial,) = trials_of(sweep(trials=[{"pose.weights": "b.pth"}]))
    assert trial.settings.pose.weights == str(tmp_path / "b.pth")
    with pytest.raises(SettingsError, match=r"--detector\.name yolox needs --detector\.weights"):
        trials_of(sweep(base={}, trials=[{"detector.name": "yolox"}]))
