"""A review queue: the images of a run that are most worth a person's time, as tasks for CVAT and Label Studio."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args
from urllib.parse import quote

import cv2
import numpy as np

from pipeline import storage
from pipeline.errors import UserError
from pipeline.evaluation import evaluate_run
from pipeline.evaluation.image_errors import ImageErrors
from pipeline.formats.cvat import write_cvat
from pipeline.formats.label_studio import labelling_configuration, write_label_studio
from pipeline.jpeg import encode_jpeg
from pipeline.review.ranking import uncertainty
from pipeline.run import Run
from pipeline.run.images import pixels_of
from pipeline.run.statistics import Statistics
from pipeline.run.tables import table_skeleton

By = Literal["uncertain", "false_positive", "worst", "random"]
BY = get_args(By)
_CANDIDATES = 4  # per image of the queue
_HASH_SIDE = 8
_SAME_SCENE = 10  # bits of 64 by which the hashes of two pictures of one scene differ at most
_QUALITY = 95


class ReviewQueue(NamedTuple):
    """The files of a review queue; `images` is None if the tasks refer to images by URL."""

    listed: str
    images: str | None
    cvat: str
    label_studio: str
    interface: str
    num_images: int


class Reviewed(NamedTuple):
    """An image of the queue: its id, its name in tasks, and the value it was ranked by."""

    image_id: str
    name: str
    value: float


def write_review(run: Run, count: int, by: By, url_prefix: str | None = None) -> ReviewQueue:
    """Write `review/` of a reduced run: a list of images, copies of them, and tasks with their people.

    Of images that look alike, such as the frames of one scene, one is chosen as long as there are others; except at
    random, where every image has the same chance.

    Args:
        count: number of images.
        by: what makes an image worth reviewing.
        url_prefix: tasks refer to images by this prefix and their ids, and no copies are written.

    Raises:
        UserError: the run has a queue, `by` needs annotations that it does not have, or there is nothing to review.
    """
    if storage.exists(run.path("review", "images.csv")):
        raise UserError(
            f"{run.path('review')} has a review queue, whose corrections may not have been read back; move or delete it"
        )
    statistics = Statistics.read(run)
    value = _values(run, by, statistics)
    ranked = [int(i) for i in np.argsort(-value, kind="stable") if statistics.ok[i] and value[i] > 0]
    if not ranked:
        raise UserError(f"{run.uri} has no image to review by {by}")
    ids = [statistics.ids[i] for i in ranked]
    shards = {statistics.ids[i]: statistics.shards[i] for i in ranked[: _CANDIDATES * count]}
    hashes = {image_id: _difference_hash(pixels) for image_id, pixels in pixels_of(run, shards)}
    readable = [image_id for image_id in ids if image_id in hashes]
    if not readable:
        raise UserError(f"none of the images of {run.uri} that are worth a review can still be read")
    chosen = readable[:count] if by == "random" else diverse(readable, hashes, count)
    by_id = dict(zip(statistics.ids, value.tolist(), strict=True))
    reviewed = [
        Reviewed(i, url_prefix + quote(i) if url_prefix else f"{n:04d}-{_plain(i)}.jpg", by_id[i])
        for n, i in enumerate(chosen, 1)
    ]
    return _write(run, reviewed, by, {i: shards[i] for i in chosen} if url_prefix is None else {})


def read_queue(run: Run) -> list[Reviewed]:
    """The images of the review queue of a run.

    Raises:
        UserError: the run has none.
    """
    uri = run.path("review", "images.csv")
    if not storage.exists(uri):
        raise UserError(f"{run.uri} has no review queue; write one with jobs/reduce.py {run.uri} --review 50")
    rows = csv.DictReader(io.StringIO(storage.read_bytes(uri).decode(), newline=""))
    return [Reviewed(row["image_id"], row["name"], float(row["value"])) for row in rows]


def diverse(ranked: list[str], hashes: Mapping[str, np.ndarray], count: int) -> list[str]:
    """The first `count` images that do not look alike; if these are too few, others fill up in their order.

    Args:
        ranked: image ids, the best first.
        hashes: (64,) bool of each image.
    """
    chosen: list[str] = []
    for image_id in ranked:
        if len(chosen) < count and all((hashes[image_id] != hashes[c]).sum() > _SAME_SCENE for c in chosen):
            chosen.append(image_id)
    left = [image_id for image_id in ranked if image_id not in set(chosen)]
    return chosen + left[: count - len(chosen)]


def _values(run: Run, by: By, statistics: Statistics) -> np.ndarray:
    """(I,) how much each image is worth reviewing; 0 if not at all."""
    if by == "uncertain":
        return uncertainty(statistics)
    if by == "random":
        return np.random.default_rng(0).random(len(statistics.ids)) + 1e-9
    annotations = run.settings.annotations
    if annotations is None:
        raise UserError(f"--by {by} needs a run with --annotations; use --by uncertain")
    errors = ImageErrors.of(evaluate_run(run, annotations, analysis=True), statistics, table_skeleton(run.uri))
    if errors is None:
        raise UserError(f"{annotations} has no keypoints; --by {by} needs them")
    return errors.column("background") if by == "false_positive" else errors.costs


def _write(run: Run, reviewed: list[Reviewed], by: By, copied: dict[str, str]) -> ReviewQueue:
    """Write the files of a queue.

    Args:
        copied: image id to shard of the images to copy.
    """
    names = {r.image_id: r.name for r in reviewed}
    for image_id, pixels in pixels_of(run, copied):
        # Upright, as the tables have them: tools disagree about the orientation stored in a file.
        storage.write_bytes(run.path("review", "images", names[image_id]), encode_jpeg(pixels, _QUALITY))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["name", "image_id", "by", "value"])
    table.writerows([r.name, r.image_id, by, f"{r.value:.4f}"] for r in reviewed)
    listed, interface = run.path("review", "images.csv"), run.path("review", "label-studio.xml")
    storage.write_bytes(listed, text.getvalue().encode())
    storage.write_bytes(interface, labelling_configuration(table_skeleton(run.uri).joints).encode())
    return ReviewQueue(
        listed,
        run.path("review", "images") if copied else None,
        write_cvat(run, run.path("review", "cvat-person_keypoints.json"), names),
        write_label_studio(run, run.path("review", "label-studio.json"), names),
        interface,
        len(reviewed),
    )


def _difference_hash(pixels: np.ndarray) -> np.ndarray:
    """(64,) bool: whether each of 8 x 8 places is darker than its right neighbour.

    Krawetz, Kind of Like That, 2013.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE + 1, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    return (small[:, :-1] < small[:, 1:]).ravel()


def _plain(image_id: str) -> str:
    """The end of an image id without its suffix, in characters that every tool accepts."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", image_id.removesuffix(storage.suffix(image_id)))[-60:]
