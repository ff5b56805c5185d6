"""A backend and a codec behind a guard: what fails here never reaches the call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from memoleo import _events
from memoleo._entry import Entry
from memoleo._events import Event, Hook, Spell, extras, logger, tell, wanted
from memoleo._flow.parts import PartsMaker
from memoleo._flow.policy import Freshness, Policy, tag_names
from memoleo._flow.steps import Failed, Returned
from memoleo._platform.interrupts import pass_on
from memoleo._streams.stream import StreamCodec
from memoleo.backends._protocol import Backend, Lease
from memoleo.backends.tiered import TieredBackend
from memoleo.codecs._protocol import Codec
from memoleo.errors import BackendError, CodecError, CorruptEntry
from memoleo.keys._portrait import Description
from memoleo.metrics._counters import CacheCounters

__all__ = ["Job", "Store", "said"]

_SAMPLED = 64
"""What a hit takes is measured at the first of so many misses."""

_LOOKS = 3

_LATELY = 1024
_LONGEST = 200


class Job(msgspec.Struct, frozen=True):
    """One cached call.

    Parameters
    ----------
    key
        32 bytes
    policy
        how its results are kept
    freshness
        what may be done with an entry of a given age
    codec
        what encodes its results
    counters
        where it is counted
    compute
        runs the user's function; awaitable in async code, an iterator if `streamed`
    tags
        further tags for a result
    streamed
        whether the result is an iterator
    place
        asked once there is a result: the key that it is stored under instead of `key`, or `None`
        to store nothing. For calls whose key depends on what computing them brings to light
    describe
        what the key is made of, or what tells it and is asked at most once
    """

    key: bytes
    policy: Policy
    freshness: Freshness
    codec: Codec
    counters: CacheCounters
    compute: Callable[[], Any]
    tags: Callable[[Any], Iterable[str]] | None = None
    streamed: bool = False
    place: Callable[[], bytes | None] | None = None
    describe: Description | Callable[[], Description] | None = None


class Store:
    """Loads, opens and saves entries, and counts; a failure is logged once per spell.

    Parameters
    ----------
    backend
        where the entries live
    clock
        the time in seconds since the epoch
    hooks
        what listens to events

    Attributes
    ----------
    remote
        whether the backend says that a call of it may block for long; one that can't tell doesn't
    find
        looks a key up; an entry that it returns can be relied on
    lately
        calls that left no entry: when, why in one word, and why in a sentence
    """

    def __init__(
        self, backend: Backend, clock: Callable[[], float], hooks: Sequence[Hook] = ()
    ) -> None:
        self.backend = backend
        self.clock = clock
        self.hooks = tuple(hooks)
        self.remote = _says_remote(backend)
        self.find = backend.get if _is_ours(backend) else partial(_checked, backend)
        self.parts = PartsMaker(backend)
        name = type(backend).__name__
        self.reads = Spell(f"reading from {name} fails")
        self._writes = Spell(f"writing to {name} fails")
        self._leases = Spell(f"taking a lease from {name} fails")
        self._refused: set[str] = set()
        self.lately: dict[bytes, tuple[float, str, str]] = {}

    def load(self, job: Job) -> Entry | None:
        """Return the entry of a call, or `None` for whatever can't be had."""
        if self.reads.failing and self.reads.skips():
            return None
        started = time.perf_counter()
        try:
            entry = self.find(job.key)
        except Exception as error:
            self.blame(job, error, time.perf_counter() - started)
            return None
        if self.reads.failing:
            self.reads.worked()
        return entry

    def blame(self, job: Job, error: Exception, seconds: float = 0.0) -> None:
        """Count an entry that can't be read, or a lookup that failed after this many seconds."""
        if isinstance(error, CorruptEntry):
            self._corrupt(job, error)
        else:
            self._failure(job, self.reads, error, seconds)

    def serve(self, job: Job, entry: Entry) -> Returned | None:
        """Return the value of an entry that is fresh and can be read, counted as a hit."""
        if not job.freshness.fresh(entry.created, self.clock()):
            return None
        opened = self.open(job, entry)
        if opened is not None:
            cell = job.counters.local.cell
            cell.hits += 1
            cell.saved_ms += entry.cost_ms
            cell.tokens_saved += entry.tokens
            cell.bytes_served += len(entry.payload)
            self.tell(job, "hit", entry.cost_ms)
        return opened

    def open(self, job: Job, entry: Entry) -> Returned | None:
        """Decode an entry, or return `None` if this program can't read it."""
        if entry.codec != job.codec.name:
            return None
        try:
            return Returned(job.codec.decode(entry.payload))
        except Exception as error:
            self._corrupt(job, error)
            return None

    def make(self, job: Job, result: Returned, parts: bytes | None = None) -> Entry | None:
        """Return the entry of a result; `None`, and counted, if it is not to be stored.

        Parameters
        ----------
        job
            the call
        result
            what it returned
        parts
            what `parts` made before the call ran, since it may have changed its arguments; `None`
            to make them now, for a call whose key is found out by running it
        """
        if parts is None:
            parts = b"" if job.describe is None else self.parts.make(job.describe)
        policy = job.policy
        value = result.value
        try:
            asked = policy.cache_if is not None or job.tags is not None
            told = job.codec.told(value) if asked and type(job.codec) is StreamCodec else value
            if policy.cache_if is not None and not policy.cache_if(told):
                job.counters.local.cell.refused += 1
                self.note(job, "refused", "cache_if refused its result")
                self.tell(job, "refused")
                return None
            tags = policy.tags
            if job.tags is not None:
                tags = (*tags, *tag_names(job.tags(told)))
            tokens = sum(policy.tokens(value)) if policy.tokens is not None else 0
            payload = job.codec.encode(value)
        except Exception as error:
            self.refuse(job, error)
            return None
        return Entry(
            payload,
            job.codec.name,
            self.clock(),
            job.freshness.ttl,
            policy.keep,
            policy.type,
            tags,
            result.ms,
            tokens,
            policy.label,
            parts,
        )

    def keeps(self, job: Job, result: Returned | Failed) -> bool:
        """Whether a result is one that would be stored, as far as it can be told by looking."""
        if isinstance(result, Failed):
            return False
        if job.streamed or job.policy.cache_if is None:
            return True
        try:
            return bool(job.policy.cache_if(result.value))
        except Exception as error:
            pass_on(error)
            return False

    def put(self, job: Job, entry: Entry) -> None:
        """Hand an entry to the backend."""
        writes = self._writes
        if writes.failing and writes.skips():
            return
        started = time.perf_counter()
        try:
            self.backend.set(job.key, entry)
        except Exception as error:
            pass_on(error)
            self.note(job, "unsaved", f"the store could not be written: {error}")
            self._failure(job, writes, error, time.perf_counter() - started)
            return
        if writes.failing:
            writes.worked()
        if self.lately:
            self.lately.pop(job.key, None)
        cell = job.counters.local.cell
        cell.bytes_stored += len(entry.payload)
        if cell.misses % _SAMPLED == 1:
            self._sample(job, entry)
        if self.hooks or _events.listeners:
            self.tell(job, "stored", entry.cost_ms)

    def _sample(self, job: Job, entry: Entry) -> None:
        """Measure what a hit on an entry takes, which is what it saves less than its cost."""
        if self.remote or entry.codec != job.codec.name:
            return
        times = []
        # Failures show where somebody waits for the answer.
        try:
            for _ in range(_LOOKS):
                started = time.perf_counter()
                found = self.backend.get(job.key)
                if found is None:
                    return
                job.codec.decode(found.payload)
                times.append(time.perf_counter() - started)
        except Exception as error:
            pass_on(error)
            return
        job.counters.pace.ms = min(times) * 1000

    def note(self, job: Job, reason: str, text: str) -> None:
        """Remember why a call left no entry, for those who ask; the oldest are forgotten first."""
        lately = self.lately
        lately.pop(job.key, None)
        cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        lately[job.key] = (self.clock(), reason, cut)
        while len(lately) > _LATELY:
            try:
                del lately[next(iter(lately))]
            except (KeyError, RuntimeError, StopIteration):
                break

    def take_back(self, key: bytes, entry: Entry) -> None:
        """Remove an entry that has just been put, unless somebody has put another there since."""
        try:
            found = self.find(key)
        except Exception as error:
            pass_on(error)
            found = None
        if found is not None and found.created != entry.created:
            return
        # What can't be looked at goes as well: a removal counts for more than an entry.
        with suppress(BackendError):
            self.delete(key)

    def delete(self, key: bytes) -> bool:
        """Remove an entry; whether there was one.

        Raises
        ------
        BackendError
            it may still be there: whoever asks for a removal must not be told otherwise
        """
        try:
            return self.backend.delete(key)
        except Exception as error:
            pass_on(error)
            if isinstance(error, BackendError):
                raise
            raise BackendError(f"removing an entry failed: {error!r}") from error

    def lease(self, job: Job) -> Lease | None:
        """Try to become the one process that computes a key; `None` if another is."""
        if self._leases.failing and self._leases.skips():
            return NO_LEASE
        started = time.perf_counter()
        try:
            lease = self.backend.lease(job.key)
        except Exception as error:
            self._failure(job, self._leases, error, time.perf_counter() - started)
            return NO_LEASE
        if self._leases.failing:
            self._leases.worked()
        return lease

    def unreleased(self, error: Exception) -> None:
        """Note that a lease could not be given back."""
        pass_on(error)
        self._leases.failed(error)

    def refuse(self, job: Job, error: Exception) -> None:
        """Count a result that can't be stored, and say so once per function."""
        pass_on(error)
        job.counters.local.cell.refused += 1
        self.note(job, "refused", f"its result could not be stored: {error}")
        name = job.policy.label or job.policy.type
        if name not in self._refused:
            self._refused.add(name)
            extra = said("refused", job, error)
            if isinstance(error, CodecError):
                logger.warning("results of %s are not cached: %s", name, error, extra=extra)
            else:
                logger.warning("results of %s are not cached", name, exc_info=error, extra=extra)
        self.tell(job, "refused", error=error)

    def hears(self, kind: str) -> bool:
        """Whether a hook of this cache wants to be told of events of a kind."""
        return wanted(self.hooks, kind)

    def tell(
        self,
        job: Job,
        outcome: str,
        ms: float = 0.0,
        error: BaseException | None = None,
        tokens: tuple[int, int] = (0, 0),
    ) -> None:
        """Tell the hooks what happened."""
        if self.hooks or _events.listeners:
            policy = job.policy
            event = Event(
                outcome,
                policy.type,
                policy.label,
                job.key,
                ms,
                error,
                tokens,
                policy.provider,
                policy.operation,
            )
            tell(self.hooks, event)

    def tell_call(
        self, job: Job, ms: float, value: Any = None, error: BaseException | None = None
    ) -> None:
        """Tell the hooks that a function ran, how long it took, and what it returned or raised."""
        if not (self.hooks or _events.listeners):
            return
        tokens = (0, 0)
        if error is None and job.policy.tokens is not None:
            try:
                tokens = job.policy.tokens(value)
            except Exception as failure:
                # What can't be counted is not known; if it can be stored is found out elsewhere.
                pass_on(failure)
        self.tell(job, "call", ms, error, tokens)

    def _corrupt(self, job: Job, error: Exception) -> None:
        pass_on(error)
        job.counters.local.cell.corrupt += 1
        logger.info(
            "an entry of %s can't be read: %s",
            job.policy.label or "?",
            error,
            extra=said("corrupt", job, error),
        )
        self.tell(job, "corrupt", error=error)

    def _failure(self, job: Job, spell: Spell, error: Exception, seconds: float) -> None:
        pass_on(error)
        spell.failed(error, seconds)
        job.counters.local.cell.failures += 1
        self.tell(job, "failure", error=error)


def said(event: str, job: Job, error: BaseException | None = None) -> dict[str, object]:
    """Return what a log record about a call says besides its text; see `extras`."""
    policy = job.policy
    return extras(event, type=policy.type, label=policy.label, key=job.key, error=error)


class _NoLease:
    def release(self) -> None:
        pass


NO_LEASE = _NoLease()


def _is_ours(backend: Any) -> bool:
    tiers = backend.tiers if type(backend) is TieredBackend else (backend,)
    return all(type(tier).__module__.startswith("memoleo.backends.") for tier in tiers)


def _checked(backend: Backend, key: bytes) -> Entry | None:
    """Look a key up in a backend of somebody's own, of which nothing is taken on trust."""
    entry = backend.get(key)
    if entry is None:
        return None
    try:
        # Writing it down and reading it again proves its types; it takes a microsecond.
        return Entry.from_bytes(key, entry.to_bytes(key))
    except CorruptEntry:
        raise
    except Exception as error:
        raise CorruptEntry(f"no entry under {key.hex()}: {error}") from None


def _says_remote(backend: Backend) -> bool:
    try:
        return bool(backend.remote)
    except Exception:
        return False
