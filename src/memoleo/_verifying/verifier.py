"""Hits that are computed again, to learn whether what is served is still what one would get."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

import msgspec

from memoleo import _switch
from memoleo._entry import Entry
from memoleo._events import logger
from memoleo._flow.drive import background
from memoleo._flow.parts import notebook
from memoleo._flow.store import Job, Store, said
from memoleo._platform.forks import renew_after_fork
from memoleo._streams.stream import Recorded
from memoleo._verifying.comparing import Change, change_between
from memoleo._verifying.findings import Finding, Verified
from memoleo._verifying.verify import picked, verification
from memoleo.keys._address import Key

__all__ = ["Verifier"]

VERIFIED = "verified"
"""Where a store's `Notebook` keeps what processes found."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, Verified]).decode

_CHANGEABLE = (list, dict, set, bytearray, deque)


class Verifier:
    """Computes hits of one store again.

    Parameters
    ----------
    store
        the store
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._notes = notebook(store.backend)
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._busy = threading.Lock()
        self._name = os.urandom(8)
        self._found: dict[str, Verified] = {}

    def consider(self, job: Job, entry: Entry, *, in_loop: bool) -> None:
        """Compute a call again that is about to be answered with `entry`, if it is picked."""
        holds = verification()
        if holds is None:
            return
        drawn = picked(holds)
        try:
            fresh = job.freshness.fresh(entry.created, self._store.clock())
            sound = job.policy.repeatable and job.place is None
            if not drawn or not fresh or not sound or entry.codec != job.codec.name:
                return
            if not self._busy.acquire(blocking=False):
                return
        except Exception as error:
            logger.info("a hit can't be verified: %r", error, extra=said("unverified", job, error))
            return
        begun = False
        try:
            own = _with_own_arguments(job)
            if own is not None and holds.allows():
                (self._in_task if in_loop else self._in_thread)(own, entry)
                begun = True
        except Exception as error:
            logger.info("a hit can't be verified: %r", error, extra=said("unverified", job, error))
        finally:
            if not begun:
                self._busy.release()

    def _in_thread(self, job: Job, entry: Entry) -> None:
        thread = threading.Thread(
            target=copy_context().run,
            args=(self._again, job, entry, self._busy),
            name="memoleo-verify",
            daemon=True,
        )
        thread.start()

    def _in_task(self, job: Job, entry: Entry) -> None:
        again = self._aagain(job, entry, self._busy)
        try:
            background(again)
        except BaseException:
            again.close()
            raise

    def _again(self, job: Job, entry: Entry, busy: threading.Lock) -> None:
        try:
            with _switch.bypass():
                try:
                    value = job.compute()
                    if job.streamed:
                        value = _consumed(value)
                except BaseException as error:
                    self._failed(job, entry, error)
                    return
            self._compare(job, entry, value)
        except BaseException as error:
            logger.info("a hit can't be verified: %r", error, extra=said("unverified", job, error))
        finally:
            busy.release()

    async def _aagain(self, job: Job, entry: Entry, busy: threading.Lock) -> None:
        try:
            with _switch.bypass():
                try:
                    value = job.compute()
                    if job.streamed:
                        value = Recorded([item async for item in value])
                    else:
                        value = await value
                except Exception as error:
                    self._failed(job, entry, error)
                    return
            self._compare(job, entry, value)
        except Exception as error:
            logger.info("a hit can't be verified: %r", error, extra=said("unverified", job, error))
        finally:
            busy.release()

    def _compare(self, job: Job, entry: Entry, value: Any) -> None:
        if not job.streamed and _encodes_to(job, value, entry.payload):
            self._note(job, entry, None)
            return
        then: Any = job.codec.decode(entry.payload)
        essence = job.policy.essence
        if essence is not None:
            then, value = essence(then), essence(value)
        self._note(job, entry, change_between(then, value))

    def _failed(self, job: Job, entry: Entry, error: BaseException) -> None:
        self._note(job, entry, None, type(error).__qualname__)

    def _note(self, job: Job, entry: Entry, change: Change | None, error: str = "") -> None:
        now = self._store.clock()
        found = self._found.setdefault(job.policy.type, Verified())
        one = Verified(int(not error), int(change is not None), int(bool(error)), now)
        if change is not None or error:
            key, label = str(Key.of(job.key)), job.policy.label
            one.findings = [Finding(key, label, now, now - entry.created, change, error)]
        found.add(one)
        cell = job.counters.local.cell
        cell.verified += one.checked
        cell.differed += one.differed
        if change is not None:
            logger.warning(
                "what is stored for %s differs: %s",
                job.policy.label or "a key",
                change,
                extra=said("differs", job),
            )
        if self._notes is not None:
            name = self._name + job.policy.type.encode("utf-8", "surrogatepass")
            self._notes.note(VERIFIED, name, _encode((job.policy.type, found)))

    def report(self, wait: float, newer: float | None) -> dict[str, Verified]:
        """Return by type what this and other processes found.

        Parameters
        ----------
        wait
            seconds to wait at most for what is being computed
        newer
            leave out processes that found nothing within so many seconds
        """
        since = float("-inf") if newer is None else self._store.clock() - newer
        busy = self._busy
        if wait > 0 and busy.acquire(timeout=wait):
            busy.release()
        blocks = [] if self._notes is None else [row[1] for row in self._notes.notes(VERIFIED)]
        if self._notes is None:
            blocks = [_encode(row) for row in self._found.items()]
        report: dict[str, Verified] = {}
        for block in blocks:
            with suppress(msgspec.MsgspecError):
                type, found = _decode(block)
                if found.last >= since:
                    report.setdefault(type, Verified()).add(found)
        return report


def _with_own_arguments(job: Job) -> Job | None:
    """Return a call with copies of what its caller may change, and it might; `None` if it can't be.

    The caller goes on with its own while the call is computed again.
    """
    compute = job.compute
    if not isinstance(compute, partial):
        return job
    arguments = (*compute.args, *compute.keywords.values())
    if not any(isinstance(value, _CHANGEABLE) for value in arguments):
        return job

    def own(value: Any) -> Any:
        return copy.deepcopy(value) if isinstance(value, _CHANGEABLE) else value

    import copy

    try:
        keywords = {name: own(value) for name, value in compute.keywords.items()}
        again = partial(compute.func, *map(own, compute.args), **keywords)
    except Exception:
        return None
    return msgspec.structs.replace(job, compute=again)


def _encodes_to(job: Job, value: Any, payload: bytes) -> bool:
    try:
        return job.codec.encode(value) == payload
    except Exception:
        return False


def _consumed(source: Any) -> Recorded:
    items = []
    while True:
        try:
            items.append(next(source))
        except StopIteration as stop:
            return Recorded(items, stop.value)
