import numpy as np
import pytest

from pipeline.tracking.box_motion import BoxMotion


@pytest.mark.parametrize("step", [0.02, 0.1])
def test_a_box_with_constant_velocity_is_predicted(step: float) -> None:
    """Whatever the frame rate: from 1.2 seconds of it, half a second ahead, to a twentieth of its height."""

    def box(t: float) -> np.ndarray:
        return np.array([100 + 200 * t, 50 - 40 * t, 180 + 200 * t, 250 - 40 * t])

    motion = BoxMotion(box(0), 0.0)
    for t in np.arange(step, 1.2, step):
        motion.update(box(t), t)
    last = motion.seconds
    predicted, variance = motion.predict(last + 0.5)
    np.testing.assert_allclose(predicted, box(last + 0.5), atol=10)
    assert variance > motion.predict(last + 0.1)[1]


def test_the_filter_equals_one_written_with_matrices() -> None:
    """The textbook equations (Kalman 1960) for one coordinate."""
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(0.02, 0.2, 20))
    centres = 300 + 50 * times + random.normal(0, 5, 20)
    height = 200.0
    motion = BoxMotion(np.array([centres[0] - 40, 0, centres[0] + 40, height]), times[0])
    x = np.array([[centres[0]], [0.0]])
    p = np.diag([(0.1 * height) ** 2, (1.875 * height) ** 2])
    h, r = np.array([[1.0, 0.0]]), (0.1 * height) ** 2
    for before, now, centre in zip(times, times[1:], centres[1:], strict=False):
        t = now - before
        f = np.array([[1, t], [0, 1]])
        q = 0.052734375 * height**2 * np.array([[t**3 / 3, t**2 / 2], [t**2 / 2, t]])
        x, p = f @ x, f @ p @ f.T + q
        k = p @ h.T / (h @ p @ h.T + r)
        x, p = x + k * (centre - (h @ x)), (np.eye(2) - k @ h) @ p
        motion.update(np.array([centre - 40, 0, centre + 40, height]), now)
        predicted, variance = motion.predict(now)
        assert predicted[[0, 2]].mean() == pytest.approx(x[0, 0])
        assert variance == pytest.approx(p[0, 0])
