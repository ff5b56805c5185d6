"""Calls that are answered from a store: what decorators and patches stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from memoleo import _switch
from memoleo._entry import Entry
from memoleo._explaining.explain import Explanation, explain_call, explain_key, record
from memoleo._flow.drive import Driver, in_thread
from memoleo._flow.flow import Intent
from memoleo._flow.policy import Freshness, Policy
from memoleo._flow.reader import (
    NOT_LOOKED,
    Missed,
    Streak,
    memory_lookup,
    reader,
    store_lookup,
)
from memoleo._flow.remembered import Remembered, variant_key
from memoleo._flow.removals import Removal
from memoleo._flow.steps import Returned
from memoleo._flow.store import Job, Store
from memoleo._functions.compiled import Fragment
from memoleo._stored import StoredEntry
from memoleo._streams.stream import LateStream, StreamCodec
from memoleo._switch import Mode, mode
from memoleo._verifying.verifier import Verifier
from memoleo._verifying.verify import sampled
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.codecs._protocol import Codec
from memoleo.codecs._readers import reader_of
from memoleo.config import _settings
from memoleo.keys._portrait import Description
from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._keeper import keeper
from memoleo.metrics._metrics import Metrics

__all__ = ["Calls"]

_INTENTS = {
    Mode.SERVE: Intent.ANSWER,
    Mode.REFRESH: Intent.REFRESH,
    Mode.OBSERVE: Intent.OBSERVE,
    Mode.INSPECT: Intent.ANSWER,
}


class Calls:
    """Answers calls from one store, or by computing them.

    Parameters
    ----------
    store
        where results are kept
    codec
        encodes results that nobody has another codec for
    metrics
        where calls are counted
    ttl
        seconds for which results are fresh unless their type or their function says otherwise;
        `None` takes the settings'
    types
        the same by type
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        metrics: Metrics,
        ttl: float | None,
        types: Mapping[str, float],
    ) -> None:
        self.store = store
        self.codec = codec
        self.stream_codec = StreamCodec(codec)
        self.tally, self.ledger = metrics.keep_for(self, store.backend)
        self._ttl = ttl
        self._types = types
        self._remembered = Remembered()
        self.verifier = Verifier(store)
        self.driver = Driver(store, self._remembered)

    def ttl_for(self, type: str) -> float:
        """Return how many seconds entries of a type are fresh unless their function says."""
        own = self._types.get(type)
        if own is None:
            settings = _settings.current()
            own = settings.ttl_for(type)
            if own is None:
                own = settings.default_ttl if self._ttl is None else self._ttl
        return own

    def job(
        self,
        key: bytes,
        policy: Policy,
        compute: Callable[[], Any],
        *,
        counters: CacheCounters | None = None,
        tags: Callable[[Any], Iterable[str]] | None = None,
        streamed: bool = False,
        codec: Codec | None = None,
        place: Callable[[], bytes | None] | None = None,
        describe: Description | Callable[[], Description] | None = None,
    ) -> Job:
        """Return one call, ready for `call`, `acall`, `stream` or `astream`; see `Job`."""
        keeper.wake()
        if codec is None:
            codec = policy.codec
        if codec is None:
            codec = self.stream_codec if streamed else self.codec
        return Job(
            key,
            policy,
            Freshness(self.ttl_for(policy.type) if policy.ttl is None else policy.ttl, policy),
            codec,
            self._counters(policy) if counters is None else counters,
            compute,
            tags,
            streamed,
            place,
            describe,
        )

    def _counters(self, policy: Policy) -> CacheCounters:
        # Tokens have a price that depends on the model.
        return self.tally.of(policy.type, policy.label if policy.operation else "")

    def lookup(self, job: Job, streak: Streak) -> Fragment | None:
        """Return the hot path for calls like `job`; `None` if there is none."""
        store = self.store
        backend = store.backend
        if store.hears("hit") or job.policy.variants > 1 or job.streamed or store.remote:
            return None
        if isinstance(backend, MemoryBackend):
            return sampled(memory_lookup(backend, None, job, store.clock))
        if isinstance(backend, TieredBackend) and backend.memory is not None:
            return sampled(memory_lookup(backend.memory, backend, job, store.clock))
        return sampled(store_lookup(store, job, streak))

    def reader(self, job: Job) -> Callable[[bytes], Any] | None:
        """Return the same as a function of the key."""
        lookup = self.lookup(job, Streak())
        return None if lookup is None else reader(lookup)

    def look(self, job: Job) -> Returned | None:
        """Return what is stored for a call if it is fresh, counted as a hit; compute nothing."""
        found = self.store.load(job)
        return None if found is None else self.store.serve(job, found)

    def keep(self, job: Job, result: Returned, began: int) -> None:
        """Store the result of a call that was computed elsewhere; see `Driver.keep`."""
        if job.freshness.ttl > 0:
            self.driver.keep(job, result, began)

    def call(self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED) -> Any:
        """Answer a call from the cache or by computing it, as the current mode asks.

        Parameters
        ----------
        job
            the call
        intent
            why it is made; `None` takes it from the current mode
        missed
            what a reader found out already
        """
        intent = self._intent(job, intent)
        if intent is None:
            return job.compute()
        if job.policy.variants != 1:
            job = self.variant(job)
        found = None if intent is Intent.REFRESH else self._found(job, missed)
        if found is not None and intent is Intent.ANSWER:
            self.verifier.consider(job, found, in_loop=False)
        return self.driver.run(job, intent, found)

    async def acall(
        self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED
    ) -> Any:
        """Answer a call as `call` does, with a `compute` that is awaited."""
        intent = self._intent(job, intent)
        if intent is None:
            return await job.compute()
        if job.policy.variants != 1:
            job = self.variant(job)
        found = None if intent is Intent.REFRESH else await self._afound(job, missed)
        if found is not None and intent is Intent.ANSWER:
            self.verifier.consider(job, found, in_loop=True)
        return await self.driver.arun(job, intent, found)

    def found(self, job: Job, missed: Missed) -> Entry | None:
        """Return what is stored for a call that is to be answered; it may be verified.

        Parameters
        ----------
        job
            the call
        missed
            what a lookup found out already
        """
        found = self._found(job, missed)
        if found is not None:
            self.verifier.consider(job, found, in_loop=False)
        return found

    async def afound(self, job: Job, missed: Missed) -> Entry | None:
        """Do what `found` does, for a function that is awaited."""
        found = await self._afound(job, missed)
        if found is not None:
            self.verifier.consider(job, found, in_loop=True)
        return found

    def _found(self, job: Job, missed: Missed) -> Entry | None:
        if not missed.looked:
            return self.store.load(job)
        if missed.error is not None:
            self.store.blame(job, missed.error)
        return missed.entry

    async def _afound(self, job: Job, missed: Missed) -> Entry | None:
        if missed.looked or not self.store.remote:
            return self._found(job, missed)
        found: Entry | None = await in_thread(partial(self.store.load, job))
        return found

    def stream(self, job: Job, intent: Intent | None = None) -> Iterator[Any]:
        """Answer a call whose result is an iterator; nothing runs before its first item."""
        intent = self._intent(job, intent)
        if intent is None:
            source: Iterator[Any] = job.compute()
            return source
        return self._streamed(job, intent)

    def _streamed(self, job: Job, intent: Intent) -> Generator[Any, Any, Any]:
        return (yield from self.call(job, intent))

    def astream(self, job: Job, intent: Intent | None = None) -> AsyncIterator[Any]:
        """Answer a call whose result is an asynchronous iterator."""
        intent = self._intent(job, intent)
        if intent is None:
            source: AsyncIterator[Any] = job.compute()
            return source
        return LateStream(partial(self.acall, job, intent))

    def peek(self, job: Job) -> StoredEntry | None:
        """Return what is stored for a call, fresh or not, without computing or counting."""
        entry = self.store.load(job)
        if entry is None:
            return None
        return StoredEntry.of(job.key, entry, self.store.clock(), job.codec)

    def explain(self, job: Job) -> Explanation:
        """Return why a call would be answered from the store, or not; nothing is run or counted."""
        return explain_call(self.store, job, self.codec_named)

    def explain_key(self, key: bytes) -> Explanation:
        """Return what is known of a key."""
        return explain_key(self.store, key, self.codec_named)

    def codec_named(self, name: str) -> Codec:
        """Return the codec of an entry that was written with the codec of this name."""
        if name == self.stream_codec.name:
            return self.stream_codec
        return (None if name == self.codec.name else reader_of(name)) or self.codec

    def forget(self, key: bytes, variants: int = 1) -> bool:
        """Remove what is stored for a call; whether there was anything."""
        keys = [variant_key(key, turn) for turn in range(variants)]
        self.driver.disown(Removal(keys=frozenset(keys)))
        found = [self.store.delete(one) for one in keys]
        return any(found)

    def _intent(self, job: Job, asked: Intent | None) -> Intent | None:
        """Return why a call is made; `None` if no cache is to be asked."""
        if asked is None and mode.get() is Mode.INSPECT:
            record(self.store, job, self.codec_named)
        if not _switch.enabled() or job.freshness.ttl <= 0:
            return None
        return _INTENTS.get(mode.get()) if asked is None else asked

    def variant(self, job: Job) -> Job:
        """Return a call as the one of its variants whose turn it is."""
        turn = self._remembered.turn(job.key, job.policy.variants)
        return msgspec.structs.replace(job, key=variant_key(job.key, turn))
