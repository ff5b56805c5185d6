"""A real server on loopback, HTTP/1.1 or HTTP/2 over TLS, that counts what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator

import hypercorn.asyncio
import trustme
from hypercorn.config import Config

__all__ = ["CountingApp", "names_on_loopback", "serving"]

DOMAIN = "songs.test"


class CountingApp:
    """An ASGI application that answers with what a script says, and checks limits.

    Requests are counted until just before the end of their answers, so that a count above a limit
    means that the client sent too many. `together` holds the first requests back until so many
    have come.
    """

    def __init__(self, together: int = 0) -> None:
        self.together = together
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_at_once = 0
        self.requests: list[tuple[str, str, str]] = []
        self.versions: Counter[str] = Counter()
        self.bodies: list[bytes] = []
        self.script: list[tuple[int, list[tuple[bytes, bytes]], bytes]] = []
        self.hold: threading.Event | None = None
        self.held = threading.Event()
        self._all_there: asyncio.Event | None = None

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = dict(scope["headers"])
        host = headers[b"host"].decode().partition(":")[0]
        self.inside[host] += 1
        self.most[host] = max(self.most[host], self.inside[host])
        self.most_at_once = max(self.most_at_once, self.inside.total())
        self.requests.append((scope["method"], host, scope["path"]))
        self.versions[scope["http_version"]] += 1
        left = False
        try:
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self.bodies.append(body)
            status, extra, content = self.script.pop(0) if self.script else (200, [], b"song")
            await self._wait(receive)
            await send({"type": "http.response.start", "status": status, "headers": extra})
            await send({"type": "http.response.body", "body": content, "more_body": True})
            left = True
            self.inside[host] -= 1
            await send({"type": "http.response.body", "body": b""})
        finally:
            if not left:
                self.inside[host] -= 1

    async def _wait(self, receive) -> None:
        if self.together:
            if self._all_there is None:
                self._all_there = asyncio.Event()
            if self.inside.total() >= self.together:
                self._all_there.set()
            await self._all_there.wait()
            await asyncio.sleep(0.001)
        if self.hold is not None:
            self.held.set()
            while not self.hold.is_set():
                await asyncio.sleep(0.001)


@contextlib.contextmanager
def serving(app, *, tls: bool) -> Iterator[tuple[str, int, ssl.SSLContext | bool]]:
    """Serve an application, and yield scheme, port, and what a client is to verify with."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.2
    verify: ssl.SSLContext | bool = True
    with contextlib.ExitStack() as stack:
        if tls:
            authority = trustme.CA()
            issued = authority.issue_cert(f"*.{DOMAIN}", "127.0.0.1", "localhost")
            config.certfile = stack.enter_context(issued.cert_chain_pems[0].tempfile())
            config.keyfile = stack.enter_context(issued.private_key_pem.tempfile())
            verify = ssl.create_default_context()
            authority.configure_trust(verify)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]
        started, stop = threading.Event(), None

        async def main() -> None:
            nonlocal stop
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            stop = lambda: loop.call_soon_threadsafe(ended.set)  # noqa: E731
            started.set()
            await hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait)

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        started.wait()
        try:
            yield ("https" if tls else "http"), port, verify
        finally:
            stop()
            thread.join()


@contextlib.contextmanager
def names_on_loopback() -> Iterator[list[str]]:
    """Let five names stand for this machine, and yield them."""
    original = socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        return original("127.0.0.1" if name and name.endswith(DOMAIN) else host, *args, **kwargs)

    socket.getaddrinfo = resolve
    try:
        yield [f"h{number}.{DOMAIN}" for number in range(5)]
    finally:
        socket.getaddrinfo = original
