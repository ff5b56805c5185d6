"""`AsyncNetworkClient`: httpx with limits per host, retries, and a pool per event loop."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any

import httpx

from memoleo._breaker import Breakers, get_breakers
from memoleo._cache.cache import Cache
from memoleo._mapping import mapping
from memoleo._mapping.progress import Progress, showing
from memoleo._retries.flow import Backoff, RetryPolicy, make_policy
from memoleo._retries.rules import is_transient
from memoleo._units import Duration
from memoleo.config import _settings
from memoleo.errors import ConfigError
from memoleo.http._asked import (
    Options,
    Wish,
    extended,
    options_of,
    whole_number,
)
from memoleo.http._attempting import attempt
from memoleo.http._caching import Caching
from memoleo.http._pools import Pools
from memoleo.http._transport import LoopTransport

__all__ = ["AsyncNetworkClient", "Wanted"]

Wanted = str | httpx.URL | httpx.Request | tuple[str, "str | httpx.URL"] | Mapping[str, Any]
"""A request of `gather`: a URL to get, (method, URL), arguments of `request`, or a request."""

_GATHERED = 1000


class AsyncNetworkClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` that keeps to limits, tries again, and survives event loops.

    What it adds: at most so many requests at once, in all and to one host, first come, first
    served; the retries of `memoleo.retried`, with no slot held while they wait; one pool of
    connections per running event loop, closed when the loop or the client ends; HTTP/2 where the
    server negotiates it over TLS; a deadline for a whole request. Everything else is httpx's.

    Parameters
    ----------
    max_concurrent_requests, per_host_limit
        requests at once, in each event loop; `None` takes ``[networking]`` (16 and 6)
    attempts
        how often a request is sent at most; `None` takes ``retry_attempts`` (3)
    backoff_ms
        as for `memoleo.retried`; `None` takes ``retry_backoff_ms`` (100, 300, 900)
    deadline
        how long a request may take with all its waiting and attempts, up to the head of the
        answer if it is streamed; `None` sets no limit
    fail_fast
        raise `memoleo.CircuitOpenError` at once for a host that failed again and again
    breakers
        circuits of one's own; `None` shares those of the process
    rules
        which answers are cached, as for `memoleo.enable`; `None` takes ``[[http.rules]]``. A
        streamed answer never is
    cache
        where; `None` is the default cache
    timeout
        as for httpx; left out, ``timeout_connect`` and ``timeout_read`` (10 and 180 s)
    http2
        offer HTTP/2; `None` does if the extra ``memoleo[http]`` is installed
    limits, transport, mounts, options
        as for `httpx.AsyncClient`

    Raises
    ------
    ConfigError
        one of them is wrong
    """

    def __init__(
        self,
        *,
        max_concurrent_requests: int | None = None,
        per_host_limit: int | None = None,
        attempts: int | None = None,
        backoff_ms: Backoff | None = None,
        deadline: Duration | None = None,
        fail_fast: bool = False,
        breakers: Breakers | None = None,
        rules: Iterable[Any] | None = None,
        cache: Cache | None = None,
        timeout: Any = httpx.USE_CLIENT_DEFAULT,
        http2: bool | None = None,
        limits: httpx.Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None = None,
        **options: Any,
    ) -> None:
        network = _settings.current().networking
        total = whole_number("max_concurrent_requests", max_concurrent_requests)
        total = network.max_concurrent_requests if total is None else total
        per_host = whole_number("per_host_limit", per_host_limit)
        per_host = network.per_host_limit if per_host is None else per_host
        self._policy: RetryPolicy = make_policy(
            is_transient,
            network.retry_attempts if attempts is None else attempts,
            network.retry_backoff_ms if backoff_ms is None else backoff_ms,
            True,
            None,
            deadline,
        )
        self._caching = Caching(rules, cache)
        self._pools = Pools(total, per_host)
        # A client that is dropped without being closed leaves its connections to their loops.
        weakref.finalize(self, self._pools.abandon).atexit = False
        self._wrap: Callable[..., LoopTransport] = partial(
            LoopTransport,
            self._pools,
            get_breakers() if breakers is None else breakers,
            fail_fast,
        )
        if timeout is httpx.USE_CLIENT_DEFAULT:
            timeout = httpx.Timeout(
                network.timeout_read, connect=network.timeout_connect, pool=None
            )
        if limits is None:
            limits = httpx.Limits(
                max_connections=None, max_keepalive_connections=total, keepalive_expiry=30.0
            )
        super().__init__(
            timeout=timeout,
            http2=_offers_http2(http2),
            limits=limits,
            transport=transport,
            mounts=None
            if mounts is None
            else {
                pattern: None if each is None else self._wrap(partial(_given, each))
                for pattern, each in mounts.items()
            },
            **options,
        )
        self._check_transports()

    # httpx makes its transports, those of proxies too, by these two methods.

    def _init_transport(self, *args: Any, **options: Any) -> LoopTransport:
        return self._wrap(partial(super()._init_transport, *args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> LoopTransport:
        return self._wrap(partial(super()._init_proxy_transport, *args, **options))

    def _check_transports(self) -> None:
        # Another httpx may make them elsewhere: no request is to go past limits without a word.
        made = [getattr(self, "_transport", None), *getattr(self, "_mounts", {None: None}).values()]
        if made[0] is None or not all(
            isinstance(each, (LoopTransport, type(None))) for each in made
        ):
            raise ConfigError(
                f"httpx {httpx.__version__} makes its transports in a way that memoleo doesn't "
                "know, so no limit would hold: update memoleo, or install an httpx from before"
            )

    async def request(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        type: str | None = None,
        ttl: Duration | None = None,
        stale_if_error: Duration | None = None,
        deadline: Duration | None = None,
        attempts: int | None = None,
        repeatable: bool | None = None,
        extensions: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request as `httpx.AsyncClient.request` does, and read its answer.

        Parameters
        ----------
        method, url, extensions, options
            as for httpx
        type, ttl
            given one of them, the answer is cached, if it is a success: under the method, the
            URL with its query sorted, the body, the headers that count, and who asks. `type` is
            the category, `ttl` how long it is fresh. When that is over, the server is asked
            whether it has changed
        stale_if_error
            how long after that it is still served if the server fails
        deadline, attempts
            as for the client
        repeatable
            whether it does no harm to send the request twice. Left out: GET, HEAD, OPTIONS, PUT,
            DELETE, TRACE, what is cached, and what has an ``Idempotency-Key``; any other is sent
            again only if it surely wasn't carried out

        Raises
        ------
        ConfigError
            an argument is wrong
        httpx.HTTPError
            the last attempt's, with the number of attempts in its notes
        """
        wish: Wish | None = None
        if type is not None or ttl is not None or stale_if_error is not None:
            wish = ("http" if type is None else type, ttl, stale_if_error)
            self._caching.wish(method, wish)
        extensions = extended(extensions, deadline, attempts, repeatable, wish)
        return await super().request(method, url, extensions=extensions, **options)

    async def get(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a GET request; see `request`."""
        return await self.request("GET", url, **options)

    async def options(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send an OPTIONS request; see `request`."""
        return await self.request("OPTIONS", url, **options)

    async def head(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a HEAD request; see `request`."""
        return await self.request("HEAD", url, **options)

    async def post(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a POST request; see `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a PUT request; see `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a PATCH request; see `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Send a DELETE request; see `request`."""
        return await self.request("DELETE", url, **options)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        deadline: Duration | None = None,
        attempts: int | None = None,
        repeatable: bool | None = None,
        extensions: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and leave its answer to be read in the block, as httpx does.

        Its slot stays taken for that long. What fails while the body is read is not tried again.
        Parameters are those of `request`.
        """
        extensions = extended(extensions, deadline, attempts, repeatable)
        async with super().stream(method, url, extensions=extensions, **options) as response:
            yield response

    async def gather(
        self, requests: Iterable[Wanted], *, progress: Progress = None, **options: Any
    ) -> list[httpx.Response | Exception]:
        """Send many requests, and return answers in their order.

        Parameters
        ----------
        requests
            URLs to get, ``(method, URL)``, mappings of arguments of `request`, or requests of
            httpx; taken one at a time, some ahead of those that run
        progress
            True, or a text, for a bar on a terminal; or a callable that gets (done, total)
        options
            further arguments of `request`, for all but requests of httpx

        Returns
        -------
        list
            an answer for each request, whatever its status, or the exception that it ended in
        """
        with showing(progress, "requests") as told:
            plan = mapping.Mapping(requests, lambda wanted: None, stop=False, told=told)
            return await mapping.arun(plan, partial(self._fetch, options), _GATHERED)

    async def _fetch(self, options: Mapping[str, Any], wanted: Wanted) -> httpx.Response:
        if isinstance(wanted, httpx.Request):
            return await self.send(wanted)
        if isinstance(wanted, Mapping):
            return await self.request(**{"method": "GET", **options, **wanted})
        method, url = wanted if isinstance(wanted, tuple) else ("GET", wanted)
        return await self.request(method, url, **options)

    # Sending.

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request as httpx does, again if need be.

        Parameters
        ----------
        request
            what `build_request` returned, or any other
        stream, options
            as for httpx

        Raises
        ------
        httpx.TimeoutException
            the deadline passed
        """
        asked = options_of(request)
        policy = self._policy
        if asked.attempts is not None:
            policy = policy._replace(attempts=asked.attempts)
        if asked.deadline is not None:
            policy = policy._replace(deadline=asked.deadline)
        if policy.deadline == inf:
            return await self._answer(request, asked, policy, stream, options)
        import anyio

        with anyio.move_on_after(policy.deadline):
            return await self._answer(request, asked, policy, stream, options)
        raise httpx.TimeoutException(
            f"the deadline of {policy.deadline:.3g} s passed", request=request
        )

    def _answer(
        self,
        request: httpx.Request,
        asked: Options,
        policy: RetryPolicy,
        stream: bool,
        options: dict[str, Any],
    ) -> Awaitable[httpx.Response]:
        auth = options.get("auth", httpx.USE_CLIENT_DEFAULT)
        auth = self.auth if auth is httpx.USE_CLIENT_DEFAULT else auth
        exchange = None
        if not stream and not self.is_closed:
            exchange = self._caching.begin(self, request, auth, asked.wish)
        if exchange is None:
            return self._send(request, policy, asked.repeatable, stream, options)
        # What may be answered from a cache does no more when it is done twice.
        repeatable = asked.repeatable is not False
        follows = options.get("follow_redirects", self.follow_redirects)
        follows = self.follow_redirects if follows is httpx.USE_CLIENT_DEFAULT else follows
        return self._caching.answer(
            exchange, self, request, auth, follows,
            lambda own: self._send(own, policy, repeatable, False, options),
        )  # fmt: skip

    def _send(
        self,
        request: httpx.Request,
        policy: RetryPolicy,
        repeatable: bool | None,
        stream: bool,
        options: dict[str, Any],
    ) -> Awaitable[httpx.Response]:
        once = partial(super().send, request, stream=stream, **options)
        return attempt(once, request, policy, repeatable)

    def get_stats(self) -> dict[str, Any]:
        """Return what goes on in the running event loop.

        Returns
        -------
        dict
            ``{"running", "waiting", "by_host": {host: {"running", "waiting", "http_version"}}}``;
            the version is that of the host's last answer, such as "HTTP/2"
        """
        pool = self._pools.running()
        return {"running": 0, "waiting": 0, "by_host": {}} if pool is None else pool.get_stats()


def _given(transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    return transport


def _offers_http2(asked: bool | None) -> bool:
    from importlib.util import find_spec

    found = find_spec("h2") is not None
    if asked and not found:
        raise ConfigError('http2=True needs another package: pip install "memoleo[http]"')
    return found if asked is None else asked
