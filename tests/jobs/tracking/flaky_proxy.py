"""A proxy in front of a server that misbehaves as servers do: slow, with errors, cut off, answering
nonsense, or never.
"""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("error 500", "error 429", "cut before", "cut after", "nonsense", "slow", "silent")
"""`cut before` and `after` the server has carried the request out: a client cannot tell which."""
SLOW_SECONDS, SILENT_SECONDS = 0.3, 3.0


class FlakyProxy(ThreadingHTTPServer):
    """Answers a share of the requests with a fault drawn by a seeded generator; the others are the
    server's own.
    """

    daemon_threads = True

    def __init__(self, server: str, faults: tuple[str, ...], share: float, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.faults, self.share = urlsplit(server).netloc, faults, share
        self.dice, self.lock = random.Random(seed), threading.Lock()
        self.done: Counter[str] = Counter()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self) -> str:
        with self.lock:
            fault = self.dice.choice(self.faults) if self.dice.random() < self.share else "none"
            self.done[fault] += 1
        return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def do_GET(self) -> None:
        fault = self.server.draw()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "silent":
            time.sleep(SILENT_SECONDS)
        if fault in ("cut before", "silent"):
            return self._hang_up()
        if fault.startswith("error"):
            return self._answer(
                int(fault.split()[1]), b'{"error_code": "INTERNAL_ERROR", "message": "flaky"}'
            )
        time.sleep(SLOW_SECONDS if fault == "slow" else 0)
        behind = HTTPConnection(self.server.behind, timeout=60)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "connection")
        }
        behind.request(self.command, self.path, body, headers | {"Host": self.server.behind})
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        if fault == "cut after":
            return self._hang_up()
        if fault == "nonsense":
            return self._answer(200, b"<html>not what you asked for")
        return self._answer(
            answer.status, content, answer.headers.get("Content-Type", "application/json")
        )

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def flaky(server: str, *faults: str, share: float, seed: int = 0) -> Iterator[FlakyProxy]:
    """A proxy in front of a server for the time of the context."""
    proxy = FlakyProxy(server, faults or FAULTS, share, seed)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
