"""Drawn videos, and what a page says about videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser
from support.browser import needs_chromium, opened
from support.video_runs import gait, make_clip_run, make_run, photo, video, walkers
from support.videos import moving, write_clip

from jobs.evaluate import main as evaluate
from jobs.reduce import main as reduce
from pipeline.people import People
from pipeline.report.draw import draw_run, track_colour
from pipeline.report.videos import draw_videos, drawn_uri
from pipeline.run import Run
from pipeline.settings.tree import TrackingSettings
from pipeline.tracking.tables import write_tracks

STAMPS = [*range(20), *range(24, 44)]  # a pause of five thirtieths in the middle


def small(left: float) -> People:
    """A person of 15 x 45 pixels."""
    large = walkers(0)
    return People((large.boxes - [0, 50, 0, 50]) / 4 + [left, 8, left, 8], *(
        [large.box_scores, (large.keypoints - [0, 50]) / 4 + [left, 8], large.keypoint_scores, large.pose_scores]
    ))  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A black clip of odd size with a person who walks to the right, and another clip."""
    (tmp_path / "in").mkdir()
    black = [np.zeros((64, 96, 3), np.uint8)] * len(STAMPS)
    write_clip(tmp_path / "in" / "a.mp4", black, options={"g": "10"}, stamps=STAMPS)
    write_clip(tmp_path / "in" / "b.mkv", moving(12), options={"g": "10"})
    made = make_clip_run(
        tmp_path,
        {"a.mp4": [small(5 + 1.5 * stamp) for stamp in STAMPS], "b.mkv": [People.empty(17)] * 12},
    )
    write_tracks(made, TrackingSettings(), reuse=False)
    return made


def read(path: str) -> list[tuple[float, np.ndarray]]:
    with av.open(path) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_a_drawn_video_has_the_times_of_the_original_and_people_in_their_places(run: Run) -> None:
    uris = draw_videos(run, 5)
    assert uris == [drawn_uri(run, "a.mp4"), drawn_uri(run, "b.mkv")]
    frames = read(uris[0])
    np.testing.assert_allclose([time for time, _ in frames], np.array(STAMPS) / 30, atol=1e-6)
    for stamp, (_, pixels) in zip(STAMPS, frames, strict=True):
        assert pixels.shape == (64, 96, 3)
        left = 5 + 1.5 * stamp
        lit = np.flatnonzero(pixels[30].max(axis=1) > 90)
        assert left - 3 <= lit.min() <= left + 3, "the left side of the box"
        assert lit.max() <= left + 15 + 4
    edge = frames[10][1][40, 20].astype(float)
    assert np.corrcoef(edge, track_colour(1))[0, 1] > 0.9, "a box has the colour of its track"
    trail = frames[30][1][53:57].max(axis=2)
    assert (trail[:, 20:45].max(axis=0) > 60).mean() > 0.8, "where it was in the second before"
    assert len(read(uris[1])) == 12


def test_only_as_many_videos_as_wished_and_no_pictures_of_frames(run: Run) -> None:
    assert draw_videos(run, 1) == [drawn_uri(run, "a.mp4")]
    assert draw_run(run, 3) == []


def test_frames_that_failed_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_clip(tmp_path / "in" / "a.mp4", moving(30), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][14]
        place, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[place + 4 : place + size] = bytes(size - 4)
    path.write_bytes(data)
    run = make_clip_run(tmp_path, {"a.mp4": [small(5)] * 30})
    write_tracks(run, TrackingSettings(), reuse=False)
    (uri,) = draw_videos(run, 1)
    np.testing.assert_allclose(
        [time for time, _ in read(uri)], [i / 30 for i in range(30) if not 10 <= i < 20], atol=1e-6
    )


def test_sequences_beside_videos_are_not_drawn_and_do_not_disturb(tmp_path: Path) -> None:
    """A sequence that comes before the video, and has tracks."""
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "b.mp4", [np.zeros((64, 96, 3), np.uint8)] * 20, options={"g": "10"})
    made = make_clip_run(tmp_path, {"b.mp4": [small(20)] * 20})
    sequence = make_run(tmp_path / "other", [(row, p) for row, p in video("a", range(20), 30)])
    for path in (tmp_path / "other" / "run" / "tables").rglob("*.parquet"):
        kind = path.parent.name
        target = next((tmp_path / "run" / "tables" / kind).iterdir())
        rows = pq.read_table(path, use_threads=False)
        if kind == "images":
            rows = rows.set_column(rows.column_names.index("pts"), "pts", pa.nulls(len(rows), pa.int64()))
        both = pa.concat_tables([rows.replace_schema_metadata(), pq.read_table(target).replace_schema_metadata()])
        pq.write_table(both.replace_schema_metadata(pq.read_schema(target).metadata), target)
    assert sequence.uri != made.uri
    write_tracks(made, TrackingSettings(), reuse=False)
    (uri,) = draw_videos(made, 3)
    assert all(pixels.max() > 100 for _, pixels in read(uri)), "people are drawn"


def test_videos_of_other_tracks_are_deleted(run: Run) -> None:
    draw_videos(run, 1)
    write_tracks(run, TrackingSettings(), reuse=True)
    assert run.drawn_videos() == [drawn_uri(run, "a.mp4")]
    write_tracks(run, TrackingSettings(memory=3), reuse=True)
    assert run.drawn_videos() == []


def test_a_run_without_videos_draws_none(tmp_path: Path) -> None:
    run = make_run(tmp_path, [photo("0.jpg")])
    assert draw_videos(run, 3) == []


@needs_chromium
def test_the_page_shows_videos_tracks_angles_and_events(browser: Browser, tmp_path: Path) -> None:
    frames = gait(75)
    frames[40][0].status, frames[40] = "unreadable", (frames[40][0], walkers())
    run = make_run(tmp_path, [photo("0.jpg")], frames, video("quiet.mp4", range(5)))
    assert reduce([run.uri, "--motion"]) == 0
    assert evaluate([run.uri, "--report"]) == 0
    page = opened(browser, Path(run.uri) / "report.html")
    section = page.locator("#videos ~ h3")
    assert {"walk.mp4", "quiet.mp4"} <= set(section.all_inner_texts())
    text = page.locator("main").inner_text()
    assert "of the joint angles have a standard error below 3 degrees" in text
    captions = page.locator("figcaption").all_inner_texts()
    assert "People over time" in captions
    assert any(caption.startswith("Tracks over time") for caption in captions)
    assert any(caption.startswith("Track 1: joint angles") for caption in captions)
    labels = [svg.get_attribute("aria-label") or "" for svg in page.locator(".chart svg").all()]
    assert any("left knee flexion" in label for label in labels)
    assert "heel strike" in text
    assert page.locator("video").count() == 0, "nothing was drawn"
