"""The hands: two drivers that perform the steps of a flow, one in threads and one in tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any
from weakref import ref

from memoleo._entry import Entry
from memoleo._events import logger
from memoleo._flow.flow import Intent, flow
from memoleo._flow.remembered import Remembered
from memoleo._flow.removals import Removal
from memoleo._flow.singleflight import Flight, flights_of, running
from memoleo._flow.steps import (
    Alone,
    Call,
    Failed,
    Followed,
    Lead,
    Leading,
    Leave,
    Returned,
    Save,
    Spawn,
)
from memoleo._flow.store import Job, Store, said
from memoleo._flow.turn import Turn
from memoleo._streams.stream import arecord, areplay, record, replay
from memoleo.backends._protocol import place_of

__all__ = ["Driver", "background", "conclude", "in_thread"]

_LEADING = Leading()

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
        self._flights = flights_of(place_of(store.backend))
        self._remembered = remembered
        self._refreshing: list[threading.Thread] = []

    def begin(self, job: Job, intent: Intent, found: Entry | None) -> Turn:
        """Do what comes before the user's function; see `Turn.outcome` for what comes next."""
        steps = flow(intent, job.freshness, found, job.streamed)
        turn = Turn(self.store, self._flights, job, intent, steps)
        self.perform(turn, None)
        return turn

    def disown(self, removal: Removal) -> None:
        """Let no run that has begun bring back what is about to be removed."""
        self._flights.disown(removal)

    @property
    def removals(self) -> int:
        """How many removals there were, for `keep`."""
        return self._flights.removals

    def keep(self, job: Job, result: Returned, began: int) -> None:
        """Store a result that was computed elsewhere, unless it was removed since it began.

        Parameters
        ----------
        job
            the call
        result
            what it returned
        began
            what `removals` said when it began
        """
        steps = flow(Intent.ANSWER, job.freshness, None, job.streamed)
        turn = Turn(self.store, self._flights, job, Intent.ANSWER, steps)
        turn.removals = began
        turn.save(result)

    def run(self, job: Job, intent: Intent, found: Entry | None) -> Any:
        """Perform a call, waiting in the current thread; return its value or raise its error."""
        turn = self.begin(job, intent, found)
        if turn.outcome is None:
            try:
                value = job.compute()
                if job.streamed:
                    value = record(value, turn.recording())
            except BaseException as error:
                self.perform(turn, turn.ended(None, error))
            else:
                self.perform(turn, turn.ended(value))
        return conclude(turn)

    def perform(self, turn: Turn, answer: Any) -> None:
        """Perform steps until the user's function is to be run, or all is done.

        Parameters
        ----------
        turn
            the call
        answer
            what comes of the step before: after the function, `Turn.ended`
        """
        send = turn.steps.send
        try:
            while True:
                step = send(answer)
                if type(step) is Lead:
                    answer = self._lead(turn, wait=step.wait)
                elif type(step) is Call:
                    return turn.begin_call(missed=step.missed)
                elif type(step) is Save:
                    turn.save(step.result)
                    turn.outcome = step.result
                    # Not by `send`, which would raise that it is at its end.
                    next(turn.steps, None)
                    return
                elif type(step) is Spawn:
                    answer = None
                    self._spawn(turn.job)
                else:
                    answer = turn.at_once(step, replay, self._remembered)
        except StopIteration as stop:
            # The collector may have closed the flow of a call that it closes as well.
            if turn.flight is not None or turn.lease is not None:
                turn.land(None, failed=True)
            turn.outcome = stop.value or answer
        except BaseException:
            turn.land(None, failed=True)
            raise

    async def abegin(self, job: Job, intent: Intent, found: Entry | None) -> Turn:
        """Do what `begin` does, waiting in the current task."""
        steps = flow(intent, job.freshness, found, job.streamed)
        turn = Turn(self.store, self._flights, job, intent, steps)
        await self.aperform(turn, None)
        return turn

    async def arun(self, job: Job, intent: Intent, found: Entry | None) -> Any:
        """Perform a call, waiting in the current task; return its value or raise its error."""
        turn = await self.abegin(job, intent, found)
        if turn.outcome is None:
            try:
                value = job.compute()
                value = await (arecord(value, turn.recording()) if job.streamed else value)
            except BaseException as error:
                await self.aperform(turn, turn.ended(None, error))
            else:
                await self.aperform(turn, turn.ended(value))
        return conclude(turn)

    async def aperform(self, turn: Turn, answer: Any) -> None:
        """Do what `perform` does, waiting in the current task."""
        remote = self.store.remote
        send = turn.steps.send
        try:
            while True:
                step = send(answer)
                if type(step) is Lead:
                    answer = await self._alead(turn, wait=step.wait)
                elif type(step) is Call:
                    return turn.begin_call(missed=step.missed)
                elif type(step) is Save:
                    if remote:
                        await in_thread(partial(turn.save, step.result))
                    else:
                        turn.save(step.result)
                    turn.outcome = step.result
                    # Not by `send`, which would raise that it is at its end.
                    next(turn.steps, None)
                    return
                elif remote and type(step) is Leave:
                    answer = None
                    await in_thread(partial(turn.land, step.entry, failed=step.failed))
                elif type(step) is Spawn:
                    answer = None
                    background(self._arefresh(turn.job))
                else:
                    answer = turn.at_once(step, areplay, self._remembered)
        except StopIteration as stop:
            # The collector may have closed the flow of a call that it closes as well.
            if turn.flight is not None or turn.lease is not None:
                turn.land(None, failed=True)
            turn.outcome = stop.value or answer
        except BaseException:
            turn.land(None, failed=True)
            raise

    def _lead(self, turn: Turn, *, wait: bool) -> Leading | Followed | Alone:
        flight = turn.flight = Flight(turn.job.key, turn.job, leader=ref(turn))
        ahead = self._flights.join(flight)
        if ahead is not flight:
            turn.flight = None
            if not wait:
                return Alone()
            try:
                if not self._flights.may_wait(ahead):
                    return Alone()
                with turn.waiting():
                    return ahead.wait(_PATIENCE) or Alone()
            finally:
                self._flights.has_waited()
        turn.lease = self.store.lease(turn.job)
        if turn.lease is None and not wait:
            turn.land(None, failed=True)
            return Alone()
        if turn.lease is None:
            with turn.waiting():
                for pause in _pauses():
                    time.sleep(pause)
                    turn.lease = self.store.lease(turn.job)
                    if turn.lease is not None:
                        break
        flight.lease = turn.lease
        found = self.store.load(turn.job)
        return _LEADING if found is None else Leading(found)

    def _take(self, turn: Turn) -> bool:
        """Try to get the lease for a turn; whether it has it."""
        lease = self.store.lease(turn.job)
        if lease is None:
            return False
        turn.lease = lease
        if turn.flight is None:
            # Its task was cancelled while this ran in a thread: nobody else would give it back.
            turn.land(None, failed=True)
        return True

    async def _alead(self, turn: Turn, *, wait: bool) -> Leading | Followed | Alone:
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Another event loop than asyncio's, or none: nobody could be waited for.
            found = self.store.load(turn.job)
            return _LEADING if found is None else Leading(found)
        task = running(loop)
        flight = turn.flight = Flight(turn.job.key, turn.job, loop, task, leader=ref(turn))
        ahead = self._flights.join(flight)
        if ahead is not flight:
            turn.flight = None
            if not wait:
                return Alone()
            try:
                if not self._flights.may_wait(ahead, loop):
                    return Alone()
                with turn.waiting():
                    return await ahead.await_(_PATIENCE) or Alone()
            finally:
                self._flights.has_waited(loop)
        remote = self.store.remote
        take = partial(self._take, turn)
        if not (await in_thread(take) if remote else take()):
            if not wait:
                turn.land(None, failed=True)
                return Alone()
            with turn.waiting():
                for pause in _pauses():
                    await asyncio.sleep(pause)
                    if await in_thread(take) if remote else take():
                        break
        flight.lease = turn.lease
        load = partial(self.store.load, turn.job)
        found = await in_thread(load) if remote else load()
        return _LEADING if found is None else Leading(found)

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
    logger.warning(
        "refreshing %s failed: %r",
        job.policy.label or "an entry",
        error,
        extra=said("refresh_failed", job, error),
    )


def conclude(turn: Turn) -> Any:
    """Return what the caller of a finished call gets, or raise its error."""
    outcome, turn.outcome = turn.outcome, None
    assert outcome is not None
    if isinstance(outcome, Failed):
        try:
            raise outcome.error
        finally:
            # The traceback holds this frame and the caller's: otherwise, a circle.
            del outcome
    return outcome.value


def _pauses() -> Generator[float, None, None]:
    pause, longest = _POLLS
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends:
        yield pause
        pause = min(pause * 1.5, longest)


async def in_thread(function: Callable[[], Any]) -> Any:
    """Call what may wait for a network in a thread, or here where there can be none."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(None, copy_context().run, function)
    except RuntimeError:  # also if the loop's executor was shut down, or can't start a thread
        return function()
    return await done


_tasks: set[Any] = set()


def background(coroutine: Any) -> None:
    """Start a task, and hold it: a loop keeps only weak references to its tasks."""
    import asyncio

    task = asyncio.get_running_loop().create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
