"""PoseTrack18's JSON."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.coco.categories import PERSON, USUAL_PERSON_ID
from pipeline.errors import UserError
from pipeline.formats.common import export_path, rounded, xywh
from pipeline.people import People
from pipeline.run import Run
from pipeline.run.tables import table_skeleton
from pipeline.skeletons import Skeleton
from pipeline.tracking.videos import Video, tracked_videos

# The joints of PoseTrack18, and what stands for them in other skeletons; ears are there as places of COCO alone.
_SIDES = [
    f"{side}_{joint}"
    for joint in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]
_JOINTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "nose": (("nose",),),
    "head_bottom": (("neck",), ("upper_neck",), ("left_shoulder", "right_shoulder")),
    "head_top": (("head",), ("head_top",)),
    **{name: ((name,),) for name in _SIDES},
}
_LARGEST_ID = 999  # of a track, in the evaluation of PoseTrack
_IDS_PER_VIDEO = 1_000_000


def write_posetrack(run: Run) -> str:
    """A zip archive with a file for each video, as PoseTrack18 has them: images, annotations with tracks, categories.

    The lower end of the head is the neck, or the middle of the shoulders; its top is missing, as 0 0 0, in skeletons
    without it. Tracks count from 0. People without a track, and those that were filled in, are left out.

    Raises:
        UserError: the skeleton lacks joints, or a video has more than 1,000 tracks.
    """
    skeleton = table_skeleton(run.uri)
    missing = [name for name in _SIDES if name not in skeleton.joints and not name.endswith("ear")]
    if missing:
        raise UserError(f"the PoseTrack format needs the joint {missing[0]}; {skeleton.name} does not have it")
    uri = export_path(run, "posetrack.zip")
    with storage.open_write(uri) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, video in enumerate(tracked_videos(run), 1):
            archive.writestr(f"{storage.unique_name(video.name)}.json", json.dumps(_video(video, number, skeleton)))
    return uri


def _video(video: Video, number: int, skeleton: Skeleton) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for frame in (frame for frame in video.frames if frame.ok):
        image_id = number * _IDS_PER_VIDEO + frame.position
        images.append(
            {
                "id": image_id,
                "frame_id": image_id,
                "file_name": frame.image["image_id"],
                "vid_id": str(number),
                "nframes": video.length,
                "width": frame.image["width"],
                "height": frame.image["height"],
                "is_labeled": True,
            }
        )
        for person in frame.tracked:
            if person.person is None:
                continue
            if person.track - 1 > _LARGEST_ID:
                raise UserError(f"{video.name} has more than {_LARGEST_ID + 1} tracks; PoseTrack cannot number them")
            joints, scores = _joints(frame.people, person.person, skeleton)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "category_id": USUAL_PERSON_ID,
                    "track_id": person.track - 1,
                    "bbox": xywh(person.box),
                    "keypoints": rounded(joints.ravel()),
                    "scores": rounded(scores),
                }
            )
    category = {
        "id": USUAL_PERSON_ID,
        "name": PERSON,
        "supercategory": PERSON,
        "keypoints": list(_JOINTS),
        "skeleton": [],
    }
    return {"images": images, "annotations": annotations, "categories": [category]}


def _joints(people: People, i: int, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """(17, 3) x y 1, zeros for joints that the skeleton lacks, and (17,) scores, the lowest where two are averaged."""
    joints, scores = np.zeros((len(_JOINTS), 3)), np.zeros(len(_JOINTS))
    for row, choices in enumerate(_JOINTS.values()):
        chosen = next((names for names in choices if set(names) <= set(skeleton.joints)), None)
        if chosen is not None:
            places = [skeleton.joints.index(name) for name in chosen]
            joints[row] = [*people.keypoints[i, places].mean(axis=0), 1]
            scores[row] = people.keypoint_scores[i, places].min()
    return joints, scores
