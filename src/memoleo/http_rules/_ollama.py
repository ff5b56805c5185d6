"""The API of an Ollama server: generating, chatting and embedding."""

from __future__ import annotations

from typing import Any

import msgspec

from memoleo.http_rules._bodies import json_of
from memoleo.http_rules._messages import Answer, Request
from memoleo.http_rules._urls import place_of

__all__ = ["asks", "complete", "ended"]

_ASKING = {
    "/api/chat": "messages",
    "/api/generate": "prompt",
    "/api/embed": "input",
    "/api/embeddings": "prompt",
}
_END = ("stop", "length")


def asks(request: Request) -> bool:
    """Whether a request asks the model something; without, the server loads or unloads it."""
    field = next((_ASKING[each] for each in _ASKING if _path(request).endswith(each)), None)
    body = json_of(request.body) if field else None
    return isinstance(body, dict) and bool(body.get(field)) and bool(body.get("model"))


def complete(request: Request, answer: Answer) -> bool:
    """Whether nothing of an answer is missing: it says `done`, or it has vectors.

    Who says why has to have a good reason. Older servers, and many that only speak like Ollama,
    give none: they are believed if they said something.
    """
    return ended(request, answer.body)


def ended(request: Request, body: bytes) -> bool:
    """Whether a body, of which more may be to come, has its last part."""
    try:
        values = [msgspec.json.decode(line) for line in body.splitlines() if line.strip()]
    except (msgspec.DecodeError, UnicodeDecodeError):
        values = [json_of(body)]
    if not values or not all(isinstance(each, dict) and "error" not in each for each in values):
        return False
    last: dict[str, Any] = values[-1]
    if _path(request).endswith(("/api/embed", "/api/embeddings")):
        return bool(last.get("embeddings") or last.get("embedding"))
    if last.get("done") is not True:
        return False
    return last["done_reason"] in _END if "done_reason" in last else any(map(_said, values))


def _said(part: dict[str, Any]) -> bool:
    message = part.get("message")
    holder = message if isinstance(message, dict) else part
    return any(holder.get(name) for name in ("response", "content", "thinking", "tool_calls"))


def _path(request: Request) -> str:
    return place_of(request.url).path
