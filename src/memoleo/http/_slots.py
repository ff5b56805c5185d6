"""So many requests at once, in all and to one host: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from itertools import count

__all__ = ["Slots"]


class _Waiter:
    __slots__ = ("future", "number")

    def __init__(self, number: int, future: asyncio.Future[None]) -> None:
        self.number = number
        self.future = future


class Slots:
    """The places in which requests run, for the tasks of one event loop.

    Whoever waits longest and may go goes first: a host that is full holds up nobody who wants to
    go elsewhere.

    Parameters
    ----------
    total
        requests at once
    per_host
        requests at once to one host
    """

    def __init__(self, total: int, per_host: int) -> None:
        self.total = total
        self.per_host = per_host
        self.running = 0
        self.by_host: dict[str, int] = {}
        self._numbers = count()
        self._waiting: dict[str, deque[_Waiter]] = {}
        # Hosts that have room and somebody waiting, each once, by the number of the first there.
        self._ready: list[tuple[int, str]] = []
        self._in_ready: set[str] = set()

    def waiting(self, host: str | None = None) -> int:
        """Return how many wait, for one host or in all."""
        queues = self._waiting.values() if host is None else [self._waiting.get(host, ())]
        return sum(not waiter.future.done() for queue in queues for waiter in queue)

    async def acquire(self, host: str) -> None:
        """Take a slot, and wait for one if need be; `release` it in the end."""
        if self.running < self.total and self.by_host.get(host, 0) < self.per_host:
            # Nobody before this one could go: whoever can does as soon as there is room.
            self._take(host)
            return
        waiter = _Waiter(next(self._numbers), asyncio.get_running_loop().create_future())
        self._waiting.setdefault(host, deque()).append(waiter)
        self._offer(host)
        try:
            await waiter.future
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled():
                # It was given a slot in the same moment in which it was cancelled.
                self.release(host)
            else:
                waiter.future.cancel()
                self._tidy(host)
            raise

    def release(self, host: str) -> None:
        """Give a slot back, and let the next ones go."""
        self.running -= 1
        self.by_host[host] -= 1
        if not self.by_host[host]:
            del self.by_host[host]
        self._offer(host)
        while self._ready and self.running < self.total:
            number, host = heappop(self._ready)
            self._in_ready.discard(host)
            queue = self._tidy(host)
            if queue and queue[0].number == number:
                self._take(host)
                queue.popleft().future.set_result(None)
            self._offer(host)

    def _take(self, host: str) -> None:
        self.running += 1
        self.by_host[host] = self.by_host.get(host, 0) + 1

    def _offer(self, host: str) -> None:
        """Put a host among the ready ones if it is one."""
        if host in self._in_ready or self.by_host.get(host, 0) >= self.per_host:
            return
        queue = self._tidy(host)
        if queue:
            self._in_ready.add(host)
            heappush(self._ready, (queue[0].number, host))

    def _tidy(self, host: str) -> deque[_Waiter] | None:
        """Return who waits for a host, without those at its head who gave up."""
        queue = self._waiting.get(host)
        while queue and queue[0].future.done():
            queue.popleft()
        if queue is not None and not queue:
            del self._waiting[host]
            return None
        return queue
