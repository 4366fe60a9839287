"""Keep a long-lived process from growing by fragmentation."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # malloc.h of glibc
_ARENAS = 2
# The largest that glibc takes. It moves there by itself, but by way of fragmented heaps; a smaller one would hand each
# layer's activations back to the system, and cost the networks a third of their speed.
_LARGE_BYTES = 32 << 20


def bound_allocator() -> None:
    """Set up glibc's allocator for many short-lived threads and images; does nothing where it isn't glibc.

    By default each thread gets an arena of its own, and freed megabytes stay in it: a worker then grows by hundreds of
    megabytes in its first ten thousand images.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back_memory() -> None:
    """Return what is free inside the heaps to the system; milliseconds, meant for the end of a shard."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_megabytes() -> float:
    """Most memory that this process has held, megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
