"""The site as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from memoleo.serve._site import Request, Site

__all__ = ["ASGIApp"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ASGIApp:
    """Answers in a thread, so that the loop goes on while the store is read.

    By the ASGI specification 3.0, for asyncio. Mounted in another application it takes
    ``root_path`` into account.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            request = _request(scope)
            answer = await asyncio.to_thread(self._site.answer, request)
            headers = [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in answer.headers
            ]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await send(start)
            body = b"" if request.method == "HEAD" else answer.body
            await send({"type": "http.response.body", "body": body})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})


def _request(scope: Scope) -> Request:
    root = scope.get("root_path", "").rstrip("/")
    path = scope["path"]
    # Newer servers put the whole path here, older ones what follows the root.
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(scope["method"], root, path, query, headers)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
