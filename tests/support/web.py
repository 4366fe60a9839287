"""A web server of files."""

from __future__ import annotations

import contextlib
from http.server import SimpleHTTPRequestHandler
from pathlib import Path


class Ranges(SimpleHTTPRequestHandler):
    """Sends parts of a file, and counts the bytes that it sends."""

    sent = 0
    supports_ranges = True

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        part = data
        if asked and self.supports_ranges:
            first, last = asked.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        type(self).sent += len(part)
        with contextlib.suppress(OSError):  # a client may have seen enough
            self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        pass
