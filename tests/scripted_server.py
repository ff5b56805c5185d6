"""A server on loopback, in the test's own loop, that answers by the byte as a script says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["ScriptedServer", "answer", "scripted"]


def answer(status: str = "200 OK", body: bytes = b"song", **headers: str) -> bytes:
    """Return an answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ScriptedServer:
    """One answer after the other: bytes, `None` to reset the connection, or a coroutine function.

    A `bytes` that is cut short, followed by a reset, is a pair ``(bytes, None)``. When the script
    is over, the answer is "song".
    """

    def __init__(self) -> None:
        self.script: list[object] = []
        self.requests: list[bytes] = []
        self.serving: set[asyncio.Task[None]] = set()
        self.opened = 0

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                self.requests.append(head + await reader.readexactly(length))
                step = self.script.pop(0) if self.script else answer()
                for part in step if isinstance(step, tuple) else (step,):
                    if part is None:
                        writer.transport.abort()
                        return
                    if callable(part):
                        part = await part()
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


Step = bytes | None | Callable[[], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def scripted(*script: object) -> AsyncIterator[tuple[ScriptedServer, str]]:
    """Serve a script, and yield the server and its URL."""
    served = ScriptedServer()
    served.script += script
    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield served, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in list(served.serving):
            task.cancel()
        await asyncio.gather(*served.serving, return_exceptions=True)
