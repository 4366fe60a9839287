"""A local S3 server for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from support.cluster import free_port
from support.faults import FaultProxy

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "posemilltestkey",
    "AWS_SECRET_ACCESS_KEY": "posemilltestsecret",
    "AWS_REGION": "us-east-1",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


class S3Server:
    """A local S3 server (rclone) that can be killed and restarted, behind a proxy that injects faults.

    Attributes:
        faults: the proxy.
    """

    def __init__(self, root: Path) -> None:
        (root / "bucket").mkdir(parents=True)
        self._root = root
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.faults = FaultProxy(self._port)

    def start(self) -> None:
        keys = f"{S3_ENVIRONMENT['AWS_ACCESS_KEY_ID']},{S3_ENVIRONMENT['AWS_SECRET_ACCESS_KEY']}"
        rclone = Path(sys.executable).parent / "rclone"
        options = ["--auth-key", keys, "--addr", f"127.0.0.1:{self._port}", "--vfs-cache-mode=off"]
        with (self._root.parent / "log").open("ab") as log:
            self._process = subprocess.Popen([rclone, "serve", "s3", *options, self._root], stdout=log, stderr=log)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError("rclone serve s3 did not start within 10 s")

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
