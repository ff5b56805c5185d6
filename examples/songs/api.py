"""A small web API that limits, dawdles, moves and breaks, as those of others do.

Each song has its trouble, the first time that it is asked for: a redirect, a slow answer, 429 with
`Retry-After`, 503, a connection that is reset in the middle of the body. And whoever sends more
than six requests at once is sent away.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

AT_ONCE = 6
TROUBLES = ("none", "moved", "slow", "limited", "busy", "reset")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.inside += 1
            inside = self.server.inside
            self.server.asked[self.path] += 1
            first = self.server.asked[self.path] == 1
        try:
            if inside > AT_ONCE:
                self._send(429, headers={"Retry-After": "1"})
            else:
                self._answer(first)
        finally:
            with self.server.lock:
                self.server.inside -= 1

    def _answer(self, first: bool) -> None:
        version, _, number = self.path.strip("/").partition("/songs/")
        trouble = TROUBLES[int(number) % len(TROUBLES)]
        if trouble == "moved" and version == "v1":
            self._send(301, headers={"Location": f"/v2/songs/{number}"})
            return
        if trouble == "slow":
            time.sleep(0.2)
        elif trouble == "limited" and first:
            self._send(429, headers={"Retry-After": "1"})
            return
        elif trouble == "busy" and first:
            self._send(503)
            return
        body = json.dumps({"id": int(number), "title": f"Song No. {number}"}).encode()
        self._send(200, body, reset=trouble == "reset" and first)

    def _send(
        self,
        status: int,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        reset: bool = False,
    ) -> None:
        zipped = body and "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(body) if zipped else body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if reset else body)
        if reset:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.inside = 0
        self.asked: Counter[str] = Counter()


class SongApi:
    """The API, while the block runs; `url` is where, `requests` how many it has had."""

    def __enter__(self) -> SongApi:
        self._server = _Server()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def requests(self) -> int:
        return self._server.asked.total()
