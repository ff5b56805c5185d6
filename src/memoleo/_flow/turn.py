"""One run of a flow: the steps that wait for nothing, and what it must give back at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from contextvars import Token
from typing import Any

from memoleo._entry import Entry
from memoleo._events import logger
from memoleo._flow.flow import Intent, flow
from memoleo._flow.policy import tag_names
from memoleo._flow.remembered import Remembered
from memoleo._flow.removals import Removal
from memoleo._flow.singleflight import Flight, Flights, enter, leave
from memoleo._flow.steps import (
    Count,
    Failed,
    Followed,
    Leave,
    Now,
    Open,
    Returned,
    Seen,
    Step,
    Unsee,
)
from memoleo._flow.store import Job, Store, said
from memoleo._platform.interrupts import pass_on
from memoleo._streams.stream import Recording
from memoleo.backends._protocol import Lease

__all__ = ["Turn", "keep"]


class Turn:
    """One run of a flow.

    It is made before the user's function runs and settled after it, so that whoever makes a call
    can run the function itself: recursive functions then pay one frame a level for the cache.

    Parameters
    ----------
    store
        what loads, opens and saves
    flights
        the computations under way in that store
    job
        the call
    intent
        why it is made
    found
        what the store held when the call came in

    Attributes
    ----------
    outcome
        how the flow ended; `None` while the function is to be run
    flight, lease
        what it must give back
    parts
        what the key is made of, for the entry
    waited
        how many milliseconds it waited for somebody else's run
    """

    # What most turns never change stands here: a miss makes one.
    outcome: Returned | Failed | None = None
    flight: Flight | None = None
    lease: Lease | None = None
    parts: bytes | None = None
    waited = 0.0
    _inside: Token[tuple[Flight, ...]] | None = None
    _started = 0.0
    _removals = 0

    def __init__(
        self, store: Store, flights: Flights, job: Job, intent: Intent, found: Entry | None
    ) -> None:
        self.store = store
        self.flights = flights
        self.job = job
        self.intent = intent
        self.steps: Generator[Step, Any, Returned | Failed] = flow(
            intent, job.freshness, found=found, streamed=job.streamed
        )

    def __del__(self) -> None:
        # An interrupt between two steps: nobody must wait for what never comes.
        if self.flight is not None or self.lease is not None:
            self.land(None, failed=True)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that the block waits for somebody else's run."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.waited += (time.perf_counter() - started) * 1000

    def begin_call(self, *, missed: bool) -> None:
        """Note that the user's function is about to run, because of a miss or not."""
        job, store = self.job, self.store
        if missed:
            job.counters.local.cell.misses += 1
            store.tell(job, "miss")
        if job.place is None and self.intent is not Intent.OBSERVE:
            # Before it runs, since it may change its arguments.
            describe = job.describe
            self.parts = b"" if describe is None else store.parts.make(describe)
        if self.flight is not None:
            self._inside = enter(self.flight)
        self._removals = self.flights.removals
        self._started = time.perf_counter()

    def returned(self, value: Any) -> Returned:
        """Note that the function returned."""
        ms = (time.perf_counter() - self._started) * 1000
        inside, self._inside = self._inside, None
        if inside is not None:
            leave(inside)
        job = self.job
        if not job.streamed:
            self.store.tell_call(job, ms, value)
        return Returned(value, ms)

    def failed(self, error: BaseException) -> Failed:
        """Note that the function raised."""
        ms = (time.perf_counter() - self._started) * 1000
        inside, self._inside = self._inside, None
        if inside is not None:
            leave(inside)
        self.store.tell_call(self.job, ms, error=error)
        return Failed(error, ms)

    def save(self, result: Returned) -> None:
        """Store a result, and give back the flight and the lease."""
        flights, job, began = self.flights, self.job, self._removals
        if self.intent is Intent.REFRESH:
            self._replace()
        entry = keep(self.store, flights, job, result, began, self.parts, id(self))
        # What was removed meanwhile is computed anew by one of those who wait, for all of them.
        outdated = (
            entry is None
            and flights.removals != began
            and _is_outdated(flights, job, result, began, id(self))
        )
        self.land(entry, failed=outdated)

    def _replace(self) -> None:
        """Let nothing that began earlier and ends later replace what a refresh brings."""
        mine = frozenset({self.job.key})
        self.flights.disown(Removal(keys=mine, by=id(self)))

    def land(self, entry: Entry | None, *, failed: bool) -> None:
        """Give back the flight and the lease. Twice is harmless."""
        # Neither is forgotten before it is back: `__del__` completes what a signal handler stopped.
        try:
            # A task may be cancelled while a thread of its own does the same.
            flight = self.flight
            if flight is not None:
                self.flights.leave(flight, Followed(entry, failed))
                self.flight = None
        finally:
            lease = self.lease
            if lease is not None:
                self.store.release(lease)
                self.lease = None

    def at_once(self, step: Step, play: Callable[[Any, Any], Any], remembered: Remembered) -> Any:
        """Perform a step that waits for nothing.

        Parameters
        ----------
        step
            what to do
        play
            makes an iterator of a recording
        remembered
            what was observed
        """
        store = self.store
        if type(step) is Count:
            return self._count(step)
        if type(step) is Leave:
            return self.land(step.entry, failed=step.failed)
        if type(step) is Now:
            return store.clock()
        if type(step) is Open:
            opened = store.open(self.job, step.entry)
            if opened is None or not self.job.streamed:
                return opened
            # Whoever asks a server has no use for what a consumer sends.
            compute = None if self.job.policy.operation else self.job.compute
            return Returned(play(opened.value, compute))
        if type(step) is Seen:
            return remembered.seen(self.job, step.now)
        assert type(step) is Unsee
        if not store.keeps(self.job, step.result):
            remembered.unsee(self.job)
        return None

    def recording(self) -> Recording:
        """Return what records an iterator that the function returned."""
        store, job, started = self.store, self.job, self._started
        keeps = self.intent is not Intent.OBSERVE

        def finished(encoded: tuple[list[bytes], bytes]) -> None:
            took = (time.perf_counter() - started) * 1000
            store.tell_call(job, took, encoded)
            if keeps:
                if self.intent is Intent.REFRESH:
                    self._replace()
                result, began = Returned(encoded, took), self._removals
                keep(store, self.flights, job, result, began, self.parts, id(self))

        def failed(error: Exception) -> None:
            if keeps:
                store.refuse(job, error)

        ends = getattr(job.codec, "ends", None)
        return Recording(job.codec.item, finished, failed, ends)  # type: ignore[attr-defined]

    def _count(self, step: Count) -> None:
        cell = self.job.counters.local.cell
        outcome, entry = step.outcome, step.entry
        if outcome == "hit" and self.waited:
            outcome = "shared"  # another process had it under way
        if entry is not None:
            cell.bytes_served += len(entry.payload)
            if outcome != "stale_if_error":
                cell.saved_ms += max(0.0, entry.cost_ms - self.waited)
                cell.tokens_saved += entry.tokens
        if outcome == "hit":
            cell.hits += 1
        elif outcome == "stale":
            cell.stale += 1
        elif outcome == "shared":
            cell.shared += 1
        elif outcome == "expired":
            cell.expired += 1
        elif outcome == "error":
            cell.errors += 1
            self.store.note(self.job, "failed", f"it failed: {step.error!r}")
        elif outcome == "stale_if_error":
            cell.stale_if_error += 1
            logger.warning(
                "%s failed (%r); served an entry %.0f s old",
                self.job.policy.label or "a call",
                step.error,
                0.0 if entry is None else self.store.clock() - entry.created,
                extra=said(outcome, self.job, step.error),
            )
        elif outcome == "would_hit":
            cell.would_hit += 1
            cell.would_save_ms += step.ms
        else:
            cell.would_miss += 1
        ms = entry.cost_ms if entry is not None else step.ms
        self.store.tell(self.job, outcome, ms, step.error)


def keep(
    store: Store,
    flights: Flights,
    job: Job,
    result: Returned,
    began: int,
    parts: bytes | None = None,
    run: int = 0,
) -> Entry | None:
    """Store a result unless it was removed while it was computed; return its entry.

    Parameters
    ----------
    store
        where to
    flights
        those of the store
    job
        the call
    result
        what it returned
    began
        how many removals there were when it began
    parts
        as for `Store.save`
    run
        as for `Flights.outdates`
    """
    if flights.removals != began and _is_outdated(flights, job, result, began, run):
        return None
    entry = store.save(job, result, parts)
    if (
        entry is not None
        and flights.removals != began
        and _is_outdated(flights, job, result, began, run)
    ):
        # It was removed before it was there. What somebody has put there since stays.
        key = job.key if job.place is None else job.place()
        if key is not None:
            store.take_back(key, entry)
        return None
    return entry


def _is_outdated(flights: Flights, job: Job, result: Returned, began: int, run: int) -> bool:
    key = job.key if job.place is None else job.place()
    tags: Collection[str] | None = None
    if job.tags is not None:
        try:
            tags = tag_names(job.tags(result.value))
        except Exception as error:
            pass_on(error)
    return flights.outdates(began, job, key or job.key, tags, run)
