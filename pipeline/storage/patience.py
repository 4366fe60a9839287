"""Trouble that passes: what is tried again on remote storage, for how long, and told once per kind.

Storage libraries repeat a request a few times within seconds. A store that is down for minutes, or asks everybody to
slow down, needs more patience than that; an object that isn't there needs none.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

_LOG = logging.getLogger("posemill")
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 20.0
_PASSING_ERRNOS = {
    getattr(errno, name)
    for name in (
        "EIO", "EBUSY", "EREMOTEIO", "ETIMEDOUT", "EAGAIN", "EPIPE", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED",
        "EHOSTUNREACH", "ENETUNREACH",
    )
    if hasattr(errno, name)
}  # fmt: skip
# By name, so that no library of a storage is imported for the sake of its errors. TimeoutError, ConnectionError and
# HTTPClientError are bases in several of them.
_PASSING_NAMES = {
    "TimeoutError", "ConnectionError", "HTTPClientError", "IncompleteReadError", "ClientPayloadError",
    "ClientConnectionError",
}  # fmt: skip
_BUSY_STATUSES = (429, 500, 502, 503, 504)
_LATER = (429, 503)  # "too many requests", "service unavailable"

_T = TypeVar("_T")


class Patience:
    """How long trouble is waited out in this process, and what there was.

    Attributes:
        seconds: from the first failure of an operation to its last attempt.
    """

    def __init__(self, seconds: float = 300.0) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._retries: Counter[str] = Counter()

    def persist(self, operation: Callable[[], _T], unanswered: float | None = None) -> _T:
        """What the operation returns, once it does: between attempts the wait doubles, with jitter.

        Args:
            operation: may be repeated without harm.
            unanswered: seconds, where a server that doesn't ask to come back later deserves less patience.

        Raises:
            Exception: whatever the operation raises that won't pass, or still raises when patience is at its end.
        """
        began: float | None = None
        attempt = 0
        while True:
            try:
                return operation()
            except Exception as error:
                began = time.monotonic() if began is None else began
                patience = self.seconds if unanswered is None or _status(error) in _LATER else unanswered
                wait = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt) * random.uniform(0.5, 1.0)
                if not passes(error) or time.monotonic() + wait > began + patience:
                    raise
                self._note(error)
            time.sleep(wait)
            attempt += 1

    def take_retries(self) -> Counter[str]:
        """How often each kind of trouble made something be tried again, since this was last asked."""
        with self._lock:
            taken, self._retries = self._retries, Counter()
            return taken

    def _note(self, error: Exception) -> None:
        kind = _kind(error)
        with self._lock:
            self._retries[kind] += 1
            if kind in self._told:
                return
            self._told.add(kind)
        _LOG.warning("storage: %s; trying again (told once)", kind)


def passes(error: BaseException) -> bool:
    """Whether the trouble may be over by itself: no answer, half an answer, or one that asks to come back later."""
    if status := _status(error):
        return status in _BUSY_STATUSES
    if _PASSING_NAMES & {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS


def _status(error: BaseException) -> int | None:
    """Of an HTTP answer, where the error is one."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else None


def _kind(error: Exception) -> str:
    """A short text that is the same for all of a kind: names and addresses differ, and are left out."""
    number = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    status = _status(error)
    return " ".join(part for part in (type(error).__name__, number, str(status or "")) if part)
