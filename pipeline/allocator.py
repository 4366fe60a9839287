"""Keep a long-lived process from growing by fragmentation."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # malloc.h of glibc
_ARENAS = 2
_LARGE_BYTES = 1 << 20


def bound_allocator() -> None:
    """Give the memory of images back to the system as soon as they are done with; does nothing where it isn't glibc.

    By default each thread gets an arena of its own, and freed megabytes stay in it: a worker then grows by hundreds of
    megabytes in its first ten thousand images.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
