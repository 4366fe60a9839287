"""A queue between two threads that limits items and bytes, and passes errors of the writer to the reader."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Closed(Exception):
    pass


class BoundedQueue(Generic[T]):
    """A first-in, first-out queue: the writer thread calls `put` within `filling()`, the reader thread iterates.

    Args:
        max_items: maximum number of items in the queue.
        max_bytes: maximum bytes in the queue; a larger item is accepted if the queue is empty.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._finished = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Context of the writer: its end ends the iteration, and its error is raised in the reader."""
        try:
            yield
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def put(self, item: T, size: int) -> None:
        """Wait for room, then append an item of `size` bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items or self._has_room(size))
            if self._closed:
                raise _Closed
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return len(self._items) < self._max_items and self._bytes + size <= self._max_bytes

    def close(self) -> None:
        """Drop all items and end the writer at its next `put`; called when the reader stops early."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._finished)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item, size = self._items.popleft()
                self._bytes -= size
                self._changed.notify_all()
            yield item
