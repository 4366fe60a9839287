"""Limit the heap fragmentation of a long-running process, and measure its memory."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # malloc.h of glibc
_ARENAS = 2
# The maximum that glibc accepts. Its dynamic threshold reaches this value too, but only after the heaps are fragmented.
# With a smaller value, the activations of each layer are returned to the system, and the networks lose a third of their
# speed.
_LARGE_BYTES = 32 << 20


def bound_allocator() -> None:
    """Configure the allocator of glibc for many short-lived threads and images; does nothing on other C libraries.

    By default each thread gets its own arena, and freed memory stays in it: a worker then grows by hundreds of
    megabytes in its first ten thousand images.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back_memory() -> None:
    """Return free heap memory to the system; takes milliseconds, called at the end of a shard."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_megabytes() -> float:
    """Peak resident memory of this process, megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
