"""Every frame of a video is one item: none is lost, repeated or wrong, however the video is cut."""

from __future__ import annotations

import contextlib
import gc
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from support.paths import PROJECT, SHARED
from support.sources import tar_bytes
from support.videos import CLIPS, decoded, index_first, moving, write_clip
from support.web import Ranges

from pipeline import storage
from pipeline.errors import UserError
from pipeline.images import DecodeLimits, ImageRefused, has_video_signature, upright
from pipeline.settings.flags import parse_settings
from pipeline.settings.tree import InputSettings
from pipeline.sources import Item, Manifest, plan_collection, read_items, read_shard, shard_keys, write_manifest
from pipeline.sources.shard import frame_of_sequence
from pipeline.sources.video.container import all_packets, open_video
from pipeline.sources.video.ffmpeg import logged_errors

FRAMES = 45


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos of 45 frames, in several containers and codecs."""
    folder = tmp_path_factory.mktemp("clips")
    for name, (codec, options) in CLIPS.items():
        write_clip(folder / name, moving(FRAMES), codec, options)
    return folder


def read(path: str | Path, size: int = 1000, **video: object) -> list[Item]:
    """The items of all shards of a video."""
    settings = InputSettings.model_validate({"uri": str(path), "shard_size": size, "video": video})
    return [item for i, shard in enumerate(plan_collection(settings)) for item in read_shard(shard.at(i))]


def pixels_or_error(item: Item) -> np.ndarray | str:
    if item.status != "ok":
        return str(item.error)
    try:
        return item.decode(DecodeLimits()).pixels
    except ImageRefused as refused:
        return f"{refused.status}: {refused}"


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
@pytest.mark.parametrize("name", CLIPS)
def test_the_shards_hold_the_frames_of_sequential_decoding(name: str, size: int, clips: Path) -> None:
    expected = decoded(clips / name)
    assert len(expected) == FRAMES
    items = read(clips / name, size)
    assert [item.key for item in items] == [f"{name}/{number:09d}" for number in range(FRAMES)]
    assert [item.position.frame for item in items] == list(range(FRAMES))
    if not name.endswith((".avi", ".mpg")):  # AVI has no time stamps of presentation, MPEG-PS not for all frames
        assert [item.position.pts for item in items] == [stamp for stamp, _ in expected]
    seconds = np.array([item.position.seconds for item in items])
    assert 0 <= seconds[0] <= (0.034 if name == "h264.avi" else 0)  # AVI states a delay of one frame
    np.testing.assert_allclose(seconds - seconds[0], np.arange(FRAMES) / 30, atol=6e-4)
    for item, (_, pixels) in zip(items, expected, strict=True):
        np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)


def test_a_video_is_cut_at_key_frames(clips: Path) -> None:
    """Also without a header that counts the frames, and on object storage."""
    for name in ("h264.mp4", "h264.ts"):
        planned = list(plan_collection(InputSettings(uri=str(clips / name), shard_size=20)))
        assert [shard.num_images for shard in planned] == [20, 20, 5]
        assert [shard.video.first_packet for shard in planned] == [0, 20, 40]
        assert [shard.video.anchor is None for shard in planned] == [True, True, False]
    assert len(list(plan_collection(InputSettings(uri=str(clips / "h264.mp4"), shard_size=1)))) == 5


@pytest.mark.parametrize("name", CLIPS)
def test_a_shard_is_not_read_from_the_start_of_its_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a thousand shards of a long video would read it five hundred times."""
    codec, options = CLIPS[name]
    write_clip(tmp_path / name, moving(400), codec, options)
    *_, last = plan_collection(InputSettings(uri=str(tmp_path / name), shard_size=10))
    packets = []

    def counted(*source: object) -> Iterator[object]:
        for packet in all_packets(*source):
            packets.append(packet)
            yield packet

    monkeypatch.setattr("pipeline.sources.video.container.all_packets", counted)
    items = list(read_shard(last.at(0)))
    assert [item.position.frame for item in items] == list(last.video.frames)
    assert len(packets) < 200
    for item, (_, pixels) in zip(items, decoded(tmp_path / name)[-len(items) :], strict=True):
        np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv"])
def test_a_shard_of_a_video_on_a_web_server_is_not_all_of_it(name: str, tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    noise = [r.integers(0, 255, (240, 320, 3), np.uint8) for _ in range(250)]
    write_clip(tmp_path / name, noise, options=CLIPS[name][1] | {"qp": "10"})
    size = (tmp_path / name).stat().st_size
    assert size > 20e6
    handler = type("Handler", (Ranges,), {"sent": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        planned = list(plan_collection(InputSettings(uri=url, shard_size=10)))
        handler.sent = 0
        for shard in (planned[len(planned) // 2], planned[-1]):
            assert len(list(read_shard(shard.at(0)))) == shard.num_images
        assert handler.sent < 0.8 * size, "of both together"
        server.shutdown()


def test_counts_and_rates_of_the_header_are_not_trusted(tmp_path: Path) -> None:
    """AVI states both twice: the frames of the file, and those of the stream."""
    path = write_clip(tmp_path / "a.avi", moving(FRAMES), *CLIPS["mpeg4.avi"])
    data = bytearray(path.read_bytes())
    main, stream = data.index(b"avih") + 8, data.index(b"strh") + 8
    for place in (main + 16, stream + 32):
        assert int.from_bytes(data[place : place + 4], "little") == FRAMES
        data[place : place + 4] = (7).to_bytes(4, "little")
    path.write_bytes(data)
    items = read(path, 10)
    assert [item.position.frame for item in items] == list(range(FRAMES))
    for item, (_, pixels) in zip(items, decoded(path), strict=True):
        np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [((-1, 0, 0, 1), 2), ((1, 0, 0, -1), 4), ((0, 1, 1, 0), 5), ((0, -1, -1, 0), 7), ((0, 1, -1, 0), 6)],
)
def test_a_mirrored_video_is_upright(matrix: tuple[int, ...], orientation: int, tmp_path: Path) -> None:
    """As an image with the EXIF orientation of the same number would be."""
    path = write_clip(tmp_path / "a.mp4", moving(5))
    plain = decoded(path)
    unit = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in matrix)
    data = path.read_bytes()
    track = data.index(unit, data.index(b"tkhd"))
    path.write_bytes(data[:track] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[track + len(unit) :])
    for item, (_, pixels) in zip(read(path), plain, strict=True):
        image = item.decode(DecodeLimits())
        assert image.orientation == orientation
        np.testing.assert_array_equal(image.pixels, upright(pixels, orientation))


def test_a_picture_of_the_cover_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=30)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"  # larger than the video
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(black.reformat(format="yuvj420p")))
        for pixels in moving(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
    items = read(tmp_path / "a.mp4")
    assert [item.decode(DecodeLimits()).pixels.shape for item in items] == [(64, 96, 3)] * 5


def test_a_search_that_leads_elsewhere_is_noticed(clips: Path) -> None:
    """The time stamps of a file may repeat, and FFmpeg may find other ones: then it is read from its start."""
    once = (clips / "h264.ts").read_bytes()
    (clips.parent / "twice.ts").write_bytes(once * 2)
    whole, parts = read(clips.parent / "twice.ts"), read(clips.parent / "twice.ts", 10)
    assert [item.position for item in parts] == [item.position for item in whole]
    assert len(whole) == 2 * FRAMES
    expected = [pixels_or_error(item) for item in whole]
    assert sum(isinstance(pixels, str) for pixels in expected) == 5, "the group before the joint"
    for item, pixels in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(pixels_or_error(item), pixels)
    planned = list(plan_collection(InputSettings(uri=str(clips.parent / "twice.ts"), shard_size=10)))
    assert {shard.video.anchor for shard in planned} == {None}

    *_, last = plan_collection(InputSettings(uri=str(clips / "h264.ts"), shard_size=10))
    other = replace(last, video=replace(last.video, digest=1))
    stamps = [item.position for item in read_shard(last.at(0))]
    assert [item.position for item in read_shard(other.at(0))] == stamps


def test_several_shards_share_a_long_group(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that several workers annotate a video with few key frames."""
    monkeypatch.setattr("pipeline.sources.video.plan._LONG_GROUP", 8)
    write_clip(clips.parent / "long.mp4", moving(FRAMES), options={"g": "1000", "bf": "3"})
    planned = list(plan_collection(InputSettings(uri=str(clips.parent / "long.mp4"))))
    assert [shard.num_images for shard in planned] == [7, 8, 7, 8, 7, 8]
    assert len({shard.at(i).id for i, shard in enumerate(planned)}) == 6
    items = read(clips.parent / "long.mp4")
    assert [item.position.frame for item in items] == list(range(FRAMES))
    for item, (stamp, pixels) in zip(items, decoded(clips.parent / "long.mp4"), strict=True):
        assert item.position.pts == stamp
        np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)
    few = plan_collection(InputSettings.model_validate({"uri": str(clips.parent / "long.mp4"), "video": {"every": 9}}))
    assert [shard.num_images for shard in few] == [5]


def test_items_may_be_decoded_in_any_order_and_late(clips: Path) -> None:
    items = read(clips / "open.mp4")
    expected = decoded(clips / "open.mp4")
    for number in np.random.default_rng(0).permutation(FRAMES):
        np.testing.assert_array_equal(items[number].decode(DecodeLimits()).pixels, expected[number][1])


def test_a_group_that_is_too_large_to_keep_is_decoded_twice(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = []

    @contextlib.contextmanager
    def counted() -> Iterator[list[str]]:
        with logged_errors() as messages:
            packets.append(1)
            yield messages

    monkeypatch.setattr("pipeline.sources.video.group._KEPT_BYTES", 5 * 96 * 64)
    monkeypatch.setattr("pipeline.sources.video.group.logged_errors", counted)
    for item, (_, pixels) in zip(read(clips / "h264.mp4"), decoded(clips / "h264.mp4"), strict=True):
        np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)
    assert len(packets) <= 2 * FRAMES + 20, "not once for each frame"


def test_frames_are_freed_without_the_garbage_collector(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    gc.disable()
    try:
        for kept in (128 << 20, 0):  # bytes of a group's frames
            monkeypatch.setattr("pipeline.sources.video.group._KEPT_BYTES", kept)
            for item in read(clips / "h264.mp4", size=5):
                item.decode(DecodeLimits())
            del item
        alive = Counter(type(thing).__name__ for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive["SideDataContainer"] <= 20, "one for each shard, not for each frame"
    assert alive["GroupOfPictures"] == 0


def test_a_manifest_keeps_the_shards_and_items_are_read_by_key(clips: Path, tmp_path: Path) -> None:
    planned = list(plan_collection(InputSettings(uri=str(clips), shard_size=20)))
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(uri, planned)
    assert Manifest(uri).only_frames
    shards = list(Manifest(uri).shards())
    assert shards == [shard.at(i) for i, shard in enumerate(planned)]
    assert sum(shard.num_images for shard in shards) == FRAMES * len(CLIPS)
    for shard in shards:
        keys = list(shard_keys(shard))
        assert keys == [item.key for item in read_shard(shard)]
        (item,) = read_items(shard, keys[3:4])
        assert item.key == keys[3]


def test_videos_beside_images_in_lists_and_on_object_storage(clips: Path, s3_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(clips / "h264.mp4", folder / "b.mp4")
    (folder / "a.jpg").write_bytes(b"no image")
    (folder / "c.jpg").write_bytes(b"no image")
    keys = ["a.jpg", *(f"b.mp4/{number:09d}" for number in range(FRAMES)), "c.jpg"]
    assert [item.key for item in read(folder)] == keys
    (tmp_path / "list.txt").write_text("mixed/a.jpg\nmixed/b.mp4\nmixed/lost.mp4\n")
    listed = read(tmp_path / "list.txt")
    assert [item.key for item in listed] == [f"mixed/{key}" for key in [*keys[:-1], "lost.mp4"]]
    assert listed[-1].status == "missing"
    storage.write_bytes(f"{s3_folder}/clip.ts", (clips / "h264.ts").read_bytes())
    for item, (_, pixels) in zip(read(f"{s3_folder}/clip.ts", 10), decoded(clips / "h264.ts"), strict=True):
        assert item.uri.startswith(f"{s3_folder}/clip.ts#")
        np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)


def test_a_named_file_is_recognised_by_its_content(clips: Path, tmp_path: Path) -> None:
    for clip in CLIPS:
        for name in ("recording", "recording.jpg"):
            shutil.copy(clips / clip, tmp_path / name)
            assert len(read(tmp_path / name)) == FRAMES
    (shard,) = plan_collection(InputSettings(uri=str(tmp_path)))
    (item,) = read_items(shard.at(0), {"recording"})
    with pytest.raises(ImageRefused, match="a video, which its name does not say; give it the suffix of a video"):
        item.decode(DecodeLimits())
    assert not has_video_signature(b"G" + bytes(399))
    m2ts = b"".join(b"\0\0\0\0" + (clips / "h264.ts").read_bytes()[i * 188 : (i + 1) * 188] for i in range(5))
    assert has_video_signature(m2ts)


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        ({"every": 10}, [0, 10, 20, 30, 40]),
        ({"every": 100}, [0]),
        # At 0, 1/7, 2/7, ... seconds: the last frame until then.
        ({"fps": 7}, [0, 4, 8, 12, 17, 21, 25, 30, 34, 38, 42]),
        ({"fps": 60}, list(range(FRAMES))),
    ],
)
@pytest.mark.parametrize("size", [10, 1000])
def test_frames_are_chosen_from_the_start_of_the_video(chosen: dict, numbers: list, size: int, clips: Path) -> None:
    for name in ("h264.mp4", "h264.mkv"):
        items = read(clips / name, size, **chosen)
        assert [item.position.frame for item in items] == numbers
        expected = decoded(clips / name)
        for item in items:
            np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, expected[item.position.frame][1])


def test_variable_rates_keep_their_times(tmp_path: Path) -> None:
    stamps = np.cumsum([0, *np.random.default_rng(1).choice([1, 2, 3, 12], 29)]).tolist()
    clip = write_clip(tmp_path / "phone.mp4", moving(30), options={"g": "8", "bf": "2"}, stamps=stamps)
    items = read(clip, 8)
    np.testing.assert_allclose([item.position.seconds for item in items], np.array(stamps) / 30, atol=1e-9)
    sparse = read(clip, 8, fps=5)
    times = np.array(stamps) / 30
    grid = np.arange(int(times[-1] * 5) + 1) / 5
    expected = sorted({int(np.nonzero(times <= time + 1e-9)[0][-1]) for time in grid})
    assert [item.position.frame for item in sparse] == expected


@pytest.mark.parametrize(("rotation", "orientation", "turns"), [(-90, 6, 3), (90, 8, 1), (180, 3, 2), (45, 1, 0)])
def test_frames_are_upright(rotation: int, orientation: int, turns: int, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "phone.mov", moving(3), rotation=rotation)
    if rotation == 45:
        orientation = read(clip)[0].decode(DecodeLimits()).orientation  # of no right angle: left as it is
    for item, (_, pixels) in zip(read(clip), decoded(clip), strict=True):
        image = item.decode(DecodeLimits())
        assert image.orientation == orientation
        np.testing.assert_array_equal(image.pixels, np.rot90(pixels, turns))


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "h264.mkv", "open.mp4", "mpeg4.avi"])
@pytest.mark.parametrize("damage", ["noise", "zeros", "cut"])
def test_after_damage_no_frame_is_wrong(name: str, damage: str, tmp_path: Path) -> None:
    """Every planned frame has an item; those called ok equal the clean clip, and the groups without damage are ok."""
    codec, options = CLIPS[name]
    clean = write_clip(tmp_path / name, moving(FRAMES, 192, 128), codec, options)
    expected = dict(decoded(clean))
    data = bytearray(clean.read_bytes())
    start = len(data) // 2
    end = start + len(data) // 20
    if damage == "noise":
        data[start:end] = np.random.default_rng(2).integers(0, 256, end - start, np.uint8).tobytes()
    elif damage == "zeros":
        data[start:end] = bytes(end - start)
    else:
        del data[start:]
    damaged = tmp_path / f"damaged_{name}"
    damaged.write_bytes(data)
    items = read(damaged, 10)
    results = [pixels_or_error(item) for item in items]
    if damage == "cut" and name.endswith(".mp4"):  # its index is at the end
        assert results == ["not a video that FFmpeg can open: Invalid data found when processing input"]
        return
    good = [(item, pixels) for item, pixels in zip(items, results, strict=True) if not isinstance(pixels, str)]
    if name.endswith(".avi"):
        truth = [pixels for _, pixels in decoded(clean)]
        assert all(any(np.array_equal(pixels, other) for other in truth) for _, pixels in good)
    else:
        for item, pixels in good:
            np.testing.assert_array_equal(pixels, expected[item.position.pts])
    assert len(good) >= 10
    assert len(good) < FRAMES
    if name.endswith(".mp4"):
        assert len(items) == FRAMES
    assert all("damage" in text or "refers to frames" in text for text in results if isinstance(text, str))


def test_videos_in_a_row_in_one_file(tmp_path: Path) -> None:
    """As recorders write transport streams: the time stamps start again, and none of them is the name of a packet."""
    clip = write_clip(tmp_path / "clip.ts", moving(FRAMES), *CLIPS["h264.ts"])
    (tmp_path / "two.ts").write_bytes(clip.read_bytes() * 2)
    expected = [pixels for _, pixels in decoded(tmp_path / "two.ts")]
    assert len(expected) == 2 * FRAMES
    for size in (1, 20, 1000):
        results = [pixels_or_error(item) for item in read(tmp_path / "two.ts", size)]
        good = [i for i, result in enumerate(results) if not isinstance(result, str)]
        assert len(good) >= 2 * FRAMES - 10  # where the counters of the stream jump, a packet is marked as corrupt
        for i in good:
            np.testing.assert_array_equal(results[i], expected[i])


def test_a_group_without_its_key_frame_is_refused(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", moving(FRAMES), "mpeg4", {"g": "10"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number > 0:
                packet.stream = stream
                target.mux(packet)
    results = [pixels_or_error(item) for item in read(tmp_path / "cut.mkv")]
    assert len(results) == FRAMES - 1
    assert {result for result in results[:9] if isinstance(result, str)} == {
        "unreadable: damaged video, so the frames from one key frame to the next are refused: its key frame is lost"
    }
    assert not any(isinstance(result, str) for result in results[9:])


def test_parameters_that_only_the_container_states_are_used(tmp_path: Path) -> None:
    """The depth of QuickTime's animation codec, and the range of colours of FFV1 in Matroska."""
    frames = moving(5)
    with av.open(str(tmp_path / "full.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.color_range = 2
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_color_range="JPEG")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "animation.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    for name in ("full.mkv", "animation.mov"):
        for item, (_, pixels) in zip(read(tmp_path / name), decoded(tmp_path / name), strict=True):
            np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)
    np.testing.assert_array_equal(read(tmp_path / "animation.mov")[0].decode(DecodeLimits()).pixels, frames[0])


def test_results_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", moving(FRAMES, 192, 128), *CLIPS["h264.mkv"])
    data = bytearray(clip.read_bytes())
    start, count = len(data) // 2, len(data) // 20
    data[start : start + count] = np.random.default_rng(2).integers(0, 256, count, np.uint8).tobytes()
    clip.write_bytes(data)
    once, again = ([isinstance(pixels_or_error(item), str) for item in read(clip)] for _ in range(2))
    assert any(once)
    assert once == again


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile clip.mp4\n", "#EXTM3U\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n"]
)
def test_a_file_that_names_other_files_is_no_video(text: str, clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "h264.mp4", tmp_path / "clip.mp4")
    (tmp_path / "evil.mp4").write_text(text)
    (item,) = read(tmp_path / "evil.mp4")
    assert "not a video that FFmpeg can open" in str(item.error)


def test_a_title_in_another_encoding_and_an_emptied_video(clips: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "title.mp4"), "w") as container:
        container.metadata["title"] = "Jour de fete"
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for pixels in moving(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    titled = (tmp_path / "title.mp4").read_bytes()
    assert b"Jour de fete" in titled
    (tmp_path / "title.mp4").write_bytes(titled.replace(b"Jour de fete", b"Jour de f\xeate"))
    assert not any(isinstance(pixels_or_error(item), str) for item in read(tmp_path / "title.mp4"))
    emptied = bytearray((clips / "h264.mp4").read_bytes())
    start, end = emptied.index(b"mdat") + 4, emptied.index(b"moov") - 4
    emptied[start:end] = bytes(end - start)
    (tmp_path / "zero.mp4").write_bytes(emptied)
    results = [pixels_or_error(item) for item in read(tmp_path / "zero.mp4", 10)]
    assert len(results) == FRAMES
    assert all(isinstance(result, str) for result in results)


@pytest.mark.parametrize("share", np.linspace(0.3, 0.98, 12).round(2))
@pytest.mark.parametrize("size", [10, 1000])
def test_an_index_that_promises_more_than_the_file_has(share: float, size: int, tmp_path: Path) -> None:
    """Frames that were cut off have their number and time; no other frame takes their place."""
    codec, options = CLIPS["open264.mp4"]
    plain = write_clip(tmp_path / "plain.mp4", moving(FRAMES), codec, options)
    index_first(plain, tmp_path / "fast.mp4")
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    whole, items = read(tmp_path / "fast.mp4"), read(tmp_path / "cut.mp4", size)
    assert [item.position[1:] for item in items] == [item.position[1:] for item in whole]
    chosen = read(tmp_path / "cut.mp4", size, fps=30)
    assert [item.position[1:] for item in chosen] == [item.position[1:] for item in whole]
    results = [pixels_or_error(item) for item in items]
    assert "refused: the file is shorter than its index says" in results[-1]
    expected = decoded(plain)
    good = [i for i, result in enumerate(results) if not isinstance(result, str)]
    assert len(good) < FRAMES
    assert len(good) >= 10 or share < 0.6
    for i in good:
        np.testing.assert_array_equal(results[i], expected[i][1])
    assert [i for i, item in enumerate(chosen) if not isinstance(pixels_or_error(item), str)] == good


@pytest.mark.parametrize("size", [10, 1000])
def test_a_cut_in_the_sound_loses_no_picture(size: int, tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", moving(FRAMES), *CLIPS["open264.mp4"])
    data = index_first(plain, tmp_path / "loud.mp4", sound=FRAMES).read_bytes()
    with av.open(str(tmp_path / "loud.mp4")) as container:
        end = max(entry.pos + entry.size for entry in container.streams.video[0].index_entries)
    assert end + 1000 < len(data)
    (tmp_path / "cut.mp4").write_bytes(data[: end + 1000])
    for item, (_, pixels) in zip(read(tmp_path / "cut.mp4", size), decoded(plain), strict=True):
        np.testing.assert_array_equal(pixels_or_error(item), pixels)


@pytest.mark.parametrize("size", [10, 1000])
def test_frames_of_a_video_in_an_archive_that_was_cut(size: int, tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", moving(FRAMES), *CLIPS["open264.mp4"])
    index_first(plain, tmp_path / "fast.mp4")
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(tmp_path / "fast.mp4", "fast.mp4")
    expected = decoded(plain)
    data = (tmp_path / "whole.tar").read_bytes()
    length = (tmp_path / "fast.mp4").stat().st_size
    for share in (0.4, 0.55, 0.7, 0.85, 0.99):
        (tmp_path / "whole.tar").write_bytes(data[: 512 + int(length * share)])
        end, *items = read(tmp_path / "whole.tar", size)
        assert "the archive is damaged" in end.error
        assert [item.position.frame for item in items] == list(range(FRAMES))
        for item, (stamp, pixels) in zip(items, expected, strict=True):
            assert item.position.pts == stamp
            if not isinstance(found := pixels_or_error(item), str):
                np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("entry", [None, 12])
@pytest.mark.parametrize("highest", [8, 32])
def test_an_index_with_packets_of_many_megabytes(highest: int, entry: int | None, tmp_path: Path) -> None:
    """It is damage: nothing of that size is read."""
    plain = write_clip(tmp_path / "plain.mp4", moving(FRAMES), *CLIPS["h264.mp4"])
    data = bytearray(index_first(plain, tmp_path / "fast.mp4").read_bytes())
    sizes = data.index(b"stsz") + 8
    data[sizes if entry is None else sizes + 8 + 4 * entry] = highest
    (tmp_path / "fast.mp4").write_bytes(data)
    with open_video(str(tmp_path / "fast.mp4"), (0, None)) as video:
        assert max((packet.size for packet in all_packets(video)), default=0) < 4 << 20
    items = read(tmp_path / "fast.mp4")
    assert len(items) == FRAMES
    results = [pixels_or_error(item) for item in items]
    expected = decoded(plain)
    good = [i for i, result in enumerate(results) if not isinstance(result, str)]
    assert good == ([] if entry is None else list(range(10)))
    for i in good:
        np.testing.assert_array_equal(results[i], expected[i][1])


def test_a_video_that_cannot_be_opened_again_keeps_its_rows(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = list(plan_collection(InputSettings(uri=str(clips / "h264.mp4"))))
    (tmp_path / "no.mp4").write_bytes(b"no video")
    no_video = str(tmp_path / "no.mp4")
    monkeypatch.setattr("pipeline.sources.video.container.open_video", lambda *_: open_video(no_video, (0, None)))
    items = [item for i, shard in enumerate(shards) for item in read_shard(shard.at(i))]
    assert [item.position.frame for item in items] == list(range(FRAMES))
    assert {item.error for item in items} == {"the video ends before this frame"}


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("empty.mp4", b"", "not a video that FFmpeg can open"),
        ("text.mkv", b"no video at all\n" * 100, "not a video that FFmpeg can open"),
        ("code.ts", b"export const answer: number = 42;\n" * 20, "not a video that FFmpeg can open"),
    ],
)
def test_what_is_no_video_is_one_unreadable_item(name: str, content: bytes, error: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (item,) = read(tmp_path)
    assert (item.key, item.status, item.position) == (name, "unreadable", None)
    assert error in str(item.error)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (item,) = read(tmp_path / "song.mp4")
    assert item.error == "the file has no video stream"


def test_large_frames_are_refused_before_decoding(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.video.group.GroupOfPictures._check", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageRefused, match="96 x 64 pixels are more than") as refused:
        read(clips / "h264.mp4")[0].decode(DecodeLimits(max_megapixels=0.006))
    assert (refused.value.status, refused.value.width, refused.value.height) == ("too_large", 96, 64)


def test_a_group_with_a_blamed_frame_is_not_decoded(clips: Path) -> None:
    items = read(clips / "h264.mp4")
    items[12].blame()
    results = [pixels_or_error(item) for item in items]
    refused = [i for i, result in enumerate(results) if isinstance(result, str)]
    assert refused == list(range(10, 20))
    assert "not decoded: frame 12, which is decoded together with it, ended its process (crash" in str(results[10])


@pytest.mark.parametrize(("matrix", "red"), [(6, (81, 90, 240)), (1, (63, 102, 240))], ids=["BT.601", "BT.709"])
def test_colours_follow_the_matrix_of_the_video(matrix: int, red: tuple[int, int, int], tmp_path: Path) -> None:
    """Pure red, by the values that both standards state for it."""
    planes = np.concatenate([np.full(n, value, np.uint8) for n, value in zip((96, 24, 24), red, strict=True)])
    with av.open(str(tmp_path / "red.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.colorspace = matrix
        frame = av.VideoFrame.from_ndarray(planes.repeat(64).reshape(96, 96), format="yuv420p")
        frame.colorspace, frame.color_range = matrix, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (item,) = read(tmp_path / "red.mp4")
    np.testing.assert_allclose(item.decode(DecodeLimits()).pixels.mean(axis=(0, 1)), (255, 0, 0), atol=3)


def test_a_changed_video_is_noticed(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "h264.mp4", tmp_path / "clip.mp4")
    (shard,) = plan_collection(InputSettings(uri=str(tmp_path / "clip.mp4")))
    shutil.copy(clips / "open.mp4", tmp_path / "clip.mp4")
    with pytest.raises(storage.ChangedObject):
        list(read_shard(shard.at(0)))


def test_without_pyav_the_error_says_what_to_install(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(
        UserError, match=r"h264\.mp4 is a video, and videos need PyAV; install it by `uv sync --extra video`"
    ):
        read(clips / "h264.mp4")


_SHARED_CLIPS = sorted((SHARED / "clips").glob("*.m[pko][4kv]"))


@pytest.mark.slow
@pytest.mark.skipif(not _SHARED_CLIPS, reason="needs ../shared/clips")
@pytest.mark.parametrize("path", _SHARED_CLIPS, ids=lambda path: path.name)
def test_real_clips(path: Path) -> None:
    expected = decoded(path)
    for size in (1, 50):
        items = read(path, size)
        assert [item.position.pts for item in items] == [stamp for stamp, _ in expected]
        for item, (_, pixels) in zip(items, expected, strict=True):
            np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)


def test_videos_in_a_tar_archive_are_read_in_place(clips: Path, tmp_path: Path) -> None:
    members = {"a.jpg": b"no image", "b/clip.mp4": (clips / "h264.mp4").read_bytes()}
    members |= {"b/cut.mp4": members["b/clip.mp4"][:2000], "c.ts": (clips / "h264.ts").read_bytes(), "._c.ts": b"x"}
    (tmp_path / "all.tar").write_bytes(tar_bytes(members))
    items = read(tmp_path / "all.tar", 20)
    frames = [f"{number:09d}" for number in range(FRAMES)]
    assert [item.key for item in items] == [
        "all.tar/a.jpg",
        *(f"all.tar/b/clip.mp4/{frame}" for frame in frames),
        "all.tar/b/cut.mp4",
        *(f"all.tar/c.ts/{frame}" for frame in frames),
    ]
    for name, found in (("h264.mp4", items[1 : 1 + FRAMES]), ("h264.ts", items[-FRAMES:])):
        for item, (_, pixels) in zip(found, decoded(clips / name), strict=True):
            np.testing.assert_array_equal(item.decode(DecodeLimits()).pixels, pixels)
    assert len({item.uri for item in items}) == len(items)
    assert items[1].uri == f"{tmp_path}/all.tar#b/clip.mp4/000000000"
    (tmp_path / "videos.tar").write_bytes(tar_bytes({"c.ts": members["c.ts"]}))
    assert len(read(tmp_path / "videos.tar")) == FRAMES


def test_videos_in_compressed_archives_are_unreadable_items(clips: Path, tmp_path: Path) -> None:
    clip = {"clip.mp4": (clips / "h264.mp4").read_bytes()}
    (tmp_path / "all.tar.gz").write_bytes(tar_bytes(clip, "w:gz"))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("clip.mp4", clip["clip.mp4"])
    for name, reason in (
        ("all.tar.gz", "without compression"),
        ("all.zip", "is not read; unpack it, or use a tar archive"),
    ):
        (item,) = read(tmp_path / name)
        assert (item.key, item.status) == (f"{name}/clip.mp4", "unreadable")
        assert reason in str(item.error)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("walk/000012.jpg", ("walk", 12, None, 0.48)),
        ("a/b.c/frame-7.png", ("a/b.c", 7, None, 0.28)),
        ("0.jpg", ("", 0, None, 0.0)),
        ("walk/left_0001.jpg", ("walk/left", 1, None, 0.04)),
        ("clips.tar/walk/img3", ("clips.tar/walk", 3, None, 0.12)),
        ("walk/cover.jpg", None),
    ],
)
def test_numbered_images_are_frames_if_the_settings_say_so(key: str, expected: tuple | None) -> None:
    assert frame_of_sequence(key, 25) == expected
    assert frame_of_sequence(key, None) is None


def test_frames_are_chosen_in_one_way() -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--input.video.every=2", "--input.video.fps=3", "--input=a.mp4", "--output=b"], "")


_PEAK = """
import resource, sys
from pipeline.images import DecodeLimits
from pipeline.settings.tree import InputSettings
from pipeline.sources import plan_collection, read_shard
frames = 0
for i, shard in enumerate(plan_collection(InputSettings(uri=sys.argv[1]))):
    for item in read_shard(shard.at(i)):
        item.decode(DecodeLimits())
        frames += 1
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_memory_does_not_grow_with_the_length_of_a_video(suffix: str, tmp_path: Path) -> None:
    """A hundred times the frames: what is left is a few hundred bytes of the index for each."""
    peaks = []
    for length in (150, 15_000):
        path = tmp_path / f"{length}.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"g": "30", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            picture = np.zeros((240, 320, 3), np.uint8)
            for number in range(length):
                picture[:, number % 320] += 31
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path)], cwd=PROJECT, capture_output=True, text=True, check=True
        )
        frames, peak = map(int, done.stdout.split())
        assert frames == length
        peaks.append(peak / 1024)
    assert peaks[1] - peaks[0] < 30, "megabytes"
