"""One pool of connections per running event loop, closed when its loop or its client ends."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx

from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.http._slots import Slots
from memoleo.http._sockets import Sockets

__all__ = ["Pool", "Pools"]


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

    def get_stats(self) -> dict[str, Any]:
        """Return what runs and what waits; see `AsyncNetworkClient.get_stats`."""
        slots = self.slots
        return {
            "running": slots.running,
            "waiting": slots.waiting(),
            "by_host": {
                host: {
                    "running": slots.by_host.get(host, 0),
                    "waiting": slots.waiting(host),
                    "http_version": self.versions.get(host),
                }
                for host in {**self.versions, **slots.by_host}
            },
        }

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
        self._lock = Lock()
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
