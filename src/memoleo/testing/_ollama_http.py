"""How the local server speaks HTTP: streams of lines, errors, clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from memoleo.testing._ollama_completion import Parts
from memoleo.testing._ollama_errors import OllamaError

try:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("The local server needs starlette: pip install 'memoleo[local]'") from error

__all__ = ["Handler", "each", "guarded", "ndjson", "until_gone"]

Handler = Callable[[Request], Awaitable[Response]]
_T = TypeVar("_T")


async def each(parts: list[dict[str, Any]]) -> Parts:
    """Yield parts that are there already."""
    for part in parts:
        yield part


def ndjson(parts: Parts) -> Response:
    """Stream parts, one a line; they are closed when the client goes away."""

    async def lines() -> AsyncGenerator[bytes, None]:
        try:
            async for part in parts:
                yield json.dumps(part, ensure_ascii=False).encode() + b"\n"
        finally:
            await parts.aclose()

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def until_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Await the work, and cancel it if the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise OllamaError(499, "request canceled")
        return task.result()
    finally:
        for unfinished in (task, gone):
            unfinished.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def guarded(handler: Handler) -> Handler:
    """Turn an `OllamaError` into the answer that the Ollama server gives."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except OllamaError as error:
            headers = {}
            if error.retry_after is not None:
                headers["Retry-After"] = f"{error.retry_after:g}"
            return JSONResponse({"error": error.message}, error.status, headers)

    return answer
