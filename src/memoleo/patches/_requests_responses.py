"""Responses of `requests` to neutral answers, and back to real responses."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, stream_decode_response_unicode
from urllib3 import HTTPHeaderDict, HTTPResponse

from memoleo.errors import CircuitOpenError
from memoleo.http_rules._messages import Answer, Request

__all__ = ["CircuitOpen", "answer_of", "request_of", "response_of", "teed"]

_LARGEST = 64 * 1024**2
"""Bytes of a body that is recorded while it is read."""


def request_of(prepared: Any, kwargs: dict[str, Any], caller: bytes) -> Request:
    """Return what a prepared request says."""
    body = prepared.body
    if isinstance(body, str):
        body = body.encode("utf-8")
    headers = [(_text(name), _text(value)) for name, value in prepared.headers.items()]
    return Request(
        prepared.method,
        prepared.url,
        headers,
        b"" if body is None else body if type(body) is bytes else None,
        caller,
        kwargs.get("verify") is not False or not prepared.url.lower().startswith("https"),
    )


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def answer_of(response: Any, request: Any, body: bytes) -> Answer:
    """Return what a response says.

    Parameters
    ----------
    response
        of which the body has been read
    request
        the prepared request that it answers
    body
        the body, decoded
    """
    raw = response.raw
    pairs = getattr(raw, "headers", None) or response.headers
    answered = response.request
    return Answer(
        response.status_code,
        response.reason or "",
        getattr(raw, "version", 11) or 11,
        [(str(name), str(value)) for name, value in pairs.items()],
        body,
        response.elapsed.total_seconds(),
        response.url if response.url != request.url else "",
        answered.method if answered.method != request.method else "",
        [answer_of(each, request, each.content) for each in response.history],
    )


def response_of(answer: Answer, request: Any, adapter: Any, *, stream: bool) -> Any:
    """Return a new response.

    Parameters
    ----------
    answer
        what it says
    request
        the prepared request that it answers; it is handed out with the response
    adapter
        what would have sent it
    stream
        whether the body is left to be read
    """
    response: Any = requests.Response()
    body = bytes(answer.body)
    headers: Any = CaseInsensitiveDict()
    for name, value in answer.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    response.status_code = answer.status
    response.reason = answer.reason
    response.headers = headers
    response.encoding = get_encoding_from_headers(headers)
    response.url = answer.url or request.url
    response.elapsed = timedelta(seconds=answer.elapsed)
    response.request = _redirected(request, answer) if answer.url or answer.method else request
    response.connection = adapter
    response.raw = HTTPResponse(
        io.BytesIO(body if stream else b""),
        # The body is decoded already.
        HTTPHeaderDict([each for each in answer.headers if each[0].lower() not in _CODED]),
        answer.status,
        answer.version,
        reason=answer.reason,
        preload_content=False,
        request_method=request.method,
    )
    if not stream:
        response._content = body
        response._content_consumed = True
    response.history = [
        response_of(each, request, adapter, stream=False) for each in answer.history
    ]
    response.from_cache = True
    return response


class CircuitOpen(CircuitOpenError, requests.ConnectionError):
    """A call that was not made since its host fails, for those who expect errors of `requests`."""

    request: Any = None
    response: Any = None


_CODED = ("content-encoding", "transfer-encoding", "content-length")


def _redirected(request: Any, answer: Answer) -> Any:
    """Return the request that a redirect made of the first one."""
    again = request.copy()
    again.url = answer.url or request.url
    if answer.method:
        again.method = answer.method
        again.body = None
        for name in ("Content-Length", "Content-Type", "Transfer-Encoding"):
            again.headers.pop(name, None)
    return again


def teed(
    response: Any,
    keep: Callable[[bytes, float], None],
    ended: Callable[[bytes], bool],
    started: float,
) -> None:
    """Record the body of a response while it is read.

    Parameters
    ----------
    response
        unread
    keep
        called with the whole body, decoded, and the milliseconds that it took to come
    ended
        whether a body that was not read to its end has nothing more to say
    started
        when the request was sent, on the clock `time.perf_counter`
    """
    original: Callable[..., Iterator[Any]] = response.iter_content
    decode: Callable[..., Iterator[Any]] = stream_decode_response_unicode
    chunks: list[bytes] = []
    state = {"first": True, "size": 0}

    def done() -> None:
        keep(b"".join(chunks), (time.perf_counter() - started) * 1000)

    def recorded(source: Iterator[bytes]) -> Iterator[bytes]:
        whole = False
        try:
            for chunk in source:
                state["size"] += len(chunk)
                if state["size"] <= _LARGEST:
                    chunks.append(chunk)
                yield chunk
            whole = True
        finally:
            # Nobody else finds out: the reader has left, or an error is under way.
            if state["size"] <= _LARGEST and (whole or ended(b"".join(chunks))):
                done()

    def iter_content(chunk_size: Any = 1, decode_unicode: bool = False) -> Iterator[Any]:
        if response._content_consumed or not state["first"]:
            return original(chunk_size, decode_unicode)
        state["first"] = False
        found: Any = recorded(original(chunk_size))
        return decode(found, response) if decode_unicode else found

    response.iter_content = iter_content
