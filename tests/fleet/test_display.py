"""The numbers of the progress display."""

from pipeline.fleet import display as module
from pipeline.fleet.display import Display
from pipeline.run.progress import Progress


def test_rates_and_times_are_never_negative(monkeypatch) -> None:
    """The images of a worker that dies count no more."""
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    display = Display()
    display.begin(100, 0, 10, 0)
    clock[0] += 5
    display.in_flight([Progress(20, 9, {"ok": 20})])
    display.in_flight([Progress(100, 40, {"ok": 100})])
    assert display._parts()[1] == "0:00 left"
    clock[0] += 5
    display.in_flight([])
    assert display.images_per_second == 0
    assert display._parts()[:3] == ["0/100 images", "? left", "0.0 images/s"]
    clock[0] += 5
    display.in_flight([Progress(90, 30, {"ok": 90}), Progress(90, 30, {"ok": 90})])  # retried by two workers
    parts = display._parts()
    assert parts[0] == "100/100 images"
    assert parts[1] == "0:00 left"
    assert not any("-" in part for part in parts)


def test_people_of_earlier_sessions_count_once_their_parts_are_read() -> None:
    display = Display()
    display.begin(100, 20, 10, 2)
    display.in_flight([Progress(5, 3, {"ok": 5})])
    assert display._parts()[:1] == ["25/100 images"]
    assert "3 people since the restart" in display._parts()
    display.count_before(40)
    assert "43 people" in display._parts()


def test_quarantined_shards_are_counted_for_people_and_dashboards(monkeypatch) -> None:
    values: list[float] = []
    display = Display()
    monkeypatch.setattr(display._metrics.quarantined, "set", values.append)
    display.begin(100, 0, 10, 0)
    for number in (1, 2):
        display.shard_quarantined(f"{number:08d}", "failed 6 times")
    assert values == [0, 1, 2]
    assert "2 shards in quarantine" in display._parts()


def test_seconds_of_video_per_second_are_shown_where_there_are_videos(monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    display = Display()
    display.begin(1000, 0, 10, 0, "frames")
    display.in_flight([Progress(10, video_seconds=1.0)])
    assert not any("video" in part for part in display._parts())
    clock[0] += 20
    display.in_flight([Progress(60, video_seconds=6.0), Progress(50, video_seconds=5.0)])
    assert display._parts()[2:4] == ["5.0 frames/s", "0.50 s of video/s"]
    assert display._parts()[0] == "110/1000 frames"


def test_the_profile_says_how_long_the_device_of_each_worker_computed() -> None:
    display = Display()
    display.report(Progress(seconds={"wait for images": 2.0, "poses": 6.0, "decode": 9.0, "compute": 6.0}), worker=1)
    display.report(Progress(seconds={"detect": 3.0, "crop": 1.0, "compute": 1.0}), worker=2)
    display.report(Progress(seconds={"write": 5.0}), worker=3)  # it has not used its networks yet
    profile = display.profile()
    assert profile.caption == "share of its time in which the device of a worker computed networks: 25% to 75%"
    cells = list(zip(*(list(column.cells) for column in profile.columns), strict=True))
    assert ("device", "compute", "7.0", "7000.0", "58%") in cells
