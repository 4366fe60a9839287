"""Operations on the text of URIs and local paths; none of them accesses storage."""

from __future__ import annotations

import hashlib
import os
import re

from pipeline.errors import UserError

# Python represents the bytes of a file name that is not UTF-8 as lone surrogates, which Arrow tables cannot store. They
# are mapped to private-use characters, and back where the file is opened.
_TO_PORTABLE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_TO_NATIVE = {portable: native for native, portable in _TO_PORTABLE.items()}


def portable_name(name: str) -> str:
    """A file name that tables can store: `name` itself if it is UTF-8, else with private-use characters."""
    return name.translate(_TO_PORTABLE)


def native_path(path: str) -> str:
    """The inverse of `portable_name`."""
    return path.translate(_TO_NATIVE)


def plain_name(key: str) -> str:
    """A key of a collection without its suffix, as part of a file name: only plain characters, at most 100."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", key.removesuffix(suffix(key)))[-100:]


def unique_name(key: str) -> str:
    """The same with a digest of the key, which keeps names apart that differ in other characters."""
    return f"{plain_name(key)}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def is_local(uri: str) -> bool:
    """Whether a URI is a local path or file://."""
    return "://" not in uri or uri.startswith("file://")


def is_web(uri: str) -> bool:
    """Whether a URI is http:// or https://."""
    return uri.startswith(("http://", "https://"))


# How the names of signing query parameters end: presigned URLs of S3, Google Cloud Storage, CloudFront and Azure.
_SIGNATURES = ("signature", "sig", "token")


def refuse_secret(uri: str) -> None:
    """Refuse a setting that contains a password or the signature of a presigned URL: runs store their settings.

    Raises:
        UserError: the setting contains one; the message does not repeat it.
    """
    refuse_password(uri)
    address, _, query = uri.partition("?")
    if "://" in uri and any(field.split("=")[0].lower().endswith(_SIGNATURES) for field in query.split("&")):
        raise UserError(f"{address}?***: a signed address is refused in settings; write it to a list file")


def refuse_password(uri: str) -> None:
    """Refuse a URI that contains a password: the files of a run contain its URIs.

    Raises:
        UserError: the URI contains one; the message does not repeat it.
    """
    scheme, _, rest = uri.partition("://")
    user, at, host = rest.split("/", 1)[0].rpartition("@")
    if at and ":" in user:
        raise UserError(
            f"{scheme}://***@{host}/...: a URI with a password in it is refused; set credentials in the environment"
        )


def normalised(uri: str) -> str:
    """A URI with its scheme in lower case; local paths are returned unchanged."""
    scheme, separator, rest = uri.partition("://")
    return scheme.lower() + separator + rest if separator else uri


def join(base: str, *parts: str) -> str:
    """A URI or local path extended by path parts."""
    return "/".join([base.rstrip("/") or base, *(part.strip("/") for part in parts)])


def basename(uri: str) -> str:
    """The last component of a URI or path."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def suffix(uri: str) -> str:
    """The file name's extension with its dot, "" if it has none."""
    return os.path.splitext(basename(uri))[1]
