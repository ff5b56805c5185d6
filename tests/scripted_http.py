"""A server that answers as it is told, counts what it is asked, and keeps what it was sent."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["ScriptedHttp"]


class ScriptedHttp:
    """Answers on a free loopback port until the block ends.

    ``/echo`` says what it was sent and a number that grows, ``/lines`` streams NDJSON,
    ``/moved`` redirects to ``/echo``, ``/gzip`` is compressed, ``/cookie`` sets a cookie,
    ``/private`` wants a password, ``/bytes`` is no JSON, and all else is like ``/echo``.

    Attributes
    ----------
    requests
        how many came, by path
    seen
        method, path, headers and body of each
    fail
        statuses of the next answers, first one first
    answers
        what paths answer instead, as data
    headers
        more headers of every answer
    gate
        requests wait for it
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.fail: list[int] = []
        self.answers: dict[str, Any | Callable[[Any], Any]] = {}
        self.headers: list[tuple[str, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.pause = 0.0
        self._lock = threading.Lock()
        self._number = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def asked(self) -> int:
        """How many requests came."""
        return sum(self.requests.values())

    def number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def __enter__(self) -> ScriptedHttp:
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that leaves in the middle of a stream


def _handler(script: ScriptedHttp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size + 2)[:-2]
                self.rfile.readline()
            path = self.path.partition("?")[0]
            number = script.number()
            with script._lock:
                script.requests[path] += 1
                script.seen.append((self.command, self.path, dict(self.headers), body))
            script.gate.wait(20)
            time.sleep(script.pause)
            if script.fail:
                self._send(script.fail.pop(0), {"error": "made to fail"})
            elif path in script.answers:
                found = script.answers[path]
                self._send(200, found(json.loads(body or b"null")) if callable(found) else found)
            elif path == "/lines":
                self._lines(number)
            elif path == "/moved":
                self._send(302, {}, ("Location", "/echo?moved=1"))
            elif path == "/gzip":
                block = gzip.compress(json.dumps({"number": number}).encode())
                self._send(200, block, ("Content-Encoding", "gzip"))
            elif path == "/cookie":
                self._send(200, {"number": number}, ("Set-Cookie", "session=oven-ready-secret"))
            elif path == "/bytes":
                self._send(200, bytes(range(256)), ("Content-Type", "application/octet-stream"))
            elif path == "/private" and "Authorization" not in self.headers:
                self._send(401, {}, ("WWW-Authenticate", 'Basic realm="x"'))
            else:
                sent = body.decode("utf-8", "replace")
                self._send(200, {"number": number, "method": self.command, "sent": sent})

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _take

        def _send(self, status: int, answer: Any, *more: tuple[str, str]) -> None:
            block = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            headers = dict([("Content-Type", "application/json"), *more])
            self.send_response(status)
            for name, value in [*headers.items(), *script.headers]:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(block)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(block)

        def _lines(self, number: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in range(5):
                block = json.dumps({"number": number, "part": part, "text": "é"}).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    return Handler
