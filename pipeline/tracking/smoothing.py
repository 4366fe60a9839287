"""Filters of joint positions over time. Frames may be unevenly spaced; nan means that a joint was not measured.

The default is a Kalman filter with the smoother of Rauch, Tung and Striebel (AIAA Journal 3, 1965): it fills gaps, does
not lag, and states a standard deviation. The others are Butterworth's, run in both directions, and the 1 Euro filter
(Casiez et al., CHI 2012), which uses the past alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_UNKNOWN = np.diag([1e6, 1e8, 1e10])  # covariance of a state that nothing is known about, in measured variances
_TAILS = 4.0  # degrees of freedom of the errors of measurements: few, so that far ones are common
_ROUNDS = 20  # of expectation and maximization, at most
_SETTLED = 0.05  # relative change of a factor at which they end
_VARIANCE_RANGE = (1 / 256, 16.0)  # of the factor that is found
_FORGOTTEN = 1.0  # seconds without a measurement after which nothing is known of a series
_STRAY = 0.1  # a measurement with a smaller weight hardly counts
_TWO_PASSES = (2**0.5 - 1) ** 0.25  # a second-order filter that runs twice has its cut-off at this share of its own


class Smoothed(NamedTuple):
    """Filtered series.

    Attributes:
        states: (T, N, D, 3) value, first and second derivative by time.
        std: (T, N) standard deviation of each coordinate of the value.
    """

    states: np.ndarray
    std: np.ndarray


class _Filtered(NamedTuple):
    """The forward pass: at each step the predicted and the updated states (N, D, 3) and covariances (N, 3, 3)."""

    predicted: np.ndarray
    predicted_covariances: np.ndarray
    updated: np.ndarray
    updated_covariances: np.ndarray


def rts(seconds: np.ndarray, values: np.ndarray, variances: np.ndarray, density: np.ndarray) -> Smoothed:
    """Smooth series under a model of constant acceleration: its derivative is white noise.

    Args:
        seconds: (T,) increasing.
        values: (T, N, D) measurements; the D coordinates of a series share their variance; nan where not measured.
        variances: (T, N) of the measurements of each coordinate.
        density: (T,) spectral density of the third derivative, value^2 / s^5.
    """
    forward = _filter(seconds, values, variances, density)
    states, covariances = forward.updated.copy(), forward.updated_covariances.copy()
    for t in range(len(seconds) - 2, -1, -1):
        transition = _transition(seconds[t + 1] - seconds[t])
        ahead = forward.predicted_covariances[t + 1]
        gain = np.linalg.solve(ahead, transition @ covariances[t]).swapaxes(1, 2)
        states[t] += (states[t + 1] - forward.predicted[t + 1]) @ gain.swapaxes(1, 2)
        covariances[t] += gain @ (covariances[t + 1] - ahead) @ gain.swapaxes(1, 2)
    return Smoothed(states, np.sqrt(np.maximum(covariances[..., 0, 0], 0)))


def robust_rts(
    seconds: np.ndarray, values: np.ndarray, variances: np.ndarray, density: np.ndarray
) -> tuple[Smoothed, np.ndarray]:
    """Smooth series whose measurements are sometimes far off, and whose variances are known up to a factor.

    Errors have a t distribution with 4 degrees of freedom: far measurements get small weights. The weights, and the
    factor of the variances of each series, are found by expectation and maximization (Lange, Little and Taylor, JASA
    84, 1989; with the divisor of Kent, Tyler and Vardi, Communications in Statistics 23, 1994). Arguments as `rts`.

    Returns:
        The smoothed series, and (T, N) bool, whether a measurement exists and is not stray.
    """
    coordinates = values.shape[2]
    measured = ~np.isnan(values).any(axis=2)
    weights, factors = np.ones(measured.shape), np.ones(measured.shape[1])
    for _ in range(_ROUNDS):
        smoothed = rts(seconds, values, factors * variances / weights, density)
        residuals = ((values - smoothed.states[..., 0]) ** 2).sum(axis=2) + coordinates * smoothed.std**2
        squared = np.where(measured, residuals, 0.0) / variances  # expected, under what is known of the true values
        total = np.where(measured, weights, 0.0).sum(axis=0)  # not their number: so it converges faster
        before = factors
        factors = np.clip((weights * squared).sum(axis=0) / np.maximum(coordinates * total, 1e-9), *_VARIANCE_RANGE)
        weights = (_TAILS + coordinates) / (_TAILS + squared / factors)
        if (np.abs(factors - before) < _SETTLED * before).all():
            break
    return rts(seconds, values, factors * variances / weights, density), measured & (weights > _STRAY)


def _filter(seconds: np.ndarray, values: np.ndarray, variances: np.ndarray, density: np.ndarray) -> _Filtered:
    """The Kalman filter."""
    steps, count, coordinates = values.shape
    measured = ~np.isnan(values).any(axis=2)
    first = measured.argmax(axis=0)
    state = np.zeros((count, coordinates, 3))
    state[..., 0] = np.nan_to_num(values[first, np.arange(count)])
    unknown = variances.mean(axis=0)[:, None, None] * _UNKNOWN
    covariance = unknown
    unseen = np.zeros(count)
    kept = _Filtered(*(np.zeros((steps, count, *shape)) for shape in ((coordinates, 3), (3, 3)) * 2))
    for t in range(steps):
        if t:
            step = seconds[t] - seconds[t - 1]
            transition = _transition(step)
            unseen += step
            forgotten = (unseen > _FORGOTTEN)[:, None, None]
            state = np.where(forgotten, state * [1, 0, 0], state @ transition.T)  # stays where it is
            covariance = transition @ covariance @ transition.T + density[t] * _process_noise(step)
            covariance = np.where(forgotten, unknown, covariance)
        kept.predicted[t], kept.predicted_covariances[t] = state, covariance
        innovation = np.where(measured[t][:, None], values[t] - state[..., 0], 0.0)
        gain = covariance[:, :, 0] / (covariance[:, 0, 0] + variances[t])[:, None] * measured[t][:, None]
        state = state + innovation[..., None] * gain[:, None]
        covariance = covariance - gain[:, :, None] * covariance[:, None, 0]
        unseen = np.where(measured[t], 0.0, unseen)
        kept.updated[t], kept.updated_covariances[t] = state, covariance
    return kept


def _transition(step: float) -> np.ndarray:
    return np.array([[1.0, step, step**2 / 2], [0.0, 1.0, step], [0.0, 0.0, 1.0]])


def _process_noise(step: float) -> np.ndarray:
    """Covariance that white noise of density 1 in the third derivative adds to a state in a step."""
    h = step
    return np.array([[h**5 / 20, h**4 / 8, h**3 / 6], [h**4 / 8, h**3 / 3, h**2 / 2], [h**3 / 6, h**2 / 2, h]])


def butterworth(seconds: np.ndarray, values: np.ndarray, cutoff: float) -> np.ndarray:
    """A second-order low pass that runs forwards and backwards: fourth order, without lag.

    Args:
        seconds: (T,) increasing; uneven steps are resampled to even ones of the mean length.
        values: (T, ...) without nan.
        cutoff: frequency in Hz at which half of the power passes; at or above half the frame rate nothing is filtered.
    """
    from scipy.signal import butter, sosfiltfilt  # imported here: runs without videos need not wait for it

    duration = seconds[-1] - seconds[0]
    rate = (len(seconds) - 1) / duration if duration > 0 else 0.0
    own = cutoff / _TWO_PASSES
    if own >= rate / 2:
        return values
    even = np.linspace(seconds[0], seconds[-1], len(seconds))
    series = values.reshape(len(seconds), -1)
    resampled = np.column_stack([np.interp(even, seconds, column) for column in series.T])
    padding = min(len(seconds) - 1, round(rate))
    filtered = sosfiltfilt(butter(2, own, fs=rate, output="sos"), resampled, axis=0, padlen=padding)
    return np.column_stack([np.interp(seconds, even, column) for column in filtered.T]).reshape(values.shape)


def one_euro(seconds: np.ndarray, values: np.ndarray, cutoff: float, beta: float) -> np.ndarray:
    """The 1 Euro filter: a low pass of the past alone, whose cut-off rises with the speed.

    Args:
        seconds: (T,) increasing.
        values: (T, N) without nan.
        cutoff: Hz, at rest.
        beta: by how much the cut-off rises, Hz for each unit of the speed.
    """
    filtered = np.array(values, np.float64)
    speed = np.zeros(values.shape[1:])
    for t in range(1, len(seconds)):
        step = max(seconds[t] - seconds[t - 1], 1e-6)
        speed += _low_pass(1.0, step) * ((values[t] - values[t - 1]) / step - speed)
        filtered[t] = filtered[t - 1] + _low_pass(cutoff + beta * np.abs(speed), step) * (values[t] - filtered[t - 1])
    return filtered


def running_median(seconds: np.ndarray, values: np.ndarray, reach: float) -> np.ndarray:
    """(T,) medians of the values (T,) within `reach` seconds on both sides; nan values do not count."""
    first = np.searchsorted(seconds, seconds - reach)
    last = np.searchsorted(seconds, seconds + reach, side="right")
    known = [values[a:b][~np.isnan(values[a:b])] for a, b in zip(first, last, strict=True)]
    return np.array([np.median(window) if len(window) else np.nan for window in known])


def _low_pass(cutoff: np.ndarray | float, step: float) -> np.ndarray:
    """The share of a new value that an exponential low pass takes in."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * cutoff * step)))


def true_runs(mask: np.ndarray) -> list[slice]:
    """Where (T,) bool is true: a slice for each run of frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [slice(start, end) for start, end in edges.reshape(-1, 2)]
