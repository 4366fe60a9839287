"""Annotate one shard into one part. Independent of Ray.

Three stages overlap through bounded queues: threads read and decode, the caller's thread runs the networks, and another
thread suppresses. Encoding, and the single PUT that commits the part, come last; a worker overlaps them with its next
shard.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import torch

from pipeline import storage
from pipeline.annotator import MACHINE_ERRORS, Annotator, Picture
from pipeline.decoders.jpeg import decode_jpeg
from pipeline.images import DecodedImage, DecodeLimits, ImageRefused, JpegDecoder
from pipeline.people import People
from pipeline.process.queue import BoundedQueue
from pipeline.run import Run
from pipeline.run.precomputed import Precomputed
from pipeline.run.progress import Progress
from pipeline.run.tables import ImageRow, encode_part, skeleton_metadata
from pipeline.runtime.device import Image
from pipeline.sources import Item, Shard, read_shard
from pipeline.sources.shard import frame_of_sequence
from pipeline.tracking.cuts import thumbnail

_T = TypeVar("_T")

_READ_AHEAD_BYTES = 256 << 20
_READ_AHEAD_IMAGES = 64
_SECONDS_PER_PROGRESS = 0.5  # reports are made by the thread that runs the networks
_POISON = (
    "its worker process died twice while decoding it (crash, lack of memory, or longer than --fleet.image_seconds); "
    "not decoded again"
)


@dataclass
class PartWriter:
    """Annotates shards of a run with the networks of this process.

    Attributes:
        run: the run directory that the parts go to.
        annotator: the networks; used by one shard at a time.
        precomputed: COCO ids and given boxes of the images.
        deadline: context around the decoding of each image.
        decoders: number of images that are decoded at a time, each in a thread.
        jpeg_decoder: of images that are no frames: thumbnails of frames are made in memory.
    """

    run: Run
    annotator: Annotator
    precomputed: Precomputed = Precomputed()
    deadline: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    decoders: int = 1
    jpeg_decoder: JpegDecoder = decode_jpeg
    _networks: threading.Lock = field(default_factory=threading.Lock)

    def annotate(self, shard: Shard, poison: Collection[int] = (), isolated: bool = False) -> Iterator[Progress]:
        """Annotate a shard and commit its part; the rows depend on shard, settings and weights alone.

        Args:
            shard: what to annotate.
            poison: numbers of images that kill their process; they get a row and are not decoded.
            isolated: one image at a time, each announced before it is decoded, so that a worker death can be attributed
                to an image; an error of one image goes into its row.

        Raises:
            OSError: storage failed.
            UserError: the shard has changed since it was planned.
            NetworksError: the networks fail on any image.
        """
        results = self._one_by_one(shard, poison) if isolated else self._overlapped(shard, poison)
        part = _Part(self.run.settings.output.candidates)
        yield from part.collect(results)
        with self.annotator.stopwatch("write"):
            self._commit(shard, part)
        yield part.progress()

    def _commit(self, shard: Shard, part: _Part) -> None:
        statuses = part.statuses
        data = encode_part(
            part.rows,
            [image.people for image in part.found],
            part.candidates,
            self.annotator.empty(),
            {
                "shard": shard.id,
                "fingerprint": self.run.fingerprint,
                "skeleton": skeleton_metadata(self.annotator.poses.skeleton),
                "counts": {
                    "images": len(part.rows),
                    "people": sum(len(image.people) for image in part.found),
                    "failed": len(part.rows) - statuses["ok"],
                },
                "networks": self.annotator.poses.describe(),
                "head": self.annotator.poses.head.kind,
                "compute": self.annotator.compute.describe(),
            },
            [image.weak for image in part.found] if any(row.video for row in part.rows) else None,
        )
        storage.write_bytes(self.run.part_uri(shard.id), data)

    def _overlapped(self, shard: Shard, poison: Collection[int]) -> Iterator[_Annotated | _InProgress]:
        queue: BoundedQueue[_Decoded] = BoundedQueue(_READ_AHEAD_IMAGES, _READ_AHEAD_BYTES)
        reader = threading.Thread(target=self._fill, args=(queue, shard, poison), name=f"read {shard.id}", daemon=True)
        reader.start()
        waiting: deque[ImageRow] = deque()  # images in the networks, and unreadable ones between them

        def pictures() -> Iterator[Picture]:
            for item in _timed(queue, partial(self.annotator.stopwatch, "wait for images")):
                waiting.append(item.row)
                if item.picture is not None:
                    yield item.picture

        try:
            with self._networks, ThreadPoolExecutor(1, "suppress") as suppression:
                for candidates in self.annotator.candidates(pictures()):
                    while waiting[0].status != "ok":
                        yield self._without_people(waiting.popleft())
                    row = waiting.popleft()
                    yield _Annotated(row, candidates, suppression.submit(self._suppress, row, candidates))
                yield from map(self._without_people, waiting)
        finally:
            queue.close()
            reader.join()

    def _fill(self, queue: BoundedQueue[_Decoded], shard: Shard, poison: Collection[int]) -> None:
        watch = self.annotator.stopwatch

        def put(decoded: Future[_Decoded]) -> None:
            item = decoded.result()
            with watch("wait for room"):
                queue.put(item, 0 if item.picture is None else item.picture.pixels.nbytes)

        with queue.filling(), ThreadPoolExecutor(self.decoders, "decode") as pool:
            ahead: deque[Future[_Decoded]] = deque()
            for number, item in enumerate(_timed(read_shard(shard, self._limits), partial(watch, "read"))):
                if number in poison:
                    item.blame()
                ahead.append(pool.submit(self._decode, item, number in poison))
                if len(ahead) == self.decoders:
                    put(ahead.popleft())
            for decoded in ahead:
                put(decoded)

    def _one_by_one(self, shard: Shard, poison: Collection[int]) -> Iterator[_Annotated | _InProgress]:
        with self._networks:
            items = read_shard(shard, self._limits)
            for number in range(shard.num_images):
                yield _InProgress(number)  # before it is read: reading may also kill the process
                read = next(items)
                if number in poison:
                    read.blame()
                item = self._decode(read, number in poison)
                if item.picture is None:
                    yield self._without_people(item.row)
                    continue
                try:
                    (candidates,) = self.annotator.candidates([item.picture])
                    found = self._suppress(item.row, candidates)
                except MACHINE_ERRORS:
                    raise
                except Exception as error:
                    self.annotator.check()  # rule out the machine before the image is blamed
                    item.row.status, item.row.error = "unreadable", f"could not be annotated: {error}"[:200]
                    yield self._without_people(item.row)
                else:
                    yield _Annotated(item.row, candidates, _finished(found))
            yield _InProgress(None)  # failures after this point are not caused by an image
            for _ in items:
                pass  # lets the reader check that no item is left

    def _decode(self, item: Item, poison: bool) -> _Decoded:
        row = ImageRow(item.key, item.uri, self.precomputed.coco_id(item.key), item.sha256)
        row.status, row.error = item.status, item.error
        position = item.position
        if position is None and item.sha256 is not None:
            position = frame_of_sequence(item.key, self.run.settings.input.video.sequence_fps)
        if position is not None:
            row.video, row.frame, row.pts, row.seconds = position
        if item.status != "ok":
            return _Decoded(row)
        if poison:
            row.status, row.error = "poison", _POISON
            return _Decoded(row)
        try:
            with self.annotator.stopwatch("decode"), self.deadline():
                image = item.decode(self._limits, decode_jpeg if row.video is not None else self.jpeg_decoder)
        except ImageRefused as refused:
            row.status, row.error = refused.status, str(refused)
            row.width, row.height = refused.width, refused.height
            return _Decoded(row)
        row.height, row.width = image.content.shape[:2]
        row.orientation, row.warning = image.orientation, image.warning
        if row.video is not None:
            row.thumbnail = thumbnail(image.pixels)
        pixels = self._uploaded(image)
        return _Decoded(row, Picture(pixels, self.precomputed.boxes_of(item.key), is_frame=row.video is not None))

    def _uploaded(self, image: DecodedImage) -> Image:
        """The pixels for the networks; in memory if appearances are described, which are computed there."""
        if self.annotator.appearance is not None:
            return image.pixels
        try:
            return self.annotator.compute.upload(image.content)
        except torch.OutOfMemoryError:  # the networks' thread tries again, when images before it are done
            return image.content

    @property
    def _limits(self) -> DecodeLimits:
        return self.run.settings.images.limits

    def _suppress(self, row: ImageRow, candidates: People) -> _Found:
        weak = candidates[[]] if row.video is None else self.annotator.suppress_weak(candidates)
        return _Found(self.annotator.suppress(candidates), weak)

    def _without_people(self, row: ImageRow) -> _Annotated:
        empty = self.annotator.empty()
        return _Annotated(row, empty, _finished(_Found(empty, empty)))


@dataclass(frozen=True)
class _Decoded:
    """A decoded image; without a picture if it cannot be read, to keep its place in the order."""

    row: ImageRow
    picture: Picture | None = None


class _Found(NamedTuple):
    """The people of an image, and the weak ones of a frame, which count only if they continue a track."""

    people: People
    weak: People


@dataclass(frozen=True)
class _Annotated:
    """An image after the networks; its people may still be in suppression."""

    row: ImageRow
    candidates: People
    found: Future[_Found]


@dataclass(frozen=True)
class _InProgress:
    """The number of the image that is about to be decoded; None after the last one."""

    number: int | None


def _timed(items: Iterable[_T], stage: Callable[[], AbstractContextManager[None]]) -> Iterator[_T]:
    """The items; the time to wait for each is counted for the stage."""
    iterator = iter(items)
    while True:
        with stage():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _finished(found: _Found) -> Future[_Found]:
    future: Future[_Found] = Future()
    future.set_result(found)
    return future


class _Part:
    """Collects the rows of a part."""

    def __init__(self, keep_candidates: bool) -> None:
        self.rows: list[ImageRow] = []
        self.found: list[_Found] = []
        self.candidates: list[People] | None = [] if keep_candidates else None
        self.statuses: Counter[str] = Counter()
        self._num_people = 0
        self._video_seconds = 0.0
        self._suppressed: deque[Future[_Found]] = deque()  # images whose people are not yet in `found`

    def collect(self, annotated: Iterator[_Annotated | _InProgress]) -> Iterator[Progress]:
        reported = time.monotonic()
        for image in annotated:
            if isinstance(image, _InProgress):
                yield self.progress(image.number)
                continue
            self._video_seconds += _seconds_between(self.rows[-1] if self.rows else None, image.row)
            self.rows.append(image.row)
            self.statuses[image.row.status] += 1
            self._suppressed.append(image.found)
            if self.candidates is not None:
                self.candidates.append(image.candidates)
            if time.monotonic() - reported > _SECONDS_PER_PROGRESS:
                reported = time.monotonic()
                yield self.progress()
        self._take(wait=True)

    def progress(self, in_progress: int | None = None) -> Progress:
        self._take()
        return Progress(len(self.rows), self._num_people, dict(self.statuses), self._video_seconds, in_progress)

    def _take(self, wait: bool = False) -> None:
        """Move the people of images whose suppression is finished to `found`."""
        while self._suppressed and (wait or self._suppressed[0].done()):
            self.found.append(self._suppressed.popleft().result())
            self._num_people += len(self.found[-1].people)


def _seconds_between(before: ImageRow | None, row: ImageRow) -> float:
    """The time from a frame to the next of the same video; 0 for images."""
    if before is None or before.video is None or before.video != row.video:
        return 0.0
    if before.seconds is None or row.seconds is None:
        return 0.0
    return max(0.0, row.seconds - before.seconds)
