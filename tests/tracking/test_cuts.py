"""Cuts between scenes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from support.paths import SHARED
from support.video_runs import make_run, video
from support.videos import moving

from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.cuts import find_cuts, thumbnail
from pipeline.tracking.tables import write_tracks

CLIPS = SHARED / "clips"


def test_a_cut_is_the_first_frame_of_another_scene() -> None:
    random = np.random.default_rng(0)
    scenes = [np.full((90, 160, 3), colour, np.uint8) for colour in (40, 120, 60)]
    frames = [scene + random.integers(0, 8, scene.shape, np.uint8) for scene in scenes for _ in range(12)]
    found = find_cuts([thumbnail(pixels) for pixels in frames])
    assert np.flatnonzero(found).tolist() == [12, 24]


def test_a_camera_that_moves_and_frames_that_are_missing_are_no_cuts() -> None:
    pan = [np.roll(np.kron(np.eye(2, dtype=np.uint8) * 200, np.ones((90, 80), np.uint8)), 16 * i, 1) for i in range(30)]
    thumbnails: list[bytes | None] = [thumbnail(np.repeat(p[..., None], 3, axis=2)) for p in pan]
    assert not find_cuts(thumbnails).any()
    slow: list[bytes | None] = [thumbnail(pixels) for pixels in moving(20)]
    slow[5:8] = [None] * 3
    assert not find_cuts(slow).any()
    assert find_cuts([]).tolist() == []
    assert find_cuts([None, slow[0], None]).tolist() == [False] * 3


def test_a_flash_is_no_cut() -> None:
    frames = [np.full((90, 160, 3), 200 if i == 15 else 80, np.uint8) for i in range(30)]
    assert not find_cuts([thumbnail(pixels) for pixels in frames]).any()


def test_frames_of_any_size_have_thumbnails() -> None:
    for shape in ((1, 1, 3), (7, 2000, 3), (2000, 7, 3), (65, 64, 3)):
        assert len(thumbnail(np.zeros(shape, np.uint8))) == 16 * 9 * 3


def test_tracks_end_at_cuts(tmp_path: Path) -> None:
    images = video("a.mp4", range(20), 100)
    for number, (row, _) in enumerate(images):
        row.thumbnail = bytes([20 if number < 12 else 200] * 16 * 9 * 3)
    totals = write_tracks(make_run(tmp_path, images), TrackingSettings(), reuse=False)
    assert totals is not None
    assert totals.tracks == 2


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs ../shared/clips")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("bikes.mp4", [30, 76, 137, 187, 242]), ("sports2d-demo.mp4", []), ("pose2sim-multi-cam01.mp4", [])],
)
def test_the_cuts_of_real_clips(name: str, expected: list[int]) -> None:
    """As PySceneDetect's content detector finds them; a lens flare in the second clip is none."""
    with av.open(str(CLIPS / name)) as container:
        thumbnails = [thumbnail(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert np.flatnonzero(find_cuts(thumbnails)).tolist() == expected
