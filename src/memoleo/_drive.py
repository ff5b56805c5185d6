"""The hands: two drivers that perform the steps of a flow, one in threads and one in tasks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext, suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from memoleo._entry import Entry
from memoleo._events import logger
from memoleo._flow import Intent, flow
from memoleo._remembered import Remembered
from memoleo._singleflight import Flight, Flights, flights_of
from memoleo._steps import (
    Alone,
    Call,
    Count,
    Failed,
    Followed,
    Lead,
    Leading,
    Leave,
    Load,
    Now,
    Open,
    Returned,
    Save,
    Seen,
    Spawn,
    Step,
    Unsee,
)
from memoleo._store import Job, Store
from memoleo._stream import Recording, arecord, areplay, record, replay
from memoleo.backends._protocol import Backend, Lease

__all__ = ["Driver", "background"]

_PATIENCE = 60.0
"""Seconds that one call waits for another that computes the same key."""

_POLLS = (0.002, 0.05)
"""Seconds between two tries for a lease that another process holds: the first, the longest."""


_REFRESHES = 8
"""Background refreshes of one cache at a time; a stale entry beyond them is refreshed later."""


class Driver:
    """Performs the flows of one cache.

    Parameters
    ----------
    store
        what loads, opens and saves
    remembered
        what was observed
    """

    def __init__(self, store: Store, remembered: Remembered) -> None:
        self.store = store
        self._flights = flights_of(_place(store.backend))
        self._remembered = remembered
        self._refreshing: list[threading.Thread] = []

    def run(self, job: Job, intent: Intent, found: Entry | None) -> Any:
        """Perform a call, waiting in the current thread; return its value or raise its error."""
        steps = flow(intent, job.freshness, found=found, streamed=job.streamed)
        turn = _Turn(self, job, keep=intent is not Intent.OBSERVE)
        answer: Any = None
        try:
            # No function of its own: recursive functions pay for each frame with depth.
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as stop:
                    outcome: Returned | Failed = stop.value
                    break
                if type(step) is Call:
                    answer = turn.call()
                elif type(step) is Lead:
                    answer = self._lead(turn, wait=step.wait)
                elif type(step) is Load:
                    answer = self.store.load(job)
                elif type(step) is Save:
                    answer = self.store.save(job, step.result, turn.parts)
                elif type(step) is Spawn:
                    self._spawn(job)
                else:
                    answer = turn.at_once(step, replay)
        finally:
            turn.land(None, failed=True)
        return _conclude(outcome)

    async def arun(self, job: Job, intent: Intent, found: Entry | None) -> Any:
        """Perform a call, waiting in the current task; return its value or raise its error."""
        steps = flow(intent, job.freshness, found=found, streamed=job.streamed)
        turn = _Turn(self, job, keep=intent is not Intent.OBSERVE)
        try:
            return _conclude(await self._aperform(steps, turn))
        finally:
            turn.land(None, failed=True)

    async def _aperform(self, steps: Generator[Step, Any, Any], turn: _Turn) -> Returned | Failed:
        remote = self.store.backend.remote
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                outcome: Returned | Failed = stop.value
                return outcome
            if type(step) is Call:
                answer = await turn.acall()
            elif type(step) is Lead:
                answer = await self._alead(turn, wait=step.wait)
            elif type(step) is Load:
                load = partial(self.store.load, turn.job)
                answer = await _in_thread(load) if remote else load()
            elif type(step) is Save:
                save = partial(self.store.save, turn.job, step.result, turn.parts)
                answer = await _in_thread(save) if remote else save()
            elif type(step) is Spawn:
                background(self._arefresh(turn.job))
            else:
                answer = turn.at_once(step, areplay)

    def _lead(self, turn: _Turn, *, wait: bool) -> Leading | Followed | Alone:
        flight, leads = self._flights.join(turn.job.key)
        if not leads:
            if not wait or not self._flights.may_wait(flight):
                return Alone()
            from concurrent.futures import TimeoutError as Late

            try:
                return flight.future.result(_PATIENCE)
            except Late:
                return Alone()
            finally:
                self._flights.has_waited()
        turn.flight = flight
        turn.lease = self.store.lease(turn.job)
        if turn.lease is None and not wait:
            turn.land(None, failed=True)
            return Alone()
        if turn.lease is None:
            for pause in _pauses():
                time.sleep(pause)
                turn.lease = self.store.lease(turn.job)
                if turn.lease is not None:
                    break
        flight.lease = turn.lease
        return Leading()

    async def _alead(self, turn: _Turn, *, wait: bool) -> Leading | Followed | Alone:
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Another event loop than asyncio's, or none: nobody could be waited for.
            return Alone()
        flight, leads = self._flights.join(turn.job.key, loop)
        if not leads:
            if not wait or not self._flights.may_wait(flight, loop):
                return Alone()
            try:
                return await asyncio.wait_for(asyncio.wrap_future(flight.future), _PATIENCE)
            except asyncio.TimeoutError:
                return Alone()
            finally:
                self._flights.has_waited(loop)
        turn.flight = flight
        remote = self.store.backend.remote
        take = partial(self.store.lease, turn.job)
        turn.lease = await _in_thread(take) if remote else take()
        if turn.lease is None and not wait:
            turn.land(None, failed=True)
            return Alone()
        if turn.lease is None:
            for pause in _pauses():
                await asyncio.sleep(pause)
                turn.lease = await _in_thread(take) if remote else take()
                if turn.lease is not None:
                    break
        flight.lease = turn.lease
        return Leading()

    def _spawn(self, job: Job) -> None:
        self._refreshing = [thread for thread in self._refreshing if thread.is_alive()]
        if len(self._refreshing) < _REFRESHES:
            thread = threading.Thread(
                target=copy_context().run,
                args=(self._refresh, job),
                name="memoleo-refresh",
                daemon=True,
            )
            # Threads can't be started any more while the interpreter shuts down.
            with suppress(RuntimeError):
                thread.start()
                self._refreshing.append(thread)

    def _refresh(self, job: Job) -> None:
        try:
            value = self.run(job, Intent.REVALIDATE, None)
            if job.streamed and value is not None:
                for _ in value:
                    pass
        except BaseException as error:
            # Nobody waits for it: whatever it is, it is not the caller's.
            _note_refresh(job, error)

    async def _arefresh(self, job: Job) -> None:
        try:
            value = await self.arun(job, Intent.REVALIDATE, None)
            if job.streamed and value is not None:
                async for _ in value:
                    pass
        except (Exception, SystemExit) as error:
            _note_refresh(job, error)


def _note_refresh(job: Job, error: BaseException) -> None:
    logger.warning("refreshing %s failed: %r", job.policy.label or "an entry", error)


class _Turn:
    """One run of a flow, with what it must give back however it ends."""

    __slots__ = ("driver", "flight", "job", "keep", "lease", "parts")

    def __init__(self, driver: Driver, job: Job, *, keep: bool) -> None:
        self.driver = driver
        self.job = job
        self.keep = keep
        self.flight: Flight | None = None
        self.lease: Lease | None = None
        self.parts: bytes | None = None

    def land(self, entry: Entry | None, *, failed: bool) -> None:
        """Give back the flight and the lease. Twice is harmless."""
        flight, self.flight = self.flight, None
        lease, self.lease = self.lease, None
        try:
            if flight is not None:
                self.driver._flights.leave(flight, Followed(entry, failed))
        finally:
            if lease is not None:
                self.driver.store.release(lease)

    def at_once(self, step: Step, play: Callable[[Any], Any]) -> Any:
        """Perform a step that waits for nothing."""
        store = self.driver.store
        if type(step) is Now:
            return store.clock()
        if type(step) is Open:
            opened = store.open(self.job, step.entry)
            return Returned(play(opened.value)) if opened and self.job.streamed else opened
        if type(step) is Leave:
            return self.land(step.entry, failed=step.failed)
        if type(step) is Seen:
            return self.driver._remembered.seen(self.job, step.now)
        if type(step) is Unsee:
            if not store.keeps(self.job, step.result):
                self.driver._remembered.unsee(self.job)
            return None
        assert type(step) is Count
        return self._count(step)

    def call(self) -> Returned | Failed:
        self._describe()
        started = time.perf_counter()
        try:
            with self._inside():
                value = self.job.compute()
                if self.job.streamed:
                    value = record(value, self._recording(started))
        except BaseException as error:
            return Failed(error, (time.perf_counter() - started) * 1000)
        return Returned(value, (time.perf_counter() - started) * 1000)

    async def acall(self) -> Returned | Failed:
        self._describe()
        started = time.perf_counter()
        try:
            with self._inside():
                value = self.job.compute()
                value = await (
                    arecord(value, self._recording(started)) if self.job.streamed else value
                )
        except BaseException as error:
            return Failed(error, (time.perf_counter() - started) * 1000)
        return Returned(value, (time.perf_counter() - started) * 1000)

    def _describe(self) -> None:
        if self.keep:
            self.parts = self.driver.store.described(self.job)

    def _inside(self) -> Any:
        return nullcontext() if self.flight is None else Flights.inside(self.flight)

    def _recording(self, started: float) -> Recording:
        store, job = self.driver.store, self.job

        def finished(encoded: tuple[list[bytes], bytes]) -> None:
            if self.keep:
                took = (time.perf_counter() - started) * 1000
                store.save(job, Returned(encoded, took), self.parts)

        def failed(error: Exception) -> None:
            if self.keep:
                store.refuse(job, error)

        ends = getattr(job.codec, "ends", None)
        return Recording(job.codec.item, finished, failed, ends)  # type: ignore[attr-defined]

    def _count(self, step: Count) -> None:
        cell = self.job.counters.local.cell
        outcome, entry = step.outcome, step.entry
        if entry is not None:
            cell.saved_ms += entry.cost_ms
            cell.tokens_saved += entry.tokens
        if outcome == "hit":
            cell.hits += 1
        elif outcome == "miss":
            cell.misses += 1
        elif outcome == "stale":
            cell.stale += 1
        elif outcome == "shared":
            cell.shared += 1
        elif outcome == "error":
            cell.errors += 1
            self.driver.store.note(self.job, "failed", f"it failed: {step.error!r}")
        elif outcome == "stale_if_error":
            cell.stale_if_error += 1
            logger.warning(
                "%s failed (%r); served an entry %.0f s old",
                self.job.policy.label or "a call",
                step.error,
                0.0 if entry is None else self.driver.store.clock() - entry.created,
            )
        elif outcome == "would_hit":
            cell.would_hit += 1
            cell.would_save_ms += step.ms
        else:
            cell.would_miss += 1
        store = self.driver.store
        if store.hooks:
            ms = entry.cost_ms if entry is not None else step.ms
            store.tell(self.job, outcome, ms, step.error)


def _place(backend: Backend) -> str | None:
    """Return the path of the file that a backend shares with others, if it has one."""
    try:
        tiers = getattr(backend, "tiers", None)
        path = getattr(tiers[-1] if tiers else backend, "path", None)
        return None if path is None else os.path.abspath(path)
    except Exception:
        # A backend of somebody's own may have such an attribute for another purpose, or break.
        return None


def _conclude(outcome: Returned | Failed) -> Any:
    if isinstance(outcome, Failed):
        try:
            raise outcome.error
        finally:
            # The traceback holds this frame: without the deletion, a circle.
            del outcome
    return outcome.value


def _pauses() -> Generator[float, None, None]:
    pause, longest = _POLLS
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends:
        yield pause
        pause = min(pause * 1.5, longest)


async def _in_thread(function: Callable[[], Any]) -> Any:
    import asyncio

    return await asyncio.to_thread(function)


_tasks: set[Any] = set()


def background(coroutine: Any) -> None:
    """Start a task, and hold it: a loop keeps only weak references to its tasks."""
    import asyncio

    task = asyncio.get_running_loop().create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
