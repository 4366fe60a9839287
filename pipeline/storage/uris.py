"""Names: URIs and local paths, without asking any storage."""

from __future__ import annotations

import os

from pipeline.errors import UserError

# A file name that isn't UTF-8 reaches Python with lone surrogates, which no table can hold. They travel as private-use
# characters, and turn back where the file is opened.
_TO_PORTABLE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_TO_NATIVE = {portable: native for native, portable in _TO_PORTABLE.items()}


def portable_name(name: str) -> str:
    """A name as tables can hold it; `name` itself unless it isn't UTF-8."""
    return name.translate(_TO_PORTABLE)


def native_path(path: str) -> str:
    """What `portable_name` was made of."""
    return path.translate(_TO_NATIVE)


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def is_web(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


# Of addresses that are signed for whoever holds them: S3's, Google's, CloudFront's, Azure's.
_SIGNATURES = ("signature", "sig", "token")


def refuse_secret(uri: str) -> None:
    """What is told to a run is written down, so it may hold neither a password nor a signature.

    Raises:
        UserError: it holds one; the text doesn't.
    """
    refuse_password(uri)
    address, _, query = uri.partition("?")
    if "://" in uri and any(field.split("=")[0].lower().endswith(_SIGNATURES) for field in query.split("&")):
        raise UserError(f"{address}?***: a signed address is refused in settings; name a list that holds it")


def refuse_password(uri: str) -> None:
    """What is written down about a run names its URIs, so none may hold a secret.

    Raises:
        UserError: it holds one; the text doesn't.
    """
    scheme, _, rest = uri.partition("://")
    user, at, host = rest.split("/", 1)[0].rpartition("@")
    if at and ":" in user:
        raise UserError(
            f"{scheme}://***@{host}/...: a URI with a password in it is refused; credentials come from the environment"
        )


def join(base: str, *parts: str) -> str:
    """`base` extended by path parts, as URI or local path alike."""
    return "/".join([base.rstrip("/") or base, *(part.strip("/") for part in parts)])


def basename(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def suffix(uri: str) -> str:
    """The file name's extension with its dot, "" where there is none."""
    return os.path.splitext(basename(uri))[1]
