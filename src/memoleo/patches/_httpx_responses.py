"""Requests and responses of `httpx` to neutral ones, and back to real responses."""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import httpx

from memoleo.errors import CircuitOpenError
from memoleo.http_rules._messages import Answer, Request
from memoleo.patches._ollama_server import route_of, transport_of

__all__ = [
    "CircuitOpen",
    "Recorder",
    "answer_of",
    "authorize",
    "fits",
    "request_of",
    "response_of",
    "with_extra",
]

_LARGEST = 64 * 1024**2
"""Bytes of a body that is recorded while it is read."""

_VERSIONS = {"HTTP/1.0": 10, "HTTP/1.1": 11, "HTTP/2": 20, "HTTP/3": 30}
_NAMES = {number: name for name, number in _VERSIONS.items()}


class CircuitOpen(CircuitOpenError, httpx.ConnectError):
    """A call that was not made since its host fails, for those who expect errors of `httpx`."""

    def __init__(self, host: str, retry_in: float) -> None:
        super().__init__(host, retry_in)
        self._request = None


def request_of(client: Any, request: Any, auth: Any) -> Request | None:
    """Return what a request says; `None` if that can't be told.

    Parameters
    ----------
    client
        which sends it
    request
        of `httpx`
    auth
        what the caller gave for it, or the client has
    """
    hooks = client.event_hooks
    if hooks["request"]:
        return None  # they may change it on its way
    headers = [(_text(name), _text(value)) for name, value in request.headers.raw]
    caller = b""
    if auth is not None:
        basic = _basic(auth)
        if basic is not None:
            headers = [each for each in headers if each[0].lower() != "authorization"]
            headers.append(("Authorization", basic))
        elif type(auth) is httpx.DigestAuth:
            caller = repr(
                (getattr(auth, "_username", b""), getattr(auth, "_password", b""))
            ).encode()
        else:
            return None
    route = route_of(client, request.url)
    if route is None:
        return None
    try:
        body = request.content
    except httpx.RequestNotRead:
        return None
    url = str(request.url)
    verified = not url.startswith("https") or _verified(client, request.url)
    return Request(request.method, url, headers, body, caller + route, verified)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def authorize(request: Any, auth: Any) -> None:
    """Add to a request what basic authentication adds before it is sent."""
    basic = None if auth is None else _basic(auth)
    if basic is not None:
        request.headers["Authorization"] = basic


def _basic(auth: Any) -> str | None:
    """Return the header that basic authentication sends, if that is what it is."""
    if isinstance(auth, tuple) and len(auth) == 2:
        pair = [each.encode() if isinstance(each, str) else bytes(each) for each in auth]
        return "Basic " + b64encode(b":".join(pair)).decode()
    if type(auth) is httpx.BasicAuth:
        found: str = auth._auth_header
        return found
    return None


def _verified(client: Any, url: Any) -> bool:
    pool = getattr(transport_of(client, url), "_pool", None)
    context = getattr(pool, "_ssl_context", None)
    return context is None or context.verify_mode is not ssl.CERT_NONE


def answer_of(response: Any, request: Any, body: bytes) -> Answer:
    """Return what a response says.

    Parameters
    ----------
    response
        of which the body has been read
    request
        what it answers
    body
        the body, decoded
    """
    answered = response.request
    try:
        elapsed = response.elapsed.total_seconds()
    except RuntimeError:
        elapsed = 0.0
    return Answer(
        response.status_code,
        response.reason_phrase,
        _VERSIONS.get(response.http_version, 11),
        [(_text(name), _text(value)) for name, value in response.headers.raw],
        body,
        elapsed,
        str(answered.url) if answered.url != request.url else "",
        answered.method if answered.method != request.method else "",
        [answer_of(each, request, each.content) for each in response.history],
    )


def response_of(answer: Answer, request: Any, client: Any, *, stream: bool) -> Any:
    """Return a new response.

    Parameters
    ----------
    answer
        what it says
    request
        what it answers
    client
        which would have sent it
    stream
        whether the body is left to be read
    """
    body = bytes(answer.body)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    moved = bool(answer.url or answer.method)
    response: Any = httpx.Response(
        answer.status,
        # The body is decoded already.
        headers=[each for each in raw if each[0].lower() not in _CODED],
        stream=httpx.ByteStream(body),
        request=_redirected(request, answer) if moved else request,
        extensions={
            "http_version": _NAMES.get(answer.version, "HTTP/1.1").encode(),
            "reason_phrase": answer.reason.encode("latin-1", "replace"),
        },
        history=[response_of(each, request, client, stream=False) for each in answer.history],
        default_encoding=client._default_encoding,
    )
    if stream:
        # Chosen before the headers say more than is true of this body.
        response._get_content_decoder()
    else:
        response.read()
    response.headers = httpx.Headers(raw)
    response.elapsed = timedelta(seconds=answer.elapsed)
    response.from_cache = True
    return response


_CODED = (b"content-encoding", b"transfer-encoding", b"content-length")


def _redirected(request: Any, answer: Answer) -> Any:
    """Return the request that a redirect made of the first one."""
    headers = httpx.Headers(request.headers)
    if answer.method:
        for name in ("Content-Length", "Transfer-Encoding"):
            headers.pop(name, None)
    url = httpx.URL(answer.url) if answer.url else request.url
    if url.netloc != request.url.netloc:
        headers["Host"] = url.netloc.decode("ascii")
        headers.pop("Authorization", None)
    content = None if answer.method else request.content
    return httpx.Request(answer.method or request.method, url, headers=headers, content=content)


def with_extra(request: Any, extra: Mapping[str, str]) -> Any:
    """Return a request with headers added."""
    if not extra:
        return request
    headers = httpx.Headers(request.headers)
    headers.update(extra)
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        content=request.content,
        extensions=request.extensions,
    )


def fits(answer: Answer, follows: bool) -> bool:
    """Whether an answer is one to a caller who does, or doesn't, follow redirects."""
    if not follows:
        return not answer.history
    return answer.status not in (301, 302, 303, 307, 308)


class Recorder:
    """Records the body of a response while it is read.

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

    def __init__(
        self,
        response: Any,
        keep: Callable[[bytes, float], None],
        ended: Callable[[bytes], bool],
        started: float,
    ) -> None:
        self._keep = keep
        self._ended = ended
        self._started = started
        self._chunks: list[bytes] = []
        self._size = 0
        self._iterate = response.iter_bytes
        self._aiterate = response.aiter_bytes
        self._response = response
        response.iter_bytes = self.iter_bytes
        response.aiter_bytes = self.aiter_bytes

    def _add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= _LARGEST:
            self._chunks.append(chunk)

    def _finish(self, *, whole: bool) -> None:
        if self._size > _LARGEST:
            return
        body = b"".join(self._chunks)
        if whole or self._ended(body):
            self._keep(body, (time.perf_counter() - self._started) * 1000)

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Stand in for the method of the response."""
        if self._response.is_stream_consumed:
            yield from self._iterate(chunk_size)
            return
        whole = False
        try:
            for chunk in self._iterate(chunk_size):
                self._add(chunk)
                yield chunk
            whole = True
        finally:
            # Nobody else finds out: the reader has left, or an error is under way.
            self._finish(whole=whole)

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Do what `iter_bytes` does."""
        if self._response.is_stream_consumed:
            async for chunk in self._aiterate(chunk_size):
                yield chunk
            return
        whole = False
        try:
            async for chunk in self._aiterate(chunk_size):
                self._add(chunk)
                yield chunk
            whole = True
        finally:
            self._finish(whole=whole)
