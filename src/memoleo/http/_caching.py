"""Which answers of the network client come from the cache: rules, and what a call says itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import httpx

from memoleo._cache.cache import Cache
from memoleo._cache.default import get_cache
from memoleo._exchanges.answers import Sent
from memoleo._exchanges.exchanges import Exchange, Exchanges
from memoleo.config import _settings
from memoleo.http._asked import Wish, failing_fast
from memoleo.http_rules._presets import rules_of
from memoleo.http_rules._rule import Rule
from memoleo.patches._httpx_responses import (
    answer_of,
    authorize,
    fits,
    request_of,
    response_of,
    with_extra,
)
from memoleo.patches._passing import passing

__all__ = ["Caching"]

_MOST = 256

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Caching:
    """The cached part of one client.

    Parameters
    ----------
    rules
        as for `memoleo.enable`; `None` takes those of the settings
    cache
        `None` for the default cache, looked up at each call

    Raises
    ------
    ConfigError
        a rule is wrong
    """

    def __init__(self, rules: Iterable[Any] | None, cache: Cache | None) -> None:
        given = _settings.current().http_rules if rules is None else rules
        self._cache: Callable[[], Cache] = get_cache if cache is None else lambda: cache
        self._named = self._exchanges(rules_of(given))
        self._wished: dict[tuple[str, Wish], Exchanges] = {}

    def _exchanges(self, rules: Iterable[Rule]) -> Exchanges:
        return Exchanges(rules, self._cache, lambda: (httpx.TransportError,), breakers=None)

    def wish(self, method: str, wish: Wish) -> Exchanges:
        """Return what answers a call that says itself how it is kept.

        Raises
        ------
        ConfigError
            its type or a duration is wrong
        """
        method = method.upper()
        found = self._wished.get((method, wish))
        if found is None:
            type_, ttl, excuse = wish
            rule = Rule(
                method=method, url="re:.*", type=type_, ttl=ttl, stale_if_error=excuse,
                revalidate=True,
            )  # fmt: skip
            if len(self._wished) >= _MOST:
                self._wished.clear()
            found = self._wished[method, wish] = self._exchanges((rule,))
        return found

    def begin(
        self, client: httpx.AsyncClient, request: httpx.Request, auth: Any, wish: Wish | None
    ) -> Exchange | None:
        """Return a call that is to be answered; `None` for one that is nobody's business here."""
        exchanges = self._named
        if wish is not None:
            exchanges = self.wish(request.method, wish)
        elif not exchanges.rules or not exchanges.named(request.method, str(request.url)):
            return None
        try:
            asked = request_of(client, request, auth)
            return None if asked is None else exchanges.exchange(asked)
        except Exception as error:
            exchanges.note("reading a request", error)
            return None

    async def answer(
        self,
        exchange: Exchange,
        client: httpx.AsyncClient,
        request: httpx.Request,
        auth: Any,
        follows: bool,
        send: Send,
    ) -> httpx.Response:
        """Answer a call from the cache, or by sending it."""

        async def ask(extra: Mapping[str, str]) -> Sent:
            own = with_extra(request, extra)
            if exchange.rule.breaker:
                # The transport counts what becomes of it, and so it refuses too.
                own.extensions = failing_fast(own.extensions)
            with passing():
                response = await send(own)
            if own is not request and response.request is own:
                response.request = request
            return Sent(answer_of(response, request, response.content), response)

        sent = await exchange.arun(ask)
        if sent.response is not None:
            response: httpx.Response = sent.response
            return response
        assert sent.answer is not None
        if not fits(sent.answer, follows):
            # What was stored for callers who follow redirects, or who don't.
            with passing():
                return await send(request)
        authorize(request, auth)
        response = response_of(sent.answer, request, client, stream=False)
        for hook in client.event_hooks["response"]:
            await hook(response)
        return response
