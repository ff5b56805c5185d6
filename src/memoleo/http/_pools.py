"""One pool of connections per running event loop, closed when its loop or its client ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from time import monotonic

import httpx

from memoleo._breaker import Breakers, Permit
from memoleo._platform import renew_after_fork
from memoleo._retry_rules import is_transient
from memoleo.http._careful import send_carefully
from memoleo.http._slots import Slots
from memoleo.http._sockets import Sockets
from memoleo.patches._httpx_responses import CircuitOpen

__all__ = ["LoopTransport", "Pool", "Pools", "origin_of"]

# What an answer says of its host's health: nothing if the host only wants to be asked less.
_FAILED: dict[int, bool | None] = {
    **dict.fromkeys((408, 425, 429)),
    **dict.fromkeys((500, 502, 503, 504), True),
}


def origin_of(url: httpx.URL) -> str:
    """Return host and port, as budgets and breakers name them."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return url.host if port is None else f"{url.host}:{port}"


class Pool:
    """The connections and slots of one client in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slots: Slots) -> None:
        self.loop = loop
        self.slots = slots
        self.transports: dict[object, httpx.AsyncBaseTransport] = {}
        self.sockets = Sockets()
        self.closed = False
        self.versions: dict[str, str] = {}
        self._keeper: AsyncGenerator[None, None] | None = None

    async def keep(self, ended: Callable[[Pool], None]) -> None:
        """See to it that the pool is closed when its loop ends.

        A loop closes the async generators that began in it before it ends itself, by
        `loop.shutdown_asyncgens()`: `asyncio.run` and its like call it.
        """

        async def keeper() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                ended(self)
                await self.close()

        if self._keeper is None:
            self._keeper = keeper()
            await self._keeper.__anext__()

    async def close(self) -> None:
        """Close all connections, in the pool's own loop."""
        self.closed = True
        transports, self.transports = self.transports, {}
        for transport in transports.values():
            with contextlib.suppress(Exception):
                await transport.aclose()
        await self.sockets.close()

    async def end(self) -> None:
        """Close it ahead of its loop."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.aclose()
        await self.close()

    def drop(self) -> None:
        """Let go of the connections of a loop that was closed without a farewell.

        Nothing can be awaited there any more; the sockets close as their objects go.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.transports.clear()
            self.sockets = Sockets()
            import gc

            gc.collect()


class Pools:
    """The pools of one client.

    Parameters
    ----------
    total, per_host
        requests at once, in each loop
    """

    def __init__(self, total: int, per_host: int) -> None:
        self.total = total
        self.per_host = per_host
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # A child must not speak on its parent's connections, nor close them properly.
        self._lock = threading.Lock()
        inherited: dict[asyncio.AbstractEventLoop, Pool] = getattr(self, "_pools", {})
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        for pool in inherited.values():
            pool.drop()

    def running(self) -> Pool | None:
        """Return the pool of the running loop, if it has one."""
        try:
            return self._pools.get(asyncio.get_running_loop())
        except RuntimeError:
            return None

    async def current(self) -> Pool:
        """Return the pool of the running loop; the first call makes it."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = Pool(loop, Slots(self.total, self.per_host))
            with self._lock:
                dead = [other for other in self._pools.values() if other.loop.is_closed()]
                for other in dead:
                    del self._pools[other.loop]
                self._pools[loop] = pool
            for other in dead:
                other.drop()
            await pool.keep(self._ended)
        return pool

    def _ended(self, pool: Pool) -> None:
        with self._lock:
            if self._pools.get(pool.loop) is pool:
                del self._pools[pool.loop]

    async def close(self) -> None:
        """Close every pool, those of other loops as soon as these come to it."""
        here = self._pools.pop(asyncio.get_running_loop(), None)
        self.abandon()
        if here is not None:
            await here.end()

    def abandon(self) -> None:
        """Let every loop close its pool; those that are closed themselves just let go of it."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            if pool.loop.is_closed():
                pool.drop()
            else:
                # It may be closed in this very moment.
                with contextlib.suppress(RuntimeError):
                    pool.loop.call_soon_threadsafe(_end_there, pool)


_ending: set[asyncio.Task[None]] = set()


def _end_there(pool: Pool) -> None:
    task = pool.loop.create_task(pool.end())
    _ending.add(task)
    task.add_done_callback(_ending.discard)


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
        permit = self._breakers.enter(origin_of(request.url), monotonic())
        try:
            if pool.closed:
                raise RuntimeError("Cannot send a request, as the client has been closed.")
            if self._fail_fast and not permit.allowed:
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
