import errno
import logging

import pytest
from aiohttp import ClientPayloadError, ClientResponseError
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from pipeline.storage import retry
from pipeline.storage.retry import RetryPolicy, is_transient


class Clock:
    """A fake clock that advances only by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.delays: list[float] = []
        monkeypatch.setattr(retry.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(retry.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.delays.append(seconds)


def failing(times: int, error: Exception):
    """An operation that raises the error `times` times, then returns "done"."""
    remaining = [times]

    def operation() -> str:
        if remaining[0]:
            remaining[0] -= 1
            raise error
        return "done"

    return operation


BUSY = OSError(errno.EBUSY, "Please reduce your request rate.")


def test_delays_double_with_jitter_up_to_a_maximum(monkeypatch, caplog) -> None:
    clock, policy = Clock(monkeypatch), RetryPolicy(300)
    with caplog.at_level(logging.WARNING):
        assert policy.call(failing(12, BUSY)) == "done"
        assert policy.call(failing(1, BUSY)) == "done"
        assert policy.call(failing(1, ConnectionResetError(errno.ECONNRESET, "gone"))) == "done"
    for i, delay in enumerate(clock.delays[:12]):
        longest = min(20.0, 0.25 * 2**i)
        assert longest / 2 <= delay <= longest
    assert len({round(delay / min(20.0, 0.25 * 2**i), 6) for i, delay in enumerate(clock.delays[:12])}) == 12
    assert len(caplog.records) == 2, "each kind of error is logged once"
    policy.call(failing(1, OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 80)")))
    policy.call(failing(1, OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.2', 80)")))
    assert policy.take_retries()["ConnectionRefusedError ECONNREFUSED"] == 2, (
        "errors that differ only in the address are one kind"
    )
    policy.call(failing(13, BUSY))
    policy.call(failing(1, ConnectionResetError(errno.ECONNRESET, "gone")))
    assert "EBUSY" in caplog.text
    assert sorted(policy.take_retries().values()) == [1, 13]
    assert not policy.take_retries()


def test_retries_end_after_the_time_limit(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(OSError, match="reduce"):
        RetryPolicy(30).call(failing(1000, BUSY))
    assert 10 < clock.now <= 30
    clock.now = 0.0
    with pytest.raises(OSError, match="reduce"):
        RetryPolicy(30).call(failing(1000, BUSY), no_answer_seconds=3)
    assert clock.now <= 3
    clock.now = 0.0
    later = ClientResponseError(None, (), status=429)  # type: ignore[arg-type]
    assert RetryPolicy(30).call(failing(5, later), no_answer_seconds=3) == "done"
    assert clock.now > 3


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (BUSY, True),
        (TimeoutError(), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), True),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (ReadTimeoutError(endpoint_url="http://x"), True),
        (ClientPayloadError(), True),
        (FileNotFoundError(errno.ENOENT, "no"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (NoCredentialsError(), False),
        (OSError(errno.ENOSPC, "full"), False),
        (ValueError("no"), False),
    ],
)
def test_only_transient_errors_are_retried(monkeypatch, error: Exception, transient: bool) -> None:
    assert is_transient(error) == transient
    clock = Clock(monkeypatch)
    if not transient:
        with pytest.raises(type(error)):
            RetryPolicy().call(failing(1, error))
        assert not clock.delays
