"""The requests library, of which the calls that rules name are answered from a cache.

Calls are taken hold of at two places. Every one ends in ``Session.send``, where all that it says
is known; ``Session.request`` comes before, and spares a hit the making of a request that would
not be sent, which costs more than everything else together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from memoleo.errors import CircuitOpenError
from memoleo.patches._http_package import HttpPackage
from memoleo.patches._patch import Patch

if TYPE_CHECKING:
    from memoleo._exchanges.exchanges import Exchange
    from memoleo.http_rules._messages import Answer
    from memoleo.patches._http_stack import Stack

__all__ = ["RequestsPackage"]


class RequestsPackage(HttpPackage):
    """The class ``requests.Session``."""

    name = "requests"

    def failures(self) -> tuple[type[BaseException], ...]:
        """See `HttpPackage.failures`."""
        import requests

        return (requests.ConnectionError, requests.Timeout)

    def patches(self, package: ModuleType, stack: Stack) -> list[Patch]:
        """See `HttpPackage.patches`."""
        from memoleo.patches._requests_calls import Spelled

        session = package.Session
        spelled = Spelled(session)
        return [
            Patch(session, "send", lambda original: _send(original, stack, spelled)),
            Patch(session, "request", lambda original: _request(original, stack, spelled)),
        ]


def _request(original: Any, stack: Stack, spelled: Any) -> Callable[..., Any]:
    """Return what stands in for ``Session.request``."""

    @wraps(original)
    def request(self: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        if not stack.at_work():
            return original(self, method, url, *args, **kwargs)
        try:
            mark = None if args else spelled.mark(self, method, url, kwargs)
            found = None if mark is None else spelled.find(self, stack, mark, kwargs)
        except Exception as error:
            stack.note("looking for an answer", error)
            mark = found = None
        if found is not None:
            return found
        with spelled.awaiting(mark, method, url):
            return original(self, method, url, *args, **kwargs)

    return request


def _send(original: Any, stack: Stack, spelled: Any) -> Callable[..., Any]:
    """Return what stands in for ``Session.send``."""

    @wraps(original)
    def send(self: Any, request: Any, **kwargs: Any) -> Any:
        exchange = None
        if stack.at_work():
            try:
                exchange = spelled.exchange(self, stack, request, kwargs)
            except Exception as error:
                stack.note("reading a request", error)
        if exchange is None:
            return original(self, request, **kwargs)
        return _answered(exchange, original, self, request, kwargs)

    return send


def _answered(exchange: Exchange, original: Any, session: Any, request: Any, kwargs: Any) -> Any:
    from memoleo._exchanges.answers import Sent
    from memoleo.patches._ollama_models import TIMEOUT
    from memoleo.patches._passing import passing
    from memoleo.patches._requests_calls import fits, hooked
    from memoleo.patches._requests_responses import CircuitOpen, answer_of, response_of, teed

    stream = bool(kwargs.get("stream", session.stream))

    def call(extra: Mapping[str, str]) -> Sent:
        seen: list[Any] = []
        sent = hooked(request, None if stream else seen, extra)
        with passing():
            response = original(session, sent, **kwargs)
        if sent is not request and response.request is sent:
            response.request = request
        if stream:
            return Sent(None, response)
        said, body = seen[-1] if seen else (response, response.content)
        return Sent(answer_of(said, request, body), response)

    def aside(url: str) -> Answer:
        other = request.copy()
        other.method, other.url, other.body = "GET", url, None
        other.hooks = {}
        for name in ("Content-Length", "Content-Type", "Transfer-Encoding"):
            other.headers.pop(name, None)
        with passing():
            response = original(session, other, **{**kwargs, "stream": False, "timeout": TIMEOUT})
        return answer_of(response, other, response.content)

    started = time.perf_counter()
    try:
        sent = exchange.run(call, aside=aside, streamed=stream)
    except CircuitOpenError as error:
        refused = CircuitOpen(error.host, error.retry_in)
        refused.request = request
        raise refused from None
    response = sent.response
    if response is None:
        assert sent.answer is not None
        if not fits(sent.answer, kwargs):
            with passing():
                return original(session, request, **kwargs)
        adapter = session.get_adapter(request.url)
        response = response_of(sent.answer, request, adapter, stream=stream)
        return _dispatched(session, request, response, kwargs)
    if stream and not request.hooks.get("response") and not response._content_consumed:

        def keep(body: bytes, ms: float) -> None:
            exchange.keep(answer_of(response, request, body), ms)

        teed(response, keep, exchange.ended, started)
    return response


def _dispatched(session: Any, request: Any, response: Any, kwargs: Any) -> Any:
    """Let the hooks see a response, as ``Session.send`` does."""
    if not request.hooks.get("response"):
        return response
    from requests.hooks import dispatch_hook

    own = {key: value for key, value in kwargs.items() if key != "allow_redirects"}
    own.setdefault("stream", session.stream)
    own.setdefault("verify", session.verify)
    own.setdefault("cert", session.cert)
    own.setdefault("proxies", session.proxies)
    dispatch: Callable[..., Any] = dispatch_hook
    return dispatch("response", request.hooks, response, **own)
