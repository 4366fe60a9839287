"""Errors of storage libraries become errors that name the URI."""

import errno

import pytest

from pipeline import storage
from pipeline.storage.filesystems import with_retries


class NoCredentialsError(Exception):
    """As botocore names it; not an OSError."""


class EndpointError(Exception):
    pass


def failing(error: Exception):
    def operation() -> None:
        raise error

    return operation


def test_exceptions_of_libraries_become_storage_errors_with_the_uri() -> None:
    with pytest.raises(storage.StorageFailed, match=r"^memory://x/y: no answer \(EndpointError\)$"):
        with_retries("memory://x/y", failing(EndpointError("no answer\nand more lines")))
    with pytest.raises(storage.CredentialsRefused, match=r"^memory://x/y: no credentials found .*AWS_ACCESS_KEY_ID"):
        with_retries("memory://x/y", failing(NoCredentialsError("Unable to locate credentials")))


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), FileNotFoundError(errno.ENOENT, "no bucket")])
def test_errors_of_the_system_keep_their_type_and_number_and_name_the_uri(error: OSError) -> None:
    with pytest.raises(type(error), match="memory://x/y: ") as raised:
        with_retries("memory://x/y", failing(error))
    assert raised.value.errno == error.errno
    assert str(raised.value).count("memory://") == 1
    with pytest.raises(ValueError, match=r"^plain$"):
        with_retries("memory://x/y", failing(ValueError("plain")))


def test_access_is_checked_with_short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("pipeline.storage.objects._info", lambda uri: seen.append(storage.RETRY_POLICY.seconds))
    before = storage.RETRY_POLICY.seconds
    storage.check_access("memory://x/y")
    storage.check_access("/local/path")
    assert len(seen) == 1
    assert seen[0] < before
    assert storage.RETRY_POLICY.seconds == before
