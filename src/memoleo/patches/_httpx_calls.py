"""Calls of `httpx` clients: answered from a cache, or sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import httpx

from memoleo._exchanges.answers import Sent
from memoleo._exchanges.exchanges import Exchange
from memoleo.errors import CircuitOpenError
from memoleo.http_rules._messages import Answer
from memoleo.patches._http_stack import Stack
from memoleo.patches._httpx_responses import (
    CircuitOpen,
    Recorder,
    answer_of,
    authorize,
    fits,
    request_of,
    response_of,
    with_extra,
)
from memoleo.patches._ollama_models import TIMEOUT
from memoleo.patches._passing import passing

__all__ = ["asend", "send"]


class _Call:
    """A call that is to be answered; what its synchronous and asynchronous forms share."""

    def __init__(
        self, exchange: Exchange, client: Any, request: Any, auth: Any, kwargs: Any
    ) -> None:
        self.auth = auth
        self.exchange = exchange
        self.client = client
        self.request = request
        self.stream = bool(kwargs.get("stream", False))
        follows = kwargs.get("follow_redirects")
        self.follows = follows if isinstance(follows, bool) else client.follow_redirects
        self.options = {name: value for name, value in kwargs.items() if name != "stream"}
        self.started = time.perf_counter()

    def aside(self, url: str) -> Any:
        """Return a request for another URL of the same server, by the same caller."""
        headers = httpx.Headers(self.request.headers)
        for name in ("Content-Length", "Content-Type", "Transfer-Encoding"):
            headers.pop(name, None)
        timeout = httpx.Timeout(TIMEOUT).as_dict()
        return httpx.Request("GET", url, headers=headers, extensions={"timeout": timeout})

    def said(self, response: Any, request: Any) -> Answer:
        return answer_of(response, request, response.content)

    def sent(self, response: Any, request: Any) -> Sent:
        if request is not self.request and response.request is request:
            response.request = self.request
        if self.stream:
            return Sent(None, response)
        return Sent(answer_of(response, self.request, response.content), response)

    def refused(self, error: CircuitOpenError) -> Exception:
        refused = CircuitOpen(error.host, error.retry_in)
        refused._request = self.request
        return refused

    def fits(self, sent: Sent) -> bool:
        return sent.response is not None or sent.answer is None or fits(sent.answer, self.follows)

    def response(self, sent: Sent) -> Any:
        response = sent.response
        if response is None:
            assert sent.answer is not None
            authorize(self.request, self.auth)
            return response_of(sent.answer, self.request, self.client, stream=self.stream)
        if self.stream and not response.is_stream_consumed:

            def keep(body: bytes, ms: float) -> None:
                self.exchange.keep(answer_of(response, self.request, body), ms)

            Recorder(response, keep, self.exchange.ended, self.started)
        return response


def _begun(stack: Stack, client: Any, request: Any, kwargs: Any) -> _Call | None:
    """Return a call that is to be answered; `None` for one that is none of our business."""
    if not stack.at_work():
        return None
    try:
        if not stack.names(request.method, str(request.url)) or client.is_closed:
            return None
        auth = kwargs.get("auth", httpx.USE_CLIENT_DEFAULT)
        if auth is httpx.USE_CLIENT_DEFAULT:
            auth = client.auth
        asked = request_of(client, request, auth)
        exchange = None if asked is None else stack.exchange(asked)
        return None if exchange is None else _Call(exchange, client, request, auth, kwargs)
    except Exception as error:
        stack.note("reading a request", error)
        return None


def send(original: Any, stack: Stack) -> Callable[..., Any]:
    """Return what stands in for ``Client.send``."""

    @wraps(original)
    def send(self: Any, request: Any, **kwargs: Any) -> Any:
        call = _begun(stack, self, request, kwargs)
        if call is None:
            return original(self, request, **kwargs)

        def ask(extra: Mapping[str, str]) -> Sent:
            own = with_extra(request, extra)
            with passing():
                response = original(self, own, **kwargs)
            return call.sent(response, own)

        def aside(url: str) -> Answer:
            own = call.aside(url)
            with passing():
                return call.said(original(self, own, **call.options), own)

        try:
            sent = call.exchange.run(ask, aside=aside, streamed=call.stream)
        except CircuitOpenError as error:
            raise call.refused(error) from None
        if not call.fits(sent):
            with passing():
                return original(self, request, **kwargs)
        response = call.response(sent)
        if sent.response is None:
            for hook in self.event_hooks["response"]:
                hook(response)
        return response

    return send


def asend(original: Any, stack: Stack) -> Callable[..., Any]:
    """Return what stands in for ``AsyncClient.send``."""

    @wraps(original)
    async def send(self: Any, request: Any, **kwargs: Any) -> Any:
        call = _begun(stack, self, request, kwargs)
        if call is None:
            return await original(self, request, **kwargs)

        async def ask(extra: Mapping[str, str]) -> Sent:
            own = with_extra(request, extra)
            with passing():
                response = await original(self, own, **kwargs)
            return call.sent(response, own)

        async def aside(url: str) -> Answer:
            own = call.aside(url)
            with passing():
                return call.said(await original(self, own, **call.options), own)

        try:
            sent = await call.exchange.arun(ask, aside=aside, streamed=call.stream)
        except CircuitOpenError as error:
            raise call.refused(error) from None
        if not call.fits(sent):
            with passing():
                return await original(self, request, **kwargs)
        response = call.response(sent)
        if sent.response is None:
            for hook in self.event_hooks["response"]:
                await hook(response)
        return response

    return send
