"""One computation per key in a process, whoever asks: threads and tasks alike."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from memoleo._entry import Entry
from memoleo._platform import renew_after_fork

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Flight", "Flights"]


class Flight:
    """The computation of one key, and those who wait for it.

    Parameters
    ----------
    key
        what is computed
    """

    __slots__ = ("_future", "key", "thread")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.thread = threading.get_ident()
        self._future: Future[Entry | None] | None = None

    @property
    def future(self) -> Future[Entry | None]:
        """What followers wait for; there is one as soon as somebody follows."""
        assert self._future is not None
        return self._future


def _running() -> Future[Entry | None]:
    # Imported where somebody waits: most calls meet nobody, and it is slow to import.
    from concurrent.futures import Future

    future: Future[Entry | None] = Future()
    # A running future can't be cancelled: a follower that gives up, or whose task is cancelled,
    # takes nobody with it.
    future.set_running_or_notify_cancel()
    return future


_leading: ContextVar[tuple[Flight, ...]] = ContextVar("memoleo_leading", default=())


class Flights:
    """The computations under way in one cache."""

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[bytes, Flight] = {}

    def join(self, key: bytes) -> tuple[Flight, bool]:
        """Return the flight of `key`, and whether the caller leads it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                if flight._future is None:
                    flight._future = _running()
                return flight, False
            flight = self._flights[key] = Flight(key)
            return flight, True

    def leave(self, flight: Flight, entry: Entry | None) -> None:
        """End a flight, and hand its entry, or nothing, to those who wait. Twice is harmless."""
        with self._lock:
            # A leader that forked finds its flight gone in the child: nobody waits there.
            if self._flights.get(flight.key) is not flight:
                return
            del self._flights[flight.key]
        if flight._future is not None:
            flight._future.set_result(entry)

    @staticmethod
    def waits_for_itself(flight: Flight, *, blocking: bool) -> bool:
        """Whether waiting for this flight would wait for ever.

        It would inside the computation of that very flight, and, if waiting blocks the thread,
        also where the leader is a suspended task of the same thread.
        """
        return flight in _leading.get() or (blocking and flight.thread == threading.get_ident())

    @staticmethod
    def inside(flight: Flight) -> _Inside:
        """Mark the current context, and what is started from it, as part of a flight."""
        return _Inside(flight)


class _Inside:
    __slots__ = ("_flight", "_token")

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def __enter__(self) -> None:
        self._token = _leading.set((*_leading.get(), self._flight))

    def __exit__(self, *_: object) -> None:
        _leading.reset(self._token)
