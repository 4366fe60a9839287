"""A proxy in front of the S3 server that injects network faults and server errors into some of the requests."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("slow_down", "reset", "truncated", "stall", "lost_answer")
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_HOP_BY_HOP_HEADERS = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class FaultProxy:
    """Forwards requests to the server, and injects faults into a share of them.

    Attributes:
        port: the port on which the proxy listens.
        share: share of the requests with a fault, 0 to 1.
        kinds: the faults to inject, of FAULTS, one after another.
        stall_seconds: delay of a stalled request.
        done: number of injected faults by kind.
    """

    def __init__(self, server_port: int, port: int = 0, seed: int = 0) -> None:
        self.share = 0.0
        self.kinds: tuple[str, ...] = FAULTS
        self.stall_seconds = 10.0
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server_port = server_port
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the connection was reset, by the client or by this proxy
                    self.close_connection = True

            def __getattr__(self, name: str) -> object:
                if name.startswith("do_"):
                    return lambda: proxy._answer(self)
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _fault(self) -> str | None:
        with self._lock:
            if self._random.random() >= self.share:
                return None
            fault = self.kinds[self.done.total() % len(self.kinds)]
            self.done[fault] += 1
            return fault

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self._fault()
        if fault == "slow_down":
            handler.send_response(503)
            handler.send_header("Content-Length", str(len(_SLOW_DOWN)))
            handler.end_headers()
            handler.wfile.write(_SLOW_DOWN)
            return
        if fault == "reset":
            _reset(handler)
            return
        if fault == "stall":
            time.sleep(self.stall_seconds)
        server = http.client.HTTPConnection("127.0.0.1", self._server_port, timeout=60)
        try:
            server.request(handler.command, handler.path, body, dict(handler.headers.items()))
            answer = server.getresponse()
            content = answer.read()
        except OSError:
            _reset(handler)  # the server is down
            return
        finally:
            server.close()
        if fault == "lost_answer":
            _reset(handler)
            return
        handler.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP_HEADERS:
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else len(content)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if fault == "truncated" else content)
        if fault == "truncated":
            _reset(handler)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """Abort the connection with a TCP reset, as when a machine crashes."""
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
