"""Requests that may open a connection with HTTP/2, and may be cancelled while they do."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from memoleo.http._ending import ended

__all__ = ["send_carefully"]


async def send_carefully(
    transport: httpx.AsyncBaseTransport, request: httpx.Request
) -> httpx.Response:
    """Send a request; cancelled, let it first finish what others need.

    The first request of a connection greets the server for all that share it, which takes some
    turns of the loop. If it is cancelled just then, httpcore leaves a connection to the others
    that fails them. So a cancellation waits for the end of the greeting, and for nothing else.

    Raises
    ------
    httpx.RemoteProtocolError
        also for errors of h2, which httpcore lets through as they are
    """
    given = request.extensions
    greeting = _Greeting(given.get("trace"))
    request.extensions = {**given, "trace": greeting}
    task = asyncio.ensure_future(transport.handle_async_request(request))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        greeting.cancel(task)
        response = await ended(task, cancel=False)
        if response is not None:
            await response.aclose()
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "h2":
            raise
        raise httpx.RemoteProtocolError(str(error), request=request) from error
    finally:
        request.extensions = given


class _Greeting:
    """Follows a request through httpcore by its extension "trace"."""

    def __init__(self, trace: Any) -> None:
        self._trace = trace
        self._under_way = False
        self._doomed: asyncio.Task[httpx.Response] | None = None

    async def __call__(self, name: str, info: Any) -> None:
        if name == "http2.send_connection_init.started":
            self._under_way = True
        elif self._under_way and not name.startswith("http2.send_connection_init.complete"):
            self._under_way = False
            if self._doomed is not None:
                self._doomed.cancel()
        if self._trace is not None:
            await self._trace(name, info)

    def cancel(self, task: asyncio.Task[httpx.Response]) -> None:
        """Cancel a request, at the end of its greeting if it is at it."""
        if self._under_way:
            self._doomed = task
        else:
            task.cancel()
