"""Counts the calls of a model on their way to a server that doesn't count them itself."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import httpx

__all__ = ["MODEL_PATHS", "CountingProxy"]

MODEL_PATHS = ("/api/generate", "/api/chat", "/api/embed", "/api/embeddings")

# Those that belong to one connection, not to the message (RFC 9110, section 7.6.1).
_HOP_BY_HOP = {
    "connection",
    "content-encoding",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class CountingProxy:
    """A server on a free loopback port that passes everything on, and counts.

    Parameters
    ----------
    target
        the address of the server behind it
    """

    def __init__(self, target: str) -> None:
        self.model_calls = 0
        self._lock = threading.Lock()
        self._client = httpx.Client(base_url=target, timeout=None)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The address to ask instead of the target's."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._client.close()

    def _count(self, path: str) -> None:
        if path in MODEL_PATHS:
            with self._lock:
                self.model_calls += 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                proxy._count(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                request = proxy._client.build_request(
                    self.command, self.path, content=body, headers=headers
                )
                try:
                    answer = proxy._client.send(request, stream=True)
                except httpx.TransportError:
                    self.send_error(502)
                    return
                try:
                    self.send_response(answer.status_code)
                    for name, value in answer.headers.items():
                        if name not in _HOP_BY_HOP:
                            self.send_header(name, value)
                    if self.command == "HEAD":
                        self.end_headers()
                        return
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for block in answer.iter_bytes():
                        if block:
                            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
                    self.wfile.write(b"0\r\n\r\n")
                finally:
                    answer.close()

            do_GET = do_HEAD = do_POST = do_DELETE = pass_on

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
