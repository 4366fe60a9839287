import errno
import logging

import pytest
from aiohttp import ClientPayloadError, ClientResponseError
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from pipeline.storage import retry
from pipeline.storage.retry import RetryPolicy, is_transient


class Clock:
    """Time that advances by sleeping only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        monkeypatch.setattr(retry.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(retry.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


def failing(times: int, error: Exception):
    left = [times]

    def operation() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return operation


BUSY = OSError(errno.EBUSY, "Please reduce your request rate.")


def test_waits_double_with_jitter_up_to_a_bound(monkeypatch, caplog) -> None:
    clock, patient = Clock(monkeypatch), RetryPolicy(300)
    with caplog.at_level(logging.WARNING):
        assert patient.with_retries(failing(12, BUSY)) == "done"
        assert patient.with_retries(failing(1, BUSY)) == "done"
        assert patient.with_retries(failing(1, ConnectionResetError(errno.ECONNRESET, "gone"))) == "done"
    for i, wait in enumerate(clock.waits[:12]):
        longest = min(20.0, 0.25 * 2**i)
        assert longest / 2 <= wait <= longest
    assert len({round(w / min(20.0, 0.25 * 2**i), 6) for i, w in enumerate(clock.waits[:12])}) == 12
    assert len(caplog.records) == 2, "each kind is told once"
    patient.with_retries(failing(1, OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 80)")))
    patient.with_retries(failing(1, OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.2', 80)")))
    assert patient.take_retries()["ConnectionRefusedError ECONNREFUSED"] == 2, "addresses don't make kinds"
    patient.with_retries(failing(13, BUSY))
    patient.with_retries(failing(1, ConnectionResetError(errno.ECONNRESET, "gone")))
    assert "EBUSY" in caplog.text
    assert sorted(patient.take_retries().values()) == [1, 13]
    assert not patient.take_retries()


def test_patience_ends(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(OSError, match="reduce"):
        RetryPolicy(30).with_retries(failing(1000, BUSY))
    assert 10 < clock.now <= 30
    clock.now = 0.0
    with pytest.raises(OSError, match="reduce"):
        RetryPolicy(30).with_retries(failing(1000, BUSY), unanswered=3)
    assert clock.now <= 3
    clock.now = 0.0
    later = ClientResponseError(None, (), status=429)  # type: ignore[arg-type]
    assert RetryPolicy(30).with_retries(failing(5, later), unanswered=3) == "done"
    assert clock.now > 3


@pytest.mark.parametrize(
    ("error", "passing"),
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
def test_what_passes(monkeypatch, error: Exception, passing: bool) -> None:
    assert is_transient(error) == passing
    clock = Clock(monkeypatch)
    if not passing:
        with pytest.raises(type(error)):
            RetryPolicy().with_retries(failing(1, error))
        assert not clock.waits
