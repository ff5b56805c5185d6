"""A real Redis server on a free port, and Upstash's REST interface in front of it."""

from __future__ import annotations

import atexit
import base64
import functools
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

redis: Any = pytest.importorskip("redis")

TOKEN = "a token for tests"
PASSWORD = "a%20password"


class RedisServer:
    """A server that can be stopped and started again on the same port."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = tempfile.mkdtemp(prefix="memoleo-redis-")
        self.options = options
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", self.folder, *self.options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "redis-server ended"
            time.sleep(0.01)
        raise AssertionError("redis-server does not listen")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(30)

    @functools.cached_property
    def _client(self) -> Any:
        return redis.Redis(port=self.port)

    def client(self) -> Any:
        return self._client

    def remove(self) -> None:
        self._client.close()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def shared_server() -> RedisServer:
    """Return the server that tests share which do no harm to it."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    server = RedisServer()
    atexit.register(server.remove)
    return server


class RestFront:
    """``POST /pipeline`` and ``/multi-exec``, as https://upstash.com/docs/redis/features/restapi.

    Attributes
    ----------
    status
        answered instead of an answer, if set
    requests
        how many came
    """

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.status = 0
        self.requests = 0
        self.body: bytes | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"


@functools.cache
def shared_front() -> RestFront:
    """Return the front that tests share which do no harm to it."""
    front = RestFront(shared_server())
    atexit.register(front.http.shutdown)
    return front


def _handler(front: RestFront) -> type[BaseHTTPRequestHandler]:
    client = front.server.client()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            front.requests += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.send(401, {"error": "Unauthorized"})
            elif front.status or front.body is not None:
                self.send(front.status or 200, {"error": "out of order"}, front.body)
            else:
                encoded = self.headers.get("Upstash-Encoding") == "base64"
                self.send(200, self.carry_out(json.loads(body), encoded=encoded))

        def carry_out(self, commands: list[list[Any]], *, encoded: bool) -> Any:
            pipeline = client.pipeline(transaction=self.path == "/multi-exec")
            for command in commands:
                pipeline.execute_command(*command)
            rows = pipeline.execute(raise_on_error=False)
            return [
                {"error": str(row)} if isinstance(row, Exception) else
                {"result": plain(row, encoded)} for row in rows
            ]  # fmt: skip

        def send(self, status: int, data: Any, raw: bytes | None = None) -> None:
            block = json.dumps(data).encode() if raw is None else raw
            self.send_response(status)
            self.send_header("Content-Length", str(len(block)))
            self.end_headers()
            self.wfile.write(block)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def plain(value: Any, encoded: bool) -> Any:
    if value is True:
        return "OK"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if encoded else value.decode()
    if isinstance(value, dict):
        return [plain(part, encoded) for pair in value.items() for part in pair]
    if isinstance(value, (list, tuple)):
        return [plain(item, encoded) for item in value]
    return value
