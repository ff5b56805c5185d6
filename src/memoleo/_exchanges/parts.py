"""What the key of an HTTP request is made of, for those who ask why it missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from memoleo.http_rules._bodies import content_of
from memoleo.http_rules._key import caller_of, counted_headers, counted_query
from memoleo.http_rules._messages import Request
from memoleo.http_rules._rule import Rule
from memoleo.http_rules._urls import place_of
from memoleo.keys._portrait import Description, Portrait

__all__ = ["describe"]

_PORTRAIT = Portrait(
    "http",
    ("server", "method", "path", "query", "headers", "body", "type of the body", "caller",
     "whether certificates are checked", "rule"),
    {},
)  # fmt: skip


def describe(
    rule: Rule, request: Request, fingerprint: Callable[[list[bytes]], bytes]
) -> Description:
    """Return what the key of a request is made of; see `key_of` for the parameters."""
    parsed = rule.parsed
    found = content_of(
        request.body or b"", request.header("content-type"), parsed.pointers, parsed.ignored
    )
    content, kind = found or (b"", "")
    place = place_of(request.url)
    headers = counted_headers(rule, request)
    values = (
        place.origin,
        request.method,
        place.path,
        _named([_pair(field) for field in counted_query(rule, place.query)]),
        _named(headers),
        _data(content),
        kind,
        fingerprint(caller_of(request, parsed.uncounted)) if rule.per_caller else b"",
        request.verified,
        parsed.signature,
    )
    return Description(_PORTRAIT, values)


def _pair(field: str) -> tuple[str, str]:
    name, _, value = field.partition("=")
    return name, value


def _named(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return pairs by name; a name that comes more than once has them all."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = [*found[name], value] if name in found else [value]
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def _data(content: bytes) -> Any:
    """Return JSON as the data that it stands for, so that its members are compared one by one."""
    if not content.startswith(b"json"):
        return content
    try:
        return msgspec.json.decode(content[len(b"json") :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return content
