"""CVAT for video: the boxes of tracks."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from xml.etree import ElementTree

import numpy as np

from pipeline import storage
from pipeline.coco.categories import PERSON
from pipeline.formats.common import export_path
from pipeline.run import Run
from pipeline.tracking.videos import Video, tracked_videos


def write_cvat_video(run: Run) -> str:
    """A zip archive with a file for each video, in the format `CVAT for video 1.1`.

    Every box is a key frame. Where a person is not seen, and where its track ends, a box is marked `outside`: else CVAT
    would draw the one before for ever. People that were filled in between frames are `occluded`.
    """
    uri = export_path(run, "cvat-video.zip")
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for video in tracked_videos(run):
            text = ElementTree.tostring(_video(video), encoding="unicode")
            archive.writestr(
                f"{storage.unique_name(video.name)}.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'
            )
    return uri


def _video(video: Video) -> ElementTree.Element:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    ElementTree.SubElement(task, "name").text = video.name
    ElementTree.SubElement(task, "size").text = str(video.length)
    ElementTree.SubElement(task, "mode").text = "interpolation"
    label = ElementTree.SubElement(ElementTree.SubElement(task, "labels"), "label")
    ElementTree.SubElement(label, "name").text = PERSON
    shown = next((frame.image for frame in video.frames if frame.ok), None)
    if shown is not None:
        size = ElementTree.SubElement(task, "original_size")
        ElementTree.SubElement(size, "width").text = str(shown["width"])
        ElementTree.SubElement(size, "height").text = str(shown["height"])
    boxes: dict[int, list[tuple[int, np.ndarray, bool]]] = defaultdict(list)  # of each track: place, box, filled in
    for place, frame in enumerate(video.frames):
        for person in frame.tracked:
            limits = [frame.image["width"], frame.image["height"]] * 2
            boxes[person.track].append((place, np.clip(person.box, 0, limits), person.person is None))
    for track in sorted(boxes):
        element = ElementTree.SubElement(root, "track", id=str(track - 1), label=PERSON, source="auto")
        seen = boxes[track]
        for i, (place, box, filled) in enumerate(seen):
            _add_box(element, video.frames[place].position, box, outside=False, occluded=filled)
            following = seen[i + 1][0] if i + 1 < len(seen) else len(video.frames)
            position = video.frames[place].position
            if place + 1 < following:
                _add_box(element, video.frames[place + 1].position, box, outside=True, occluded=False)
            elif following == len(video.frames) and position + 1 < video.length:
                _add_box(element, position + 1, box, outside=True, occluded=False)
    return root


def _add_box(track: ElementTree.Element, frame: int, box: np.ndarray, outside: bool, occluded: bool) -> None:
    corners = {name: f"{value:.2f}" for name, value in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)}
    flags = {"outside": str(int(outside)), "occluded": str(int(occluded)), "keyframe": "1", "z_order": "0"}
    ElementTree.SubElement(track, "box", {"frame": str(frame), **flags, **corners})
