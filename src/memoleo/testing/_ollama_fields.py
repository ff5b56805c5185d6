"""The fields of a request to Ollama, read with the checks and the messages of its server.

Source of names, defaults and messages: ``api/types.go`` and ``server/routes.go`` of Ollama.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

from memoleo.testing._ollama_errors import OllamaError

__all__ = ["FOREVER", "body_of", "field", "grammar_of", "keep_alive_of", "options_of"]

FOREVER = math.inf
DEFAULT_KEEP_ALIVE_S = 300.0

_T = TypeVar("_T")

_GO_TYPES: dict[type, str] = {str: "string", bool: "bool", list: "slice", dict: "map", int: "int"}
_JSON_TYPES = {str: "string", bool: "bool", list: "array", dict: "object"}

_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")

_INTEGERS: dict[str, int] = {
    "num_ctx": 0,
    "num_batch": 512,
    "num_gpu": -1,
    "main_gpu": 0,
    "num_thread": 0,
    "num_keep": 4,
    "seed": -1,
    "num_predict": -1,
    "top_k": 40,
    "repeat_last_n": 64,
}
_FLOATS: dict[str, float] = {
    "temperature": 0.8,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}

_SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def body_of(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that a request carries."""
    if not raw.strip():
        raise OllamaError(400, "missing request body")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise OllamaError(400, f"invalid JSON: {error}") from None
    if not isinstance(body, dict):
        kind = _JSON_TYPES.get(type(body), "number")
        raise OllamaError(400, f"json: cannot unmarshal {kind} into Go value of type api.Request")
    return body


def field(body: dict[str, Any], name: str, kind: type[_T], default: _T) -> _T:
    """Return a field of the exact JSON type, or the default where it is absent or null."""
    value = body.get(name)
    if value is None:
        return default
    # In JSON, true is no number.
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    found = _JSON_TYPES.get(type(value), "number")
    raise OllamaError(
        400,
        f"json: cannot unmarshal {found} into Go struct field Request.{name} "
        f"of type {_GO_TYPES.get(kind, kind.__name__)}",
    )


def keep_alive_of(body: dict[str, Any]) -> float | None:
    """Return ``keep_alive`` in seconds, `FOREVER` for a negative one, ``None`` if it is absent."""
    value = body.get("keep_alive")
    if value is None:
        return None
    if isinstance(value, str):
        seconds = _go_duration(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise OllamaError(400, f"Unsupported type: {json.dumps(value)}")
    return FOREVER if seconds < 0 else seconds


def _go_duration(text: str) -> float:
    if text.lstrip("+-") == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        problem = "missing unit in" if re.fullmatch(r"[-+]?[\d.]+", text) else "invalid"
        raise OllamaError(400, f'time: {problem} duration "{text}"')
    total = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))
    return -total if text.startswith("-") else total


def options_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return all options that have a meaning here, defaults filled in; others are ignored."""
    given = {k: v for k, v in field(body, "options", dict, {}).items() if v is not None}
    options: dict[str, Any] = {**_INTEGERS, **_FLOATS, "stop": []}
    for name, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in _INTEGERS:
            if not number:
                raise OllamaError(500, f'option "{name}" must be of type integer')
            options[name] = int(value)
        elif name in _FLOATS:
            if not number:
                raise OllamaError(500, f'option "{name}" must be of type float32')
            options[name] = float(value)
        elif name == "stop":
            if not isinstance(value, list):
                raise OllamaError(500, 'option "stop" must be of type array')
            if not all(isinstance(item, str) for item in value):
                raise OllamaError(500, 'option "stop" must be of an array of strings')
            options[name] = value
    return options


def grammar_of(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the JSON schema that ``format`` asks for, or ``None`` for free text."""
    wanted = body.get("format")
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        wanted = {"type": "object"}
    if not isinstance(wanted, dict):
        raise OllamaError(
            500,
            f"invalid format: {json.dumps(json.dumps(wanted))}; "
            'expected "json" or a valid JSON Schema object',
        )
    if not _schema_is_known(wanted, wanted):
        raise OllamaError(500, "invalid JSON schema in format")
    # A small model, left free to choose white space, fills its budget with it.
    return {
        **wanted,
        "x-guidance": {
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
        },
    }


def _schema_is_known(schema: Any, root: dict[str, Any]) -> bool:
    # llama.cpp answers without any constraint if it can't compile a schema, so the usual
    # mistakes are looked for here.
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict):
        return False
    kinds = schema.get("type", [])
    if not isinstance(kinds, list):
        kinds = [kinds]
    if any(kind not in _SCHEMA_TYPES for kind in kinds):
        return False
    reference = schema.get("$ref")
    if reference is not None and not _resolves(reference, root):
        return False
    inner: list[Any] = []
    for name in ("properties", "$defs", "definitions"):
        group = schema.get(name, {})
        if not isinstance(group, dict):
            return False
        inner.extend(group.values())
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        group = schema.get(name, [])
        if not isinstance(group, list):
            return False
        inner.extend(group)
    for name in ("items", "additionalProperties"):
        if name in schema:
            inner.append(schema[name])
    return all(_schema_is_known(part, root) for part in inner)


def _resolves(reference: Any, root: dict[str, Any]) -> bool:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
        if not isinstance(place, dict) or step not in place:
            return False
        place = place[step]
    return True
