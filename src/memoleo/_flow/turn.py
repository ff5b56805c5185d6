"""One run of a flow: the steps that wait for nothing, and what it must give back at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import Token
from itertools import count
from typing import Any

import msgspec

from memoleo import _events
from memoleo._entry import Entry
from memoleo._events import logger
from memoleo._flow.flow import Flow, Intent
from memoleo._flow.policy import tag_names
from memoleo._flow.remembered import Remembered
from memoleo._flow.removals import Removal
from memoleo._flow.singleflight import Around, Flight, Flights, leading
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

__all__ = ["Turn"]

_runs = count(1)


class Turn(msgspec.Struct, eq=False, weakref=True):
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
    steps
        its flow
    outcome
        how the flow ended; `None` while the function is to be run
    flight, lease
        what it must give back
    parts
        what the key is made of, for the entry
    waited
        how many milliseconds it waited for somebody else's run
    inside
        ends what the function runs inside of
    started
        when the function began (`time.perf_counter`)
    removals
        how many removals there were then
    run
        see `Flights.outdates`
    """

    store: Store
    flights: Flights
    job: Job
    intent: Intent
    steps: Flow
    outcome: Returned | Failed | None = None
    flight: Flight | None = None
    lease: Lease | None = None
    parts: bytes | None = None
    waited: float = 0.0
    inside: Token[Around | None] | None = None
    started: float = 0.0
    removals: int = 0
    run: int = 0

    def __del__(self) -> None:
        # An interrupt between two steps: nobody must wait for what never comes.
        if self.flight is not None or self.lease is not None:
            try:
                self.land(None, failed=True)
            except BaseException:
                # What a signal handler raises in a finalizer ends there, and nobody comes after it.
                self.land(None, failed=True)
                raise

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
            if store.hooks or _events.listeners:
                store.tell(job, "miss")
        if job.place is None and self.intent is not Intent.OBSERVE:
            # Before it runs, since it may change its arguments.
            describe = job.describe
            self.parts = b"" if describe is None else store.parts.make(describe)
        flight = self.flight
        if flight is not None:
            self.inside = leading.set((flight, leading.get()))
        self.removals = self.flights.removals
        self.started = time.perf_counter()

    def ended(self, value: Any, error: BaseException | None = None) -> Returned | Failed:
        """Note that the function returned a value, or raised an error."""
        ms = (time.perf_counter() - self.started) * 1000
        inside, self.inside = self.inside, None
        if inside is not None:
            # A coroutine that is thrown away may be closed in another context than its own.
            # (`suppress` would be three more calls.)
            try:  # noqa: SIM105
                leading.reset(inside)
            except ValueError:
                pass
        job, store = self.job, self.store
        if (store.hooks or _events.listeners) and (error is not None or not job.streamed):
            store.tell_call(job, ms, value, error)
        return Returned(value, ms) if error is None else Failed(error, ms)

    def save(self, result: Returned) -> None:
        """Store a result unless it was removed since the function began; end the flight."""
        store, flights, job, began = self.store, self.flights, self.job, self.removals
        if self.intent is Intent.REFRESH:
            # Nothing that began earlier and ends later may replace what a refresh brings.
            self.run = next(_runs)
            flights.disown(Removal(keys=frozenset({job.key}), by=self.run))
        key: bytes | None = job.key
        if job.place is not None:
            key = job.place()
            if key is not None:
                job = msgspec.structs.replace(job, key=key)
        outdated = flights.removals != began and self._is_outdated(job, result)
        entry = None if outdated or key is None else store.make(job, result, self.parts)
        if entry is not None:
            store.put(job, entry)
        if flights.removals != began and not outdated and self._is_outdated(job, result):
            outdated = True
            if entry is not None:
                # It was removed before it was there. What somebody has put there since stays.
                store.take_back(job.key, entry)
                entry = None
        # What was removed meanwhile is computed anew by one of those who wait, for all of them.
        self.land(entry, failed=outdated)

    def _is_outdated(self, job: Job, result: Returned) -> bool:
        tags: Collection[str] | None = None
        if job.tags is not None:
            try:
                tags = tag_names(job.tags(result.value))
            except Exception as error:
                pass_on(error)
        return self.flights.outdates(self.removals, job, tags, self.run)

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
                try:
                    lease.release()
                except Exception as error:
                    self.store.unreleased(error)
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
        store, job, started = self.store, self.job, self.started
        keeps = self.intent is not Intent.OBSERVE

        def finished(encoded: tuple[list[bytes], bytes]) -> None:
            took = (time.perf_counter() - started) * 1000
            store.tell_call(job, took, encoded)
            if keeps:
                self.save(Returned(encoded, took))

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
