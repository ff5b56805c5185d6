"""What one request asks of the network client, and whether it may be sent again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from memoleo._retries.rules import PASSING_STATUSES
from memoleo._units import Duration, parse_duration
from memoleo.errors import ConfigError

__all__ = [
    "Options",
    "Wish",
    "extended",
    "failing_fast",
    "failure_of",
    "may_repeat",
    "options_of",
    "whole_number",
]

Wish = tuple[str, "Duration | None", "Duration | None"]
"""Type, TTL and ``stale_if_error`` that a call asks for itself."""

_NAME = "memoleo"

# RFC 9110, section 9.2.2: what may be sent again although nobody knows whether it arrived.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NOT_DONE = frozenset({425, 429, 503})


class Options(msgspec.Struct, frozen=True):
    """What one request asks beyond what httpx knows; see `AsyncNetworkClient.request`."""

    deadline: float | None = None
    attempts: int | None = None
    repeatable: bool | None = None
    wish: Wish | None = None
    fail_fast: bool = False


_NONE = Options()


def extended(
    extensions: Mapping[str, Any] | None,
    deadline: Duration | None,
    attempts: int | None,
    repeatable: bool | None,
    wish: Wish | None = None,
) -> dict[str, Any]:
    """Return the extensions of a request, with what it asks for.

    Raises
    ------
    ConfigError
        something of it is wrong
    """
    asked = Options(
        None if deadline is None else parse_duration(deadline, "deadline"),
        whole_number("attempts", attempts),
        repeatable,
        wish,
    )
    return {**(extensions or {}), _NAME: asked}


def failing_fast(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extensions of a request that is not to be sent to a host that keeps failing."""
    asked = msgspec.structs.replace(extensions.get(_NAME, _NONE), fail_fast=True)
    return {**extensions, _NAME: asked}


def options_of(request: httpx.Request) -> Options:
    """Return what a request asks for."""
    asked: Options = request.extensions.get(_NAME, _NONE)
    return asked


def whole_number(name: str, value: Any) -> int | None:
    """Return what a user gave for a number of things, or `None`.

    Raises
    ------
    ConfigError
        it is no whole number from 1 up
    """
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"{name}={value!r}: give a whole number, 1 or more")
    return value


def failure_of(response: httpx.Response) -> httpx.HTTPStatusError | None:
    """Return the error that an answer stands for if it may be another one next time."""
    if response.status_code not in PASSING_STATUSES:
        return None
    return httpx.HTTPStatusError(
        f"{response.status_code} {response.reason_phrase} for url {str(response.url)!r}",
        request=response.request,
        response=response,
    )


def may_repeat(request: httpx.Request, error: Exception, repeatable: bool | None) -> bool:
    """Whether sending a request again does no harm, whatever the chances."""
    if isinstance(error, _NOT_SENT):
        return True
    if not isinstance(request.stream, httpx.ByteStream):
        # Its body can be read only once.
        return False
    if repeatable is not None:
        return repeatable
    if request.method in _IDEMPOTENT or "Idempotency-Key" in request.headers:
        return True
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _NOT_DONE
