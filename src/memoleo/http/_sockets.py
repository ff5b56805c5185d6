"""The sockets of a pool: none is lost, whatever is cancelled on its way.

httpcore and anyio forget a connection without closing it in three cases: its TLS handshake is
cancelled, or one of several requests that wait for it to open is, or the request in the very moment
in which it is open. The socket would stay open until it is collected, and Python would warn of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import anyio
import httpcore

from memoleo.http._ending import ended

__all__ = ["Sockets"]


class Sockets:
    """What a transport of httpx has open.

    httpx has no public way to its sockets, so this looks where they are today. What is not there,
    or can't be followed, is left alone: it works as it would without this.
    """

    def __init__(self) -> None:
        self._streams: set[httpcore.AsyncNetworkStream] = set()
        self.closed = False

    def watch(self, transport: Any) -> None:
        """Take note of each socket that a transport opens from now on."""
        pool: Any = getattr(transport, "_pool", None)
        backend = getattr(pool, "_network_backend", None)
        if hasattr(backend, "connect_tcp"):
            with contextlib.suppress(AttributeError):
                pool._network_backend = _Watching(backend, self)

    async def close(self) -> None:
        """Close those that are open still; one that opens later is closed at once."""
        self.closed = True
        while self._streams:
            with contextlib.suppress(Exception):
                await self._streams.pop().aclose()

    def opened(self, stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
        """Note a stream until it is closed, or becomes another one by its handshake."""
        try:
            aclose, start_tls = stream.aclose, stream.start_tls
        except AttributeError:
            return stream

        async def close() -> None:
            self._streams.discard(stream)
            await aclose()

        async def shake_hands(*args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
            try:
                inner = await start_tls(*args, **kwargs)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await close()
                raise
            self._streams.discard(stream)
            return self.opened(inner)

        # Set on the stream itself: another one around it would cost at every read.
        try:
            stream.aclose = close  # type: ignore[method-assign]
            stream.start_tls = shake_hands  # type: ignore[method-assign]
        except AttributeError:
            return stream
        self._streams.add(stream)
        return stream


class _Watching:
    """A backend of httpcore in every respect; what it connects is noted."""

    def __init__(self, backend: Any, sockets: Sockets) -> None:
        self._backend = backend
        self._sockets = sockets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return await self._connected(self._backend.connect_tcp(*args, **kwargs))

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return await self._connected(self._backend.connect_unix_socket(*args, **kwargs))

    async def _connected(
        self, connecting: Coroutine[Any, Any, httpcore.AsyncNetworkStream]
    ) -> httpcore.AsyncNetworkStream:
        task = asyncio.ensure_future(connecting)
        try:
            stream = await asyncio.shield(task)
            if self._sockets.closed:
                # By the time it was there, its client was closed.
                await stream.aclose()
                raise RuntimeError("Cannot send a request, as the client has been closed.")
            return self._sockets.opened(stream)
        except asyncio.CancelledError:
            late = await ended(task)
            if late is not None:
                with anyio.CancelScope(shield=True):
                    await late.aclose()
            raise
