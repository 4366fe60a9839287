"""A worker: one process with its networks, pinned to its GPU or its CPU threads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import ray

from pipeline import storage
from pipeline.allocator import bound_allocator, give_back_memory, peak_megabytes
from pipeline.given import Given
from pipeline.progress import Progress
from pipeline.run import Run
from pipeline.sources import Shard

if TYPE_CHECKING:
    from pipeline.parts import PartWriter

SHARDS_AT_A_TIME = 2  # while one uses the networks, the next reads ahead or the last is written


class Worker:
    """Annotates shards with a PartWriter of its own. The actor never restarts itself: the scheduler counts deaths."""

    _writer: PartWriter

    def start(self, run: Run, threads: int, given: Given) -> None:
        """Load the networks.

        Raises:
            ValueError, OSError: a network cannot be loaded, or the run directory cannot be reached from here.
        """
        if not storage.exists(run.manifest_uri):
            raise OSError(
                f"{run.manifest_uri} cannot be seen from this node; --output must be reachable from every node"
            )
        run.check_files()
        # Imported here: torch and torchvision take seconds and memory that a driver has no use for.
        from pipeline.annotator import Annotator
        from pipeline.compute import pin_threads
        from pipeline.parts import PartWriter

        bound_allocator()
        pin_threads(threads)
        self._writer = PartWriter(run, Annotator.from_settings(run.settings), given)

    def annotate(self, shard: Shard, poison: Collection[int], careful: bool) -> Iterator[Progress]:
        """See PartWriter.annotate; streamed."""
        for progress in self._writer.annotate(shard, poison, careful):
            yield replace(progress, peak_megabytes=peak_megabytes())
        give_back_memory()


WorkerActor = ray.remote(max_restarts=0, max_concurrency=SHARDS_AT_A_TIME)(Worker)
