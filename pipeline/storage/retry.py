"""Retries of remote storage operations, with exponential backoff.

Storage libraries repeat a request a few times within seconds. A store that is down for minutes, or that answers "slow
down", needs longer; a missing object needs no retry at all.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

_LOG = logging.getLogger("posemill")
_FIRST_DELAY_SECONDS = 0.25
_MAX_DELAY_SECONDS = 20.0
_TRANSIENT_ERRNOS = {
    getattr(errno, name)
    for name in (
        "EIO", "EBUSY", "EREMOTEIO", "ETIMEDOUT", "EAGAIN", "EPIPE", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED",
        "EHOSTUNREACH", "ENETUNREACH",
    )
    if hasattr(errno, name)
}  # fmt: skip
# By name, so that no storage library is imported for its error classes. TimeoutError, ConnectionError and
# HTTPClientError are base classes in several of them.
_TRANSIENT_NAMES = {
    "TimeoutError", "ConnectionError", "HTTPClientError", "IncompleteReadError", "ClientPayloadError",
    "ClientConnectionError",
}  # fmt: skip
_BUSY_STATUSES = (429, 500, 502, 503, 504)
_THROTTLING_STATUSES = (429, 503)  # "too many requests", "service unavailable"

_T = TypeVar("_T")


class RetryPolicy:
    """How long failing operations are retried in this process, and a count of the retries.

    Attributes:
        seconds: from the first failure of an operation to its last attempt.
    """

    def __init__(self, seconds: float = 300.0) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self._retries: Counter[str] = Counter()

    def call(self, operation: Callable[[], _T], no_answer_seconds: float | None = None) -> _T:
        """The result of an operation, retried after transient errors; the delay doubles, with jitter.

        Args:
            operation: safe to repeat.
            no_answer_seconds: a shorter limit in seconds, unless the server asks to come back later (429, 503).

        Raises:
            Exception: the error of the operation, if it is not transient or the time limit is reached.
        """
        started: float | None = None
        attempt = 0
        while True:
            try:
                return operation()
            except Exception as error:
                started = time.monotonic() if started is None else started
                limit = (
                    self.seconds
                    if no_answer_seconds is None or _status(error) in _THROTTLING_STATUSES
                    else no_answer_seconds
                )
                delay = min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2**attempt) * random.uniform(0.5, 1.0)
                if not is_transient(error) or time.monotonic() + delay > started + limit:
                    raise
                self._count(error)
            time.sleep(delay)
            attempt += 1

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Shorter retries inside the block."""
        before, self.seconds = self.seconds, min(self.seconds, seconds)
        try:
            yield
        finally:
            self.seconds = before

    def take_retries(self) -> Counter[str]:
        """The number of retries by kind of error since the last call."""
        with self._lock:
            retries, self._retries = self._retries, Counter()
            return retries

    def _count(self, error: Exception) -> None:
        kind = _kind(error)
        with self._lock:
            self._retries[kind] += 1
            if kind in self._logged:
                return
            self._logged.add(kind)
        _LOG.warning("storage: %s; retrying (logged once)", kind)


def is_transient(error: BaseException) -> bool:
    """Whether the error may go away by itself: no answer, a partial answer, or a server that is busy."""
    if status := _status(error):
        return status in _BUSY_STATUSES
    if _TRANSIENT_NAMES & {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error, if it has one."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else None


def _kind(error: Exception) -> str:
    """A short text that is the same for all errors of a kind: without names and addresses."""
    number = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    status = _status(error)
    return " ".join(part for part in (type(error).__name__, number, str(status or "")) if part)
