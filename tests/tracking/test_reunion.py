"""People who leave and come back get their number back if they look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.video_runs import make_run, video
from tracking.test_association import SIGMAS, frame

from pipeline.errors import UserError
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.association import track_people
from pipeline.tracking.frames import FramePeople
from pipeline.tracking.tables import write_tracks

RED, BLUE = np.array([1.0, 0.0, 0.1]), np.array([0.0, 1.0, 0.1])


def seen(t: float, x: float, looks: np.ndarray, height: float = 200.0) -> FramePeople:
    random = np.random.default_rng(int(1000 * t))
    vector = looks + random.normal(0, 0.05, 3)
    return frame(t, (x, 50), height=height)._replace(looks=(vector / np.linalg.norm(vector))[None])


def back(after: float = 3.0, x: float = 300.0, looks: np.ndarray = RED, height: float = 200.0) -> list[FramePeople]:
    """A red person for a second at x = 100, and someone again after some seconds."""
    frames = [seen(t, 100, RED) for t in np.arange(0, 1, 0.1)]
    return frames + [seen(t, x, looks, height) for t in np.arange(1 + after, 2 + after, 0.1)]


def numbers(frames: list[FramePeople], seconds: float = 5.0) -> list[int]:
    found = track_people(frames, SIGMAS, TrackingSettings(reunite=seconds))
    return sorted({int(i) for ids in found for i in ids})


def test_a_person_who_comes_back_has_the_same_number() -> None:
    assert numbers(back()) == [1]
    assert numbers(back(), seconds=0.0) == [1, 2]


@pytest.mark.parametrize(
    "changed",
    [
        {"looks": BLUE},
        {"after": 6.0},  # later than allowed
        {"x": 3000.0},  # 14.5 heights in three seconds
        {"height": 320.0},  # more than half as high again
    ],
)
def test_others_have_a_number_of_their_own(changed: dict) -> None:
    assert numbers(back(**changed)) == [1, 2]


def test_a_cut_in_between_and_people_at_the_same_time() -> None:
    frames = back()
    frames[10] = frames[10]._replace(first_of_scene=True)
    assert numbers(frames) == [1, 2]
    both = [
        FramePeople(
            f.seconds, *(np.concatenate([a, b]) for a, b in zip(f[1:5], g[1:5], strict=True)),
            looks=np.concatenate([f.looks, g.looks]),
        )
        for t in np.arange(0, 2, 0.1)
        for f, g in [(seen(t, 100, RED), seen(t, 600, RED))]
    ]  # fmt: skip
    assert numbers(both) == [1, 2]


def test_the_most_alike_come_first() -> None:
    """Two people leave, and one comes back."""
    frames = []
    for t in np.arange(0, 1, 0.1):
        red, other = seen(t, 100, RED), seen(t, 400, RED + 0.3 * BLUE)
        frames.append(
            FramePeople(
                t, *(np.concatenate([a, b]) for a, b in zip(red[1:5], other[1:5], strict=True)),
                looks=np.concatenate([red.looks, other.looks]),
            )
        )  # fmt: skip
    frames += [seen(t, 250, RED + 0.3 * BLUE) for t in np.arange(3, 4, 0.1)]
    found = track_people(frames, SIGMAS, TrackingSettings(reunite=5))
    assert found[-1].tolist() == [2]


def test_a_run_without_appearances_says_what_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path, video("a.mp4", range(10), 100))
    with pytest.raises(UserError, match=r"--tracking.reunite needs appearances; .* without --output.appearance"):
        write_tracks(run, TrackingSettings(reunite=5), reuse=False)
