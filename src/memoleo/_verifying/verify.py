"""Hits that are computed again, to learn whether what is served is still what one would get."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import TracebackType
from typing import Any

import msgspec

from memoleo import _switch
from memoleo._entry import Entry
from memoleo._events import logger
from memoleo._flow.drive import background
from memoleo._flow.parts import notebook
from memoleo._flow.store import Job, Store, said
from memoleo._functions.compiled import Fragment, nested
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo._streams.stream import Recorded
from memoleo._switch import Mode, mode
from memoleo._verifying.comparing import Change, change_between
from memoleo.config import _settings
from memoleo.errors import ConfigError
from memoleo.keys._address import Key

__all__ = ["Finding", "Verification", "Verified", "Verifier", "sampled", "verify"]

VERIFIED = "verified"
"""Where a store's `Notebook` keeps what processes found."""

_MOST_FINDINGS = 10
_PER_MINUTE = 6.0


class Finding(msgspec.Struct, frozen=True):
    """One hit that turned out differently.

    Parameters
    ----------
    key, label
        of the call
    at
        when it was computed again, in seconds since the epoch
    age
        how old the entry was, in seconds
    change
        where the results differ; no value is kept. `None` if computing it failed
    error
        what it failed with: the name of the exception
    """

    key: str
    label: str
    at: float
    age: float
    change: Change | None = None
    error: str = ""

    def __str__(self) -> str:
        return f"{self.label or self.key}: {self.change or f'failed with {self.error}'}"


class Verified(msgspec.Struct):
    """What computing hits again has shown for one type of entries.

    Parameters
    ----------
    checked
        hits that were computed again and compared
    differed
        those whose result was another
    failed
        hits whose function raised this time, which says nothing about the entry
    last
        when the last one was computed, in seconds since the epoch
    findings
        the last of those that differed or failed, the newest first
    """

    checked: int = 0
    differed: int = 0
    failed: int = 0
    last: float = 0.0
    findings: list[Finding] = []

    @property
    def rate(self) -> float:
        """The percentage that differed."""
        return 100.0 * self.differed / self.checked if self.checked else 0.0

    def add(self, other: Verified) -> None:
        """Take in what another process found."""
        self.checked += other.checked
        self.differed += other.differed
        self.failed += other.failed
        self.last = max(self.last, other.last)
        found = sorted([*self.findings, *other.findings], key=lambda one: -one.at)
        self.findings = found[:_MOST_FINDINGS]


class Verification:
    """How many hits are computed again.

    Parameters
    ----------
    sample
        the part of all hits, from 0 to 1
    per_minute
        how many at most within 60 seconds

    Raises
    ------
    ConfigError
        one of them is no such number
    """

    def __init__(self, sample: float, per_minute: float) -> None:
        for name, value, most in (
            ("sample", sample, 1.0),
            ("per_minute", per_minute, float("inf")),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"{name}={value!r} is not a number")
            if not 0 <= value <= most:
                limit = "from 0 to 1" if most == 1.0 else "0 or more"
                raise ConfigError(f"{name}={value!r}: expected a number {limit}")
        self.sample = float(sample)
        self.per_minute = float(per_minute)
        self._times: deque[float] = deque()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def draws(self) -> bool:
        """Whether chance picks this hit."""
        return random.random() < self.sample

    def allows(self) -> bool:
        """Whether one more may be computed now; if so it counts as computed."""
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] <= now - 60.0:
                self._times.popleft()
            if len(self._times) + 1 > self.per_minute:
                return False
            self._times.append(now)
            return True


_Around = tuple[Verification, "_Around | None"]
_around: ContextVar[_Around | None] = ContextVar("memoleo_verify", default=None)
_of_settings: tuple[Any, Verification | None] = (None, None)


def verification() -> Verification | None:
    """Return what holds here: of the block around the call, else of the settings."""
    if mode.get() is Mode.INSPECT:
        around = _around.get()
        if around is not None:
            return around[0]
    return by_settings()


def by_settings() -> Verification | None:
    """Return what the settings ask for; `None` if they ask for nothing."""
    global _of_settings
    settings = _settings.current()
    known, found = _of_settings
    if known is not settings:
        found = None
        if settings.verify > 0 and settings.verify_per_minute > 0:
            found = Verification(settings.verify, settings.verify_per_minute)
        _of_settings = (settings, found)
    return found


class _Verifying:
    """A block in which hits are verified; see `verify`."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification
        self._switch = _switch.Switch(Mode.INSPECT)

    def __enter__(self) -> None:
        self._switch.__enter__()
        _around.set((self._verification, _around.get()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        within = _around.get()
        if within is not None:
            _around.set(within[1])
        self._switch.__exit__(kind, error, traceback)


def verify(sample: float = 0.01, per_minute: float = _PER_MINUTE) -> _Verifying:
    """Compute some of the hits in this block again, and compare: ``with memoleo.verify(0.05):``.

    Callers get the hit, at once, and never what was computed. That happens in the background, one
    at a time, past any cache. ``memoleo verify`` and `Cache.verified` tell what it has shown: how
    many results differed, and in what. The settings ``caching.verify`` and
    ``caching.verify_per_minute`` ask for the same everywhere.

    Parameters
    ----------
    sample
        the part of all hits, from 0 to 1
    per_minute
        how many at most within a minute

    Raises
    ------
    ConfigError
        one of them is no such number
    """
    return _Verifying(Verification(sample, per_minute))


def sampled(lookup: Fragment) -> Fragment:
    """Return a lookup that lets some hits take the long way, as the settings ask."""
    holds = by_settings()
    if holds is None:
        return lookup
    lines = _SAMPLED.format(lookup=nested(lookup.lines))
    return Fragment(lines, {**lookup.names, "draws": holds.draws, "drawn": _drawn})


_SAMPLED = """\
if $draws():
 $drawn.yes = True
 $missed = $NOT_LOOKED
else:
{lookup}
 $drawn.yes = False"""


class _Drawn(threading.local):
    """Whether chance has picked the hit that is on its way; `None` if it was not asked yet."""

    yes: bool | None = None


_drawn = _Drawn()


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
        drawn, _drawn.yes = _drawn.yes, None
        if drawn is None or holds is not by_settings():
            drawn = holds.draws()
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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, Verified]).decode


_CHANGEABLE = (list, dict, set, bytearray, deque)


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
