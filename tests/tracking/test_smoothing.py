"""Filters of joints over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.signal import savgol_filter
from support.paths import SHARED

from pipeline.tracking.smoothing import butterworth, one_euro, robust_rts, rts

PEZZACK = SHARED / "clips" / "motion" / "Pezzack.txt"


def series(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, float)[:, None, None]


def dense_posterior(
    seconds: np.ndarray, values: np.ndarray, variance: float, density: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of all values given all measurements, by one system of linear equations.

    Another formulation of the same model: the information matrix of all states at once, without a filter.
    """
    n = len(seconds)
    information, vector = np.zeros((3 * n, 3 * n)), np.zeros(3 * n)
    information[0, 0], vector[0] = 1e-9, 1e-9 * values[0]  # hardly anything is known before
    for i in range(n):
        if not np.isnan(values[i]):
            information[3 * i, 3 * i] += 1 / variance
            vector[3 * i] += values[i] / variance
        if i:
            h = seconds[i] - seconds[i - 1]
            f = np.array([[1, h, h * h / 2], [0, 1, h], [0, 0, 1]])
            q = density * np.array(
                [[h**5 / 20, h**4 / 8, h**3 / 6], [h**4 / 8, h**3 / 3, h**2 / 2], [h**3 / 6, h**2 / 2, h]]
            )
            step = np.hstack([-f, np.eye(3)])
            place = slice(3 * (i - 1), 3 * (i + 1))
            information[place, place] += step.T @ np.linalg.inv(q) @ step
    covariance = np.linalg.inv(information)
    return (covariance @ vector)[::3], np.sqrt(np.diag(covariance)[::3])


def test_the_smoother_is_the_best_estimate_from_all_measurements() -> None:
    random = np.random.default_rng(0)
    seconds = np.cumsum(random.uniform(0.02, 0.1, 25))
    values = np.sin(3 * seconds) + random.normal(0, 0.05, 25)
    values[[7, 8, 15]] = np.nan
    found = rts(seconds, series(values), np.full((25, 1), 0.0025), np.full(25, 100.0))
    mean, std = dense_posterior(seconds, values, 0.0025, 100.0)
    np.testing.assert_allclose(found.states[:, 0, 0, 0], mean, atol=1e-6)
    np.testing.assert_allclose(found.std[:, 0], std, rtol=1e-4)


def test_the_stated_deviation_covers_the_truth() -> None:
    """Two thirds of the errors or more are within one deviation, and 95 % within two."""
    random = np.random.default_rng(1)
    seconds = np.arange(0, 20, 1 / 30)
    truth = 40 * np.sin(2 * np.pi * 1.1 * seconds) + 15 * np.sin(2 * np.pi * 2.3 * seconds)
    values = series(truth + random.normal(0, 3.0, len(seconds)))
    thought, density = np.full((len(seconds), 1), 36.0), np.full(len(seconds), 1e8)
    found, used = robust_rts(seconds, values, thought, density)
    assert used.mean() > 0.99
    errors = np.abs(found.states[:, 0, 0, 0] - truth) / found.std[:, 0]
    assert 0.62 < (errors < 1).mean() < 0.85
    assert (errors < 2).mean() > 0.94
    assert found.std.mean() < 0.7 * 3.0


def test_uneven_steps_are_taken_as_they_are() -> None:
    """With the true times the error is smaller than with an even rate."""
    random = np.random.default_rng(2)
    seconds = np.cumsum(random.choice([0.033, 0.066, 0.2], 150))
    truth = 50 * np.sin(4 * seconds)
    values = series(truth + random.normal(0, 2, 150))
    errors = [
        np.abs(rts(times, values, np.full((150, 1), 4.0), np.full(150, 1e5)).states[:, 0, 0, 0] - truth).mean()
        for times in (seconds, np.linspace(seconds[0], seconds[-1], 150))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_stray_measurements_hardly_count() -> None:
    """A tenth of the measurements is anywhere; the variance was thought to be sixteen times as large as it is."""
    random = np.random.default_rng(4)
    seconds = np.arange(0, 10, 1 / 30)
    truth = 300 + 40 * np.sin(2 * np.pi * seconds)
    values = truth + random.normal(0, 2, len(seconds))
    stray = random.random(len(seconds)) < 0.1
    values[stray] = random.uniform(100, 500, stray.sum())
    variances, density = np.full((len(seconds), 1), 64.0), np.full(len(seconds), 1e7)
    found, used = robust_rts(seconds, series(values), variances, density)
    without, _ = robust_rts(seconds, series(np.where(stray, np.nan, values)), variances, density)
    assert np.sqrt(np.mean((found.states[:, 0, 0, 0] - truth) ** 2)) < 1.5
    assert found.std.mean() < 1.9 * without.std.mean()
    assert not used[stray & (np.abs(values - truth) > 40)].any()
    assert used[~stray].all()


def test_a_joint_that_jumps_is_followed() -> None:
    """Within three frames: a network may find the other foot from a frame on."""
    seconds = np.arange(60) / 30
    values = np.where(np.arange(60) < 30, 100.0, 250.0)
    found, _ = robust_rts(seconds, series(values), np.full((60, 1), 4.0), np.full(60, 1e3 * 100**2))
    smooth = found.states[:, 0, 0, 0]
    np.testing.assert_allclose(np.delete(smooth, range(27, 33)), np.delete(values, range(27, 33)), atol=25)
    assert 60 < smooth.min() < smooth.max() < 290, "no ringing"


def test_after_a_long_gap_the_filter_starts_again() -> None:
    """What comes after ten minutes is as sure as if it came first."""
    random = np.random.default_rng(5)
    seconds = np.concatenate([np.arange(50) / 30, 600 + np.arange(50) / 30])
    values = random.normal(0, 3, 100)
    found = rts(seconds, series(values), np.full((100, 1), 9.0), np.full(100, 1e4))
    alone = rts(seconds[50:] - 600, series(values[50:]), np.full((50, 1), 9.0), np.full(50, 1e4))
    np.testing.assert_allclose(found.std[50:], alone.std, rtol=1e-3)
    np.testing.assert_allclose(found.states[50:, 0, 0, 0], alone.states[:, 0, 0, 0], atol=0.01)


def test_equal_times_do_not_break_the_filters() -> None:
    seconds = np.array([0.0, 0.1, 0.1, 0.2])
    values = np.array([[1.0], [2.0], [2.5], [3.0]])
    for filtered in (
        one_euro(seconds, values, 6, 3), butterworth(seconds, values, 1), butterworth(seconds[1:3], values[1:3], 1)
    ):  # fmt: skip
        assert np.isfinite(filtered).all()


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(3, 40))
def test_constant_acceleration_is_left_as_it_is(x: float, v: float, a: float, count: int) -> None:
    seconds = np.arange(count) / 25
    values = x + v * seconds + a * seconds**2 / 2
    found = rts(seconds, series(values), np.full((count, 1), 0.01), np.full(count, 1e4))
    np.testing.assert_allclose(found.states[:, 0, 0, 0], values, atol=0.3)
    if count > 9:
        np.testing.assert_allclose(butterworth(seconds, values[:, None] * 0 + x, 6)[:, 0], x, atol=1e-6 * (1 + abs(x)))


def test_the_butterworth_filter_halves_the_power_at_its_cutoff_without_lag() -> None:
    seconds = np.arange(0, 20, 0.01)
    wave = np.sin(2 * np.pi * 6 * seconds)
    filtered = butterworth(seconds, wave[:, None], 6.0)[:, 0]
    middle = slice(500, 1500)
    assert np.std(filtered[middle]) / np.std(wave[middle]) == pytest.approx(2**-0.5, abs=0.01)
    assert np.corrcoef(filtered[middle], wave[middle])[0, 1] > 0.9999
    few = np.array([1.0, 5.0, 2.0])
    np.testing.assert_array_equal(butterworth(np.arange(3) / 5, few[:, None], 6.0)[:, 0], few)


def test_the_one_euro_filter_sees_the_past_alone() -> None:
    random = np.random.default_rng(3)
    seconds, values = np.arange(50) / 30, random.normal(0, 1, (50, 2))
    whole, part = (one_euro(seconds[:n], values[:n], 2.0, 0.1) for n in (50, 20))
    np.testing.assert_array_equal(whole[:20], part)
    assert np.std(whole[5:]) < 0.7 * np.std(values)


class Pezzack(NamedTuple):
    """The classic signal, 142 samples at 49.75 Hz: angles, with the noise of Vint and Hinrichs (1996), in degrees."""

    seconds: np.ndarray
    truth: np.ndarray
    noisy: np.ndarray
    acceleration: np.ndarray  # rad/s^2

    @classmethod
    def read(cls) -> Pezzack:
        seconds, truth, noisy, acceleration = np.loadtxt(PEZZACK, skiprows=6).T
        return cls(seconds, np.degrees(truth), np.degrees(noisy), acceleration)

    def rts(self, values: np.ndarray, density: float) -> np.ndarray:
        """(T, 3) angles and derivatives; the density is in rad^2/s^5."""
        count = len(values)
        variances, densities = np.full((count, 1), 0.347**2), np.full(count, np.degrees(1) ** 2 * density)
        return rts(self.seconds[:count], series(values), variances, densities).states[:, 0, 0]

    def twice_derived(self, values: np.ndarray) -> np.ndarray:
        return np.radians(np.gradient(np.gradient(values, self.seconds), self.seconds))


def rms(found: np.ndarray, expected: np.ndarray) -> float:
    """Without the ends."""
    return float(np.sqrt(np.mean((found - expected)[5:-5] ** 2)))


@pytest.mark.skipif(not PEZZACK.exists(), reason="needs ../shared/clips")
def test_the_classic_signal_of_pezzack() -> None:
    """RMS errors of angles, degrees, and of accelerations, rad/s^2, that others computed of the same signal."""
    signal = Pezzack.read()
    of_filters = {cutoff: butterworth(signal.seconds, signal.noisy[:, None], cutoff)[:, 0] for cutoff in (5, 6, 10)}
    for angles, expected, of_acceleration in (
        (signal.noisy, 0.347, 10.4),
        (of_filters[5], 0.202, 4.76),
        (of_filters[6], 0.199, 4.77),
        (of_filters[10], 0.254, 7.3),
    ):
        assert rms(angles, signal.truth) == pytest.approx(expected, abs=0.001)
        assert rms(signal.twice_derived(angles), signal.acceleration) == pytest.approx(of_acceleration, abs=0.05)
    for density, expected, of_acceleration in ((1e3, 0.213, 4.58), (1e4, 0.205, 5.0)):
        states = signal.rts(signal.noisy, density)
        assert rms(states[:, 0], signal.truth) == pytest.approx(expected, abs=0.004)
        assert rms(np.radians(states[:, 2]), signal.acceleration) == pytest.approx(of_acceleration, abs=0.1)
    of_the_past = [signal.rts(signal.noisy[: n + 1], 1e4)[-1, 0] for n in range(len(signal.noisy))]
    assert rms(np.array(of_the_past), signal.truth) == pytest.approx(0.330, abs=0.001)
    causal = one_euro(signal.seconds, np.radians(signal.noisy)[:, None], 6, 3)[:, 0]
    assert rms(np.degrees(causal), signal.truth) == pytest.approx(2.4, abs=0.2)


@pytest.mark.skipif(not PEZZACK.exists(), reason="needs ../shared/clips")
def test_the_smoother_is_no_worse_than_a_polynomial_of_nine_frames() -> None:
    """Savitzky and Golay's, of degree 3, has errors of 0.201 degrees and 5.5 rad/s^2."""
    signal = Pezzack.read()
    step = float(np.mean(np.diff(signal.seconds)))
    polynomial = [savgol_filter(signal.noisy, 9, 3, deriv=order, delta=step) for order in (0, 2)]
    assert rms(polynomial[0], signal.truth) == pytest.approx(0.201, abs=0.001)
    of_acceleration = rms(np.radians(polynomial[1]), signal.acceleration)
    assert of_acceleration == pytest.approx(5.5, abs=0.05)
    states = signal.rts(signal.noisy, 1e4)
    assert rms(states[:, 0], signal.truth) < 0.201 + 0.005
    assert rms(np.radians(states[:, 2]), signal.acceleration) < of_acceleration


@pytest.mark.skipif(not PEZZACK.exists(), reason="needs ../shared/clips")
@pytest.mark.parametrize(
    ("seconds", "median", "most"), [(0.06, 0.5, 0.9), (0.2, 1.7, 4.6), (0.3, 2.9, 13.0)], ids=str
)  # fmt: skip
def test_gaps_of_the_classic_signal(seconds: float, median: float, most: float) -> None:
    """The largest error in a gap, degrees: median and 95th percentile over its positions.

    Up to 0.2 seconds the bounds are those of another smoother of the same kind. At 0.3 seconds it is the error of
    splines, and that of lines and of cubic pieces that keep the shape is larger.
    """
    signal = Pezzack.read()
    length = round(seconds * 49.75)
    errors: dict[str, list[float]] = {"rts": [], "pieces": []}
    for start in range(5, len(signal.noisy) - 5 - length):
        gap = slice(start, start + length)
        measured = np.ones(len(signal.noisy), bool)
        measured[gap] = False
        pieces = PchipInterpolator(signal.seconds[measured], signal.noisy[measured])(signal.seconds[gap])
        filled = signal.rts(np.where(measured, signal.noisy, np.nan), 1e4)[gap, 0]
        for name, values in (("rts", filled), ("pieces", pieces)):
            errors[name].append(float(np.abs(values - signal.truth[gap]).max()))
    assert np.median(errors["rts"]) < min(median, float(np.median(errors["pieces"])))
    assert np.percentile(errors["rts"], 95) < min(most, float(np.percentile(errors["pieces"], 95)))
