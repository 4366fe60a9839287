"""Storage access by URI: local paths, s3://, gs://, http(s):// and every other protocol of fsspec.

All other packages open URIs through this one. Credentials and endpoints come from the environment variables that the
storage's own tools read (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, ...), never from
settings, so no run file can contain a secret. Remote operations are retried after transient errors (`retry.py`).
"""

from pipeline.storage.cache import cache_folder, file_sha256, local_copy, sha256
from pipeline.storage.filesystems import RETRY_POLICY, CredentialsRefused, StorageFailed
from pipeline.storage.listing import glob_files, list_files
from pipeline.storage.objects import (
    Access,
    ChangedObject,
    Entry,
    MissingObject,
    check_access,
    delete,
    exists,
    is_file,
    open_read,
    open_write,
    read_bytes,
    read_entry,
    read_many,
    stat,
    write_bytes,
)
from pipeline.storage.uris import (
    basename,
    is_local,
    join,
    normalised,
    plain_name,
    portable_name,
    refuse_password,
    refuse_secret,
    suffix,
    unique_name,
)

__all__ = [
    "RETRY_POLICY",
    "Access",
    "ChangedObject",
    "CredentialsRefused",
    "Entry",
    "MissingObject",
    "StorageFailed",
    "basename",
    "cache_folder",
    "check_access",
    "delete",
    "exists",
    "file_sha256",
    "glob_files",
    "is_file",
    "is_local",
    "join",
    "list_files",
    "local_copy",
    "normalised",
    "open_read",
    "open_write",
    "plain_name",
    "portable_name",
    "read_bytes",
    "read_entry",
    "read_many",
    "refuse_password",
    "refuse_secret",
    "sha256",
    "stat",
    "suffix",
    "unique_name",
    "write_bytes",
]
