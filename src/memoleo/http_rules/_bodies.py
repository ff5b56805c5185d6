"""What of a body counts, and JSON pointers (RFC 6901) into it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from memoleo.errors import ConfigError

__all__ = ["content_of", "is_json", "is_lines", "json_of", "parse_pointer", "resolve"]

_NDJSON = ("ndjson", "jsonl", "json-seq", "jsonlines")
_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)

Pointer = tuple[str, ...]


def parse_pointer(text: Any) -> Pointer:
    """Return the steps of a pointer such as ``/options/seed``; a bare name is one at the top.

    ``*`` is every item of a list and every member of an object.

    Raises
    ------
    ConfigError
        it is no pointer
    """
    if not isinstance(text, str) or not text:
        raise ConfigError(f"{text!r} is no JSON pointer: write '/options/seed', or 'seed'")
    steps = text[1:].split("/") if text.startswith("/") else [text]
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def resolve(data: Any, pointer: Pointer) -> Iterator[Any]:
    """Yield all that a pointer points to."""
    if not pointer:
        yield data
        return
    step, rest = pointer[0], pointer[1:]
    if isinstance(data, dict):
        for name in data if step == "*" else (step,):
            if name in data:
                yield from resolve(data[name], rest)
    elif isinstance(data, list):
        if step == "*":
            for item in data:
                yield from resolve(item, rest)
        elif step.isdecimal() and int(step) < len(data):
            yield from resolve(data[int(step)], rest)


def _without(data: Any, pointer: Pointer) -> None:
    *way, last = pointer
    for parent in resolve(data, tuple(way)):
        if isinstance(parent, dict):
            if last == "*":
                parent.clear()
            else:
                parent.pop(last, None)
        elif isinstance(parent, list) and last == "*":
            parent.clear()
        elif isinstance(parent, list) and last.isdecimal() and int(last) < len(parent):
            parent[int(last)] = None


def json_of(body: bytes | None) -> Any:
    """Return a body as data, or `None` if it is not JSON."""
    try:
        return msgspec.json.decode(body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_json(content_type: str) -> bool:
    """Whether a body of this type is one JSON value."""
    kind = content_type.partition(";")[0].strip().lower()
    return (kind == "application/json" or kind.endswith("+json")) and not is_lines(kind)


def is_lines(content_type: str) -> bool:
    """Whether a body of this type is a JSON value in each line."""
    return any(mark in content_type.lower() for mark in _NDJSON)


def content_of(
    body: bytes, content_type: str, keep: Sequence[Pointer] | None, ignore: Sequence[Pointer]
) -> tuple[bytes, str] | None:
    """Return the bytes of a body that count, equal for those that mean the same, and its type.

    JSON is compared by what it says, with the order that it has: servers exist to which the order
    of an object's members means something. The boundaries of a form with files mean nothing.

    Parameters
    ----------
    body, content_type
        as they are sent
    keep, ignore
        pointers to what counts, `None` for all, and to what doesn't

    Returns
    -------
    tuple
        `None` if there are pointers, and the body is not JSON
    """
    if not body:
        return b"", content_type
    pointers = keep is not None or ignore
    if pointers or is_json(content_type):
        try:
            data = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None if pointers else (b"raw" + body, content_type)
        for pointer in ignore:
            _without(data, pointer)
        if keep is not None:
            data = [["/".join(each), list(resolve(data, each))] for each in keep]
        return b"json" + _written(data), content_type.partition(";")[0].strip().lower()
    found = _BOUNDARY.search(content_type)
    if found and content_type.lower().startswith("multipart/"):
        mark = found[1].encode("latin-1", "replace")
        return b"parts" + body.replace(mark, b"boundary"), "multipart"
    return b"raw" + body, content_type


def _written(data: Any) -> bytes:
    try:
        return msgspec.json.encode(data)
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError, RecursionError):
        return json.dumps(data).encode()
