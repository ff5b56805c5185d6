"""Which errors pass by themselves, and when to try again.

The HTTP libraries are never imported: a class is known by the package that defines it and its
name, which holds for subclasses too, and for a library that is imported later.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from typing import Any

from memoleo.errors import ConfigError

__all__ = [
    "PASSING_STATUSES",
    "ErrorRule",
    "host_in",
    "host_of",
    "is_transient",
    "match_errors",
    "parse_retry_after",
    "retry_after",
    "status_of",
]

ErrorRule = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Exception classes, or a function that takes the error and returns whether the rule applies."""

PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses (RFC 9110, RFC 6585, RFC 8470) of a server that may answer next time."""

_LASTING_STATUSES = frozenset({400, 401, 403, 404})

_TRANSIENT = frozenset(
    {
        "builtins.ConnectionError",
        "builtins.TimeoutError",
        "asyncio.TimeoutError",
        "concurrent.TimeoutError",
        "http.IncompleteRead",
        "http.BadStatusLine",
        "ssl.SSLEOFError",
        "ssl.SSLZeroReturnError",
        "httpx.TimeoutException",
        "httpx.NetworkError",
        "httpx.RemoteProtocolError",
        "httpx.ProxyError",
        "httpcore.TimeoutException",
        "httpcore.NetworkError",
        "httpcore.RemoteProtocolError",
        "httpcore.ProxyError",
        "requests.ConnectionError",
        "requests.Timeout",
        "requests.ChunkedEncodingError",
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "urllib3.TimeoutError",
        "urllib3.NewConnectionError",
        "urllib3.ProtocolError",
        "urllib3.ProxyError",
    }
)
# A bad certificate is as bad next time, whoever cancelled a future meant it, and whoever asked to
# fail fast doesn't want to wait.
_LASTING = frozenset(
    {
        "aiohttp.ClientConnectorCertificateError",
        "aiohttp.ServerFingerprintMismatch",
        "concurrent.CancelledError",
        "memoleo.CircuitOpenError",
        "ssl.SSLCertVerificationError",
    }
)
_STATUS_ATTRIBUTE = {
    "ollama.ResponseError": "status_code",
    "aiohttp.ClientResponseError": "status",
    "urllib.HTTPError": "code",
}
_WRAPPERS = frozenset({"urllib3.MaxRetryError", "urllib.URLError"})
_NETWORK_ERRNOS = frozenset(
    number
    for name in ("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT")
    if (number := getattr(errno, name, None)) is not None
)

# What Ollama's server answers with status 500 although it will answer the same next time.
_HOPELESS = r"""(?xi)requires?\ more\ (?:\w+\ )*memory | more\ (?:\w+\ )*memory\ (?:is\ )?required
      | (?:fail\w*|error|unable|cannot|can't)\ (?:\w+\ )*pars(?:e|ing) | parse\ error
      | tool\ (?:call\ )?(?:error|pars) | \bparser\b | error\ (?:\w+\ )*tool | support\ tools
      | unmarshal | invalid\ (?:character|json|schema|grammar|format)"""


def _get(value: object, name: str) -> Any:
    # A property of somebody's exception may raise anything, and that must not hide the error.
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def _names(error: BaseException) -> set[str]:
    return {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}


def is_transient(error: BaseException) -> bool:
    """Return whether an error may be gone at the next attempt: the rule of `retried` without `on`.

    Connection errors, timeouts, and the statuses 408, 425, 429, 500, 502, 503 and 504, of the
    standard library, httpx, requests, aiohttp, urllib3 and ollama.
    """
    if not isinstance(error, Exception) or _lasts(error):
        return False
    status = status_of(error)
    if status is not None:
        return status in PASSING_STATUSES
    names = _names(error)
    if names & _WRAPPERS:
        reason = _get(error, "reason")
        return isinstance(reason, BaseException) and is_transient(reason)
    if names & _TRANSIENT:
        return True
    if "socket.gaierror" in names:
        import socket

        return isinstance(error, OSError) and error.errno == socket.EAI_AGAIN
    return isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS


def _lasts(error: BaseException) -> bool:
    """Return whether an error is sure to come again, whatever rule would retry it."""
    status = status_of(error)
    if status in _LASTING_STATUSES:
        return True
    if status == 500 and re.search(_HOPELESS, _body(error)):
        return True
    return any(_names(cause) & _LASTING for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it says it comes from, in each of the libraries' ways."""
    for _ in range(10):
        yield error
        first = error.args[0] if error.args else None
        for cause in (error.__cause__, _get(error, "reason"), first):
            if isinstance(cause, BaseException):
                error = cause
                break
        else:
            return


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of a known library carries."""
    names = _names(error)
    status = None
    for name, attribute in _STATUS_ATTRIBUTE.items():
        if name in names:
            status = _get(error, attribute)
    if names & {"httpx.HTTPStatusError", "requests.HTTPError"}:
        status = _get(_get(error, "response"), "status_code")
    return status if isinstance(status, int) else None


def _body(error: BaseException) -> str:
    """Return what an error's answer said, as far as it has been read: never read on from here."""
    for name in ("error", "message"):
        text = _get(error, name)
        if isinstance(text, str):
            return text
    # httpx and requests both keep the body in `_content` once it was read; their public `text`
    # would raise, or read from a connection that the user streams from.
    content = _get(_get(error, "response"), "_content")
    return content.decode(errors="replace") if isinstance(content, bytes) else ""


def host_of(error: BaseException) -> str | None:
    """Return the host that an error of a known library came from, as ``host`` or ``host:port``."""
    for cause in _all_causes(error):
        for url in (
            _get(_get(cause, "request"), "url"),
            _get(_get(cause, "request_info"), "url"),
            _get(cause, "url"),
        ):
            if url is not None and (host := host_in(str(url))):
                return host
        for holder in (cause, _get(cause, "pool"), _get(cause, "conn")):
            host, port = _get(holder, "host"), _get(holder, "port")
            if isinstance(host, str) and host:
                return f"{host}:{port}" if isinstance(port, int) else host
    return None


def _all_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it says it comes from, and what it came up under."""
    yield from _causes(error)
    for _ in range(10):
        if error.__context__ is None:
            return
        error = error.__context__
        yield error


def host_in(url: str) -> str | None:
    """Return the host of a URL as budgets and breakers name it: ``host:port``."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.hostname if port is None else f"{parts.hostname}:{port}"


def match_errors(rule: Any, what: str) -> Callable[[Exception], bool]:
    """Return the predicate for what a user gave: classes, or a predicate.

    Raises
    ------
    ConfigError
        it is neither, or a class that stands for cancellation
    """
    classes = rule if isinstance(rule, tuple) else (rule,)
    if classes and all(isinstance(each, type) for each in classes):
        for each in classes:
            if not issubclass(each, Exception):
                raise ConfigError(
                    f"{what}={each.__name__}: name subclasses of Exception; what else there is "
                    "stops a call from outside and is never retried"
                )
        if what == "on":
            return lambda error: isinstance(error, classes) and not _lasts(error)
        return lambda error: isinstance(error, classes)
    if callable(rule):
        return lambda error: bool(rule(error))
    raise ConfigError(
        f"{what}={rule!r}: give an exception class, a tuple of them, or a function that takes "
        "the error and returns a bool"
    )


def retry_after(error: BaseException, now: float) -> float | None:
    """Return the seconds that the server asked to wait, or `None` if it didn't.

    Parameters
    ----------
    error
        looked at with what it was raised from; ollama keeps the answer in the error's context
    now
        seconds since the epoch, for an answer that has no `Date`
    """
    for cause in _causes(error):
        if (headers := _headers(cause)) is not None:
            try:
                value = headers.get("Retry-After") or headers.get("retry-after")
                date = headers.get("Date") or headers.get("date")
            except Exception:
                return None
            return None if value is None else parse_retry_after(str(value), now, date)
    return None


def _headers(error: BaseException) -> Any:
    if "ollama.ResponseError" in _names(error):
        context = error.__context__
        if context is None or status_of(context) != status_of(error):
            return None
        error = context
    headers = _get(_get(error, "response"), "headers")
    if headers is None:
        headers = _get(error, "headers")
    return headers if hasattr(headers, "get") else None


def parse_retry_after(value: str, now: float, date: str | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header names (RFC 9110, section 10.2.3).

    Parameters
    ----------
    value
        seconds, or an HTTP date
    now
        seconds since the epoch
    date
        the answer's `Date`, if it has one: what the server's clock said, so that a difference
        between the two clocks doesn't count
    """
    value = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        return float(value)
    then = _timestamp(value)
    if then is None:
        return None
    base = _timestamp(date) if date is not None else None
    return max(0.0, then - (now if base is None else base))


def _timestamp(value: str) -> float | None:
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        parsed = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
