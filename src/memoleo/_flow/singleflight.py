"""One computation per key in a process, whoever asks: threads and tasks alike."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Hashable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from memoleo._flow.removals import Removal
from memoleo._flow.steps import Followed
from memoleo._flow.store import Job
from memoleo._platform.forks import RenewedLock, renew_after_fork
from memoleo._platform.importing import importing
from memoleo._platform.interrupts import pass_on
from memoleo._platform.locks import Lock
from memoleo.backends._protocol import Lease

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

__all__ = ["Around", "Flight", "Flights", "flights_of", "leading", "running"]


_RECENT = 1024
"""Removals by type, tag or label that are remembered; a run that saw more leaves nothing."""

_KEYS = 16_384
"""Keys that are remembered as removed; a run that saw more of them go leaves nothing."""


_GLANCE = 1.0
"""Seconds after which a follower looks by itself: a signal handler's exception may have kept the
leader from waking those who wait."""


class Flight(msgspec.Struct, eq=False):
    """The computation of one key, and those who wait for it.

    Parameters
    ----------
    key
        what is computed
    job
        the call that computes it; `None` once it is over: what was started from it may live long,
        and has no use for arguments
    loop
        the event loop in which a task computes it; `None` for a thread
    task
        names that task
    thread
        where it is computed
    lease
        what keeps other processes from computing it
    outcome
        how it ended
    joined
        what followers wait for; there is one as soon as somebody follows
    leader
        the run that ends it
    """

    key: bytes
    job: Job | None
    loop: asyncio.AbstractEventLoop | None = None
    task: Hashable = None
    thread: int = msgspec.field(default_factory=threading.get_ident)
    lease: Lease | None = None
    outcome: Followed | None = None
    joined: Future[Followed] | None = None
    leader: weakref.ref[Any] | None = None

    @property
    def owner(self) -> Hashable:
        """Who computes it: a task, or a thread."""
        return self.thread if self.loop is None else self.task

    @property
    def is_over(self) -> bool:
        """Whether nobody computes the key any more.

        A task of a closed loop never comes back. And a signal handler's exception at the very
        beginning of a finalizer keeps a run that is gone from saying so.
        """
        return (
            self.outcome is not None
            or (self.loop is not None and self.loop.is_closed())
            or (self.leader is not None and self.leader() is None)
        )

    def wait(self, patience: float) -> Followed | None:
        """Wait for its end in this thread; `None` if it doesn't come in so many seconds."""
        assert self.joined is not None
        from concurrent.futures import TimeoutError as Late

        ends = time.monotonic() + patience
        while (left := ends - time.monotonic()) > 0 and not self.is_over:
            try:
                return self.joined.result(min(left, _GLANCE))
            except Late as error:
                pass_on(error)
        return self._left()

    async def await_(self, patience: float) -> Followed | None:
        """Wait for its end in this task; see `wait`."""
        assert self.joined is not None
        import asyncio

        future = asyncio.wrap_future(self.joined)
        ends = time.monotonic() + patience
        try:
            while (left := ends - time.monotonic()) > 0 and not self.is_over:
                await asyncio.wait({future}, timeout=min(left, _GLANCE))
            return self._left()
        finally:
            future.cancel()

    def _left(self) -> Followed | None:
        # One that ended without a word counts as failed.
        return self.outcome or (Followed(None, failed=True) if self.is_over else None)


def running(loop: asyncio.AbstractEventLoop | None) -> Hashable:
    """Return who runs now: a task, or a thread."""
    if loop is None:
        return threading.get_ident()
    import asyncio

    return id(asyncio.current_task(loop))


def _future() -> Future[Followed]:
    # Imported where somebody waits: most calls meet nobody, and it is slow to import.
    with importing:
        from concurrent.futures import Future

    future: Future[Followed] = Future()
    # A running future can't be cancelled: a follower that gives up, or whose task is cancelled,
    # takes nobody with it.
    future.set_running_or_notify_cancel()
    return future


Around = tuple[Flight, "Around | None"]
"""A flight, and those around it."""

leading: ContextVar[Around | None] = ContextVar("memoleo_leading", default=None)
"""The flights that the current context, and what is started from it, is part of."""


class _Waits:
    """Who waits for which flight, in the whole process: a wait that closes a circle never ends."""

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._flights: dict[Hashable, Flight] = {}

    def begin(self, caller: Hashable, flight: Flight, *, blocking: bool) -> bool:
        """Note that `caller` waits, unless the one it waits for would wait for the caller."""
        mine = set()
        around = leading.get()
        while around is not None:
            one, around = around
            mine.add(one)
        thread = threading.get_ident()
        with self._lock:
            ahead: Flight | None = flight
            while ahead is not None:
                if ahead in mine or ahead.owner == caller:
                    return False
                # A task of this thread is suspended for as long as the thread is blocked.
                if blocking and ahead.loop is not None and ahead.thread == thread:
                    return False
                ahead = self._flights.get(ahead.owner)
            self._flights[caller] = flight
            return True

    def end(self, caller: Hashable) -> None:
        with self._lock:
            self._flights.pop(caller, None)


_waits = _Waits()


class _Gone(NamedTuple):
    """When a key was removed last.

    Parameters
    ----------
    number
        how many removals there were then
    by
        the run that did it; see `Removal`
    others
        when anybody else removed it last; 0 for never
    """

    number: int
    by: int
    others: int

    def number_for(self, run: int) -> int:
        return self.others if run and run == self.by else self.number


class Flights:
    """The computations under way in one store.

    Attributes
    ----------
    removals
        how many removals there were, of which a run that began before must know
    """

    def __init__(self) -> None:
        self.removals = 0
        self._recent: deque[tuple[int, Removal]] = deque(maxlen=_RECENT)
        self._keys: dict[bytes, _Gone] = {}
        self._forgotten = 0
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._flights: dict[bytes, Flight] = {}

    def disown(self, removal: Removal) -> None:
        """Let no run that has begun leave what is about to be removed, and nobody follow one.

        Whoever asks afterwards computes anew; whoever waits already does so as well.
        """
        with self._lock:
            self.removals += 1
            if removal.keys is None:
                if len(self._recent) == _RECENT:
                    self._forgotten = max(self._forgotten, self._recent[0][0])
                self._recent.append((self.removals, removal))
                # A copy: calls join without the lock.
                flights = [*self._flights.values()]
            else:
                for key in removal.keys:
                    self._remember(key, removal.by)
                flights = [one for one in map(self._flights.get, removal.keys) if one is not None]
            outdated = [
                one for one in flights if one.job is not None and removal.covers(one.job, one.key)
            ]
            for flight in outdated:
                # A finalizer may have ended it since.
                if self._flights.get(flight.key) is flight:
                    del self._flights[flight.key]
        for flight in outdated:
            # Nobody needs to wait for what won't be there. Releasing twice is harmless.
            if flight.lease is not None:
                try:
                    flight.lease.release()
                except Exception as error:
                    pass_on(error)

    def _remember(self, key: bytes, by: int) -> None:
        before = self._keys.pop(key, None)
        other = 0
        if before is not None:
            other = before.others if by and by == before.by else before.number
        elif len(self._keys) >= _KEYS:
            oldest = self._keys.pop(next(iter(self._keys)))
            self._forgotten = max(self._forgotten, oldest.number)
        self._keys[key] = _Gone(self.removals, by, other)

    def outdates(self, began: int, job: Job, tags: Collection[str] | None, run: int) -> bool:
        """Whether the result of a run was removed while it was computed.

        Parameters
        ----------
        began
            how many removals there were when it began
        job, tags
            the call, with the key that its result is stored under; see `Removal.covers`
        run
            its number, or 0: what it removed itself doesn't count
        """
        with self._lock:
            if began < self._forgotten:
                return True
            gone = self._keys.get(job.key)
            recent = [removal for number, removal in self._recent if number > began]
        if gone is not None and gone.number_for(run) > began:
            return True
        return any(one.covers(job, job.key, tags) for one in recent)

    def join(self, mine: Flight) -> Flight:
        """Return the flight of a key: `mine`, which the caller then leads, or somebody else's.

        The caller must hold `mine` as what it leaves in the end before it comes here: a signal
        handler's exception may come before its next step.
        """
        key = mine.key
        # Most calls meet nobody: one step that is atomic decides, and no lock is taken.
        while (flight := self._flights.setdefault(key, mine)) is not mine:
            with self._lock:
                if not flight.is_over:
                    if flight.joined is None:
                        flight.joined = _future()
                    return flight
                if self._flights.get(key) is flight:
                    del self._flights[key]
                    if flight.lease is not None and flight.outcome is None:
                        flight.lease.release()
        return mine

    def leave(self, flight: Flight, outcome: Followed) -> None:
        """End a flight, and hand its outcome to those who wait.

        Twice is harmless, and does what a signal handler's exception kept the first time from.
        """
        with self._lock:
            if flight.outcome is None:
                flight.outcome = outcome
            # A leader that forked finds its flight gone in the child: nobody waits there.
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            flight.job = None
            future = flight.joined
            if future is not None and not future.done():
                future.set_result(flight.outcome)

    @staticmethod
    def may_wait(flight: Flight, loop: asyncio.AbstractEventLoop | None = None) -> bool:
        """Note that the caller waits for a flight; false if that would be for ever."""
        return _waits.begin(running(loop), flight, blocking=loop is None)

    @staticmethod
    def has_waited(loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Note that the caller waits no more."""
        _waits.end(running(loop))


# A dictionary of weak references needs a lock: its `setdefault` is not one step.
_sharing = RenewedLock()
_shared: weakref.WeakValueDictionary[str, Flights] = weakref.WeakValueDictionary()


def flights_of(place: str | None) -> Flights:
    """Return the computations under way in a store: the same ones for every cache on it.

    Parameters
    ----------
    place
        what names the store; `None` if no other cache has it
    """
    flights = Flights()
    if place is None:
        return flights
    with _sharing:
        return _shared.setdefault(place, flights)
