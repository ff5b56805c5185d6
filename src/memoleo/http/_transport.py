"""A transport of httpx that keeps to the slots, and to the pool of the running event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from time import monotonic

import httpx

from memoleo._breaker import Breakers, Permit
from memoleo._retries.rules import is_transient
from memoleo.http._asked import options_of
from memoleo.http._careful import send_carefully
from memoleo.http._pools import Pool, Pools
from memoleo.patches._httpx_responses import CircuitOpen

__all__ = ["LoopTransport"]

# What an answer says of its host's health: nothing if the host only wants to be asked less.
_FAILED: dict[int, bool | None] = {
    **dict.fromkeys((408, 425, 429)),
    **dict.fromkeys((500, 502, 503, 504), True),
}

_PORTS = {"http": 80, "https": 443}


def _origin_of(url: httpx.URL) -> str:
    """Return host and port, as budgets and breakers name them."""
    host, port = url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme)
    return host if port is None else f"{host}:{port}"


class LoopTransport(httpx.AsyncBaseTransport):
    """Sends a request over the pool of the running loop, in a slot of its host.

    The slot is taken for each request on the wire, so for each redirect anew, and kept until its
    answer has been read or closed.

    Parameters
    ----------
    pools
        the pools of the client
    breakers
        what is known of the hosts
    fail_fast
        raise where a host fails again and again, instead of trying
    make
        makes the transport of a pool
    """

    def __init__(
        self,
        pools: Pools,
        breakers: Breakers,
        fail_fast: bool,
        make: Callable[[], httpx.AsyncBaseTransport],
    ) -> None:
        self._pools = pools
        self._breakers = breakers
        self._fail_fast = fail_fast
        self._make = make
        # Pools outlive their client by a moment, and must not hold it.
        self._key = object()
        self._plain: httpx.AsyncBaseTransport | None = None

    def __memoleo_plain__(self) -> httpx.AsyncBaseTransport:
        """Return a transport that sends, or one like it, to see where it leads."""
        pool = self._pools.running()
        if pool is not None and self._key in pool.transports:
            return pool.transports[self._key]
        if self._plain is None:
            self._plain = self._make()
        return self._plain

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request when there is a slot for it.

        Raises
        ------
        CircuitOpenError
            the host fails again and again, and that is what the user wants to know
        httpx.PoolTimeout
            no slot came free in the time that the request allows for it
        """
        pool = self._pools.running() or await self._pools.current()
        host = request.url.host
        await self._acquire(pool, host, request)
        slot = _Slot(pool, host)
        failed: bool | None = None
        permit = self._breakers.enter(_origin_of(request.url), monotonic())
        try:
            if pool.closed:
                raise RuntimeError("Cannot send a request, as the client has been closed.")
            if not permit.allowed and (self._fail_fast or options_of(request).fail_fast):
                raise _refused(permit, request)
            transport = pool.transports.get(self._key)
            if transport is None:
                transport = pool.transports[self._key] = self._make()
                pool.sockets.watch(transport)
            if request.url.scheme == "https" and pool.versions.get(host) != "HTTP/1.1":
                response = await send_carefully(transport, request)
            else:
                response = await transport.handle_async_request(request)
            failed = _FAILED.get(response.status_code, False)
        except BaseException as error:
            slot.release()
            failed = True if is_transient(error) else None
            raise
        finally:
            self._breakers.leave(permit, monotonic(), failed=failed)
        pool.versions[host] = response.http_version
        if response.is_closed:
            # A transport of the user's, with the body already read: nobody will close it again.
            slot.release()
            return response
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _HeldStream(response.stream, slot)
        return response

    @staticmethod
    async def _acquire(pool: Pool, host: str, request: httpx.Request) -> None:
        seconds = request.extensions.get("timeout", {}).get("pool")
        if seconds is None:
            await pool.slots.acquire(host)
            return
        import anyio

        with anyio.move_on_after(seconds):
            await pool.slots.acquire(host)
            return
        raise httpx.PoolTimeout(f"no free slot for {host} in {seconds:.3g} s", request=request)

    async def aclose(self) -> None:
        """Close the connections in every loop."""
        await self._pools.close()


def _refused(permit: Permit, request: httpx.Request) -> CircuitOpen:
    refused = CircuitOpen(permit.host, permit.retry_in)
    refused.request = request
    return refused


class _Slot:
    __slots__ = ("_host", "_pool")

    def __init__(self, pool: Pool, host: str) -> None:
        self._pool: Pool | None = pool
        self._host = host

    def release(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.slots.release(self._host)

    def __del__(self) -> None:
        # A stream that nobody closed. The collector may run in any thread.
        if self._pool is not None:
            with contextlib.suppress(Exception):
                self._pool.loop.call_soon_threadsafe(self._pool.slots.release, self._host)


class _HeldStream(httpx.AsyncByteStream):
    """The body of an answer that gives its slot back when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, slot: _Slot) -> None:
        self._stream = stream
        self._slot = slot

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._slot.release()
