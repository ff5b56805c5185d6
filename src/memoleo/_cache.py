"""The cache: a backend, a codec, a clock and counters behind one front."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from memoleo import _settings, _switch
from memoleo._drive import Driver
from memoleo._entry import Entry
from memoleo._events import Hook
from memoleo._flow import Intent
from memoleo._platform import renew_after_fork
from memoleo._policy import Freshness, Policy, make_policy
from memoleo._reader import NOT_LOOKED, Missed, memory_reader, store_reader
from memoleo._steps import Returned
from memoleo._store import Job, Store
from memoleo._stored import StoredEntry
from memoleo._stream import LateStream, StreamCodec
from memoleo._switch import Mode, mode
from memoleo._units import Duration, parse_duration
from memoleo._urls import open_backend
from memoleo.backends._protocol import Backend
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.codecs._protocol import Codec
from memoleo.codecs._resolve import resolve_codec
from memoleo.errors import ConfigError
from memoleo.keys._address import Key, address
from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._metrics import Metrics, get_metrics

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Cache"]

T = TypeVar("T")

_OBSERVED = 65_536
"""Calls that `observe` remembers; the oldest are forgotten first."""

_INTENTS = {
    Mode.SERVE: Intent.ANSWER,
    Mode.REFRESH: Intent.REFRESH,
    Mode.OBSERVE: Intent.OBSERVE,
}


class Cache:
    """Results of calls under the content of their arguments.

    Every method may be used from any thread, task or process, and in a child after `fork`.

    Parameters
    ----------
    url
        where entries live: ``memory://``, ``sqlite:///file.db``; `None` for memory
    backend
        a backend of one's own, instead of a URL
    codec
        "auto", "pickle" (signed), or a `memoleo.codecs.Codec`
    ttl
        how long entries are fresh unless their type or their function says otherwise: seconds, a
        `timedelta`, or text such as "24h" or "forever"; `None` takes the config's
    types
        TTLs of single types; they go before those of the config
    clock
        the time in seconds since the epoch
    metrics
        where hits and misses are counted; `None` for `memoleo.get_metrics()`
    hooks
        callables that get a `memoleo.Event` for everything that happens

    Raises
    ------
    ConfigError
        the URL, an option or a duration is wrong
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        backend: Backend | None = None,
        codec: str | Codec = "auto",
        ttl: Duration | None = None,
        types: Mapping[str, Duration] | None = None,
        clock: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        if url is not None and backend is not None:
            raise ConfigError("give a Cache either a URL or a backend, not both")
        if url is not None and not isinstance(url, str):
            raise ConfigError(f"Cache({url!r}): a URL is text, such as 'sqlite:///cache.db'")
        for name, value in (("clock", clock), *(("hooks", hook) for hook in hooks)):
            if not callable(value):
                raise ConfigError(f"{name}: {value!r} is not callable")
        if backend is not None and isinstance(backend, (str, bytes, int, float, type)):
            raise ConfigError(f"backend={backend!r} is no memoleo.backends.Backend")
        if metrics is not None and not isinstance(metrics, Metrics):
            raise ConfigError(f"metrics={metrics!r} is no memoleo.Metrics")
        self._url = url if backend is not None or url else "memory://"
        self.backend = backend if backend is not None else open_backend(self._url or "")
        self.metrics = get_metrics() if metrics is None else metrics
        self.codec = resolve_codec(codec)
        self._stream_codec = StreamCodec(self.codec)
        self._ttl = None if ttl is None else parse_duration(ttl)
        self._types = {name: parse_duration(value) for name, value in (types or {}).items()}
        self._store = Store(self.backend, clock, hooks)
        self._driver = Driver(self._store, self._seen)
        self._after_fork()
        renew_after_fork(self)

    @classmethod
    def tiered(cls, *urls: str, **options: Any) -> Cache:
        """Return a cache over several stores, nearest first.

        Parameters
        ----------
        urls
            the stores, such as ``"memory://", "sqlite:///a.db"``
        options
            as for `Cache`

        Raises
        ------
        ConfigError
            a URL is wrong, or there is none
        """
        if not urls:
            raise ConfigError("Cache.tiered() needs at least one URL")
        backends: list[Backend] = []
        for url in urls:
            opened = open_backend(url)
            # A file's own memory would stand between the tiers that were asked for.
            backends += opened.tiers[1:] if isinstance(opened, TieredBackend) else [opened]
        return cls(backend=TieredBackend(*backends), **options)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[bytes, int] = {}
        self._observed: dict[bytes, float] = {}

    # What decorators and patches use.

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
    ) -> Job:
        """Return one call, ready for `call`, `acall`, `stream` or `astream`; see `Job`."""
        if codec is None:
            codec = policy.codec
        if codec is None:
            codec = self._stream_codec if streamed else self.codec
        return Job(
            key,
            policy,
            Freshness(self.ttl_for(policy.type) if policy.ttl is None else policy.ttl, policy),
            codec,
            self.metrics.cache(policy.type) if counters is None else counters,
            compute,
            tags,
            streamed,
            place,
        )

    def reader(self, job: Job) -> Callable[[bytes], Any] | None:
        """Return the hot path for calls like `job`; `None` if there is none."""
        backend, store = self.backend, self._store
        if store.hooks or job.policy.variants > 1 or job.streamed or backend.remote:
            return None
        if isinstance(backend, MemoryBackend):
            return memory_reader(backend, None, job, store.clock)
        if isinstance(backend, TieredBackend) and backend.memory is not None:
            return memory_reader(backend.memory, backend, job, store.clock)
        return store_reader(store, job)

    def look(self, job: Job) -> Returned | None:
        """Return what is stored for a call if it is fresh, counted as a hit; compute nothing."""
        found = self._store.load(job)
        return None if found is None else self._store.serve(job, found)

    def keep(self, job: Job, result: Returned) -> None:
        """Store the result of a call that was computed elsewhere."""
        if job.freshness.ttl > 0:
            self._store.save(job, result)

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
        job = self._variant(job)
        found = None
        if intent is not Intent.REFRESH:
            found = self._found(job, missed) if missed.looked else self._store.load(job)
        return self._driver.run(job, intent, found)

    async def acall(
        self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED
    ) -> Any:
        """Answer a call as `call` does, with a `compute` that is awaited."""
        intent = self._intent(job, intent)
        if intent is None:
            return await job.compute()
        job = self._variant(job)
        found = None
        if intent is not Intent.REFRESH:
            if missed.looked:
                found = self._found(job, missed)
            elif self.backend.remote:
                import asyncio

                found = await asyncio.to_thread(self._store.load, job)
            else:
                found = self._store.load(job)
        return await self._driver.arun(job, intent, found)

    def _found(self, job: Job, missed: Missed) -> Entry | None:
        if missed.error is not None:
            self._store.blame(job, missed.error)
        return missed.entry

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
        entry = self._store.load(job)
        return None if entry is None else self._shown(job.key, entry, job.codec)

    def forget(self, key: bytes, variants: int = 1) -> bool:
        """Remove what is stored for a call; whether there was anything."""
        found = [self._store.delete(_variant_key(key, turn)) for turn in range(variants)]
        return any(found)

    def _intent(self, job: Job, asked: Intent | None) -> Intent | None:
        """Return why a call is made; `None` if no cache is to be asked."""
        if not _switch.enabled() or job.freshness.ttl <= 0:
            return None
        return _INTENTS.get(mode.get()) if asked is None else asked

    def _variant(self, job: Job) -> Job:
        if job.policy.variants == 1:
            return job
        with self._lock:
            turn = self._turns.get(job.key, 0)
            if turn == 0 and len(self._turns) >= _OBSERVED:
                self._turns.clear()
            self._turns[job.key] = (turn + 1) % job.policy.variants
        return msgspec.structs.replace(job, key=_variant_key(job.key, turn))

    def _seen(self, job: Job, now: float) -> bool:
        with self._lock:
            before = self._observed.pop(job.key, None)
            if before is not None and job.freshness.fresh(before, now):
                self._observed[job.key] = before
                return True
            if len(self._observed) >= _OBSERVED:
                del self._observed[next(iter(self._observed))]
            self._observed[job.key] = now
            return False

    # What users call.

    def get(self, key: str | bytes, default: Any = None) -> Any:
        """Return the value stored under `key`, a copy of the caller's own, or `default`.

        Parameters
        ----------
        key
            any text or bytes, or what `cache_key` returned
        default
            what is returned if there is no fresh entry that this program can read
        """
        job = self.job(address(key), _PLAIN, _nothing)
        entry = self._store.load(job)
        if entry is None or not Freshness(entry.ttl, _PLAIN).fresh(
            entry.created, self._store.clock()
        ):
            return default
        opened = self._store.open(job, entry)
        return default if opened is None else opened.value

    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        type: str = "default",
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        """Store `value` under `key`; a store that fails is logged, not raised.

        With a TTL of 0 nothing is stored, and what was there is removed.

        Raises
        ------
        CodecError
            the value has no exact form
        ConfigError
            the TTL is not a duration
        """
        policy = make_policy(type, ttl, tags=tags)
        job = self.job(address(key), policy, _nothing)
        if job.freshness.ttl <= 0:
            self._store.delete(job.key)
            return
        payload = self.codec.encode(value)
        entry = Entry(
            payload,
            self.codec.name,
            self._store.clock(),
            job.freshness.ttl,
            type=type,
            tags=policy.tags,
        )
        self._store.put(job, entry)

    def get_or_compute(
        self,
        key: str | bytes,
        fn: Callable[[], T],
        *,
        type: str = "default",
        ttl: Duration | None = None,
        cache_if: Callable[[Any], bool] | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: Duration = 0,
        stale_if_error: Duration = 0,
        variants: int = 1,
    ) -> T:
        """Return the value stored under `key`, or compute it once, store it and return it.

        Parameters
        ----------
        key
            any text or bytes
        fn
            computes the value
        type, ttl, cache_if, tags, stale_while_revalidate, stale_if_error, variants
            as for `memoleo.content_cached`

        Raises
        ------
        Exception
            whatever `fn` raises
        """
        policy = make_policy(
            type, ttl, cache_if, tags, stale_while_revalidate, stale_if_error, variants
        )
        value: T = self.call(self.job(address(key), policy, fn))
        return value

    async def aget_or_compute(
        self,
        key: str | bytes,
        fn: Callable[[], Awaitable[T]],
        *,
        type: str = "default",
        ttl: Duration | None = None,
        cache_if: Callable[[Any], bool] | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: Duration = 0,
        stale_if_error: Duration = 0,
        variants: int = 1,
    ) -> T:
        """Do what `get_or_compute` does, with an `fn` that is awaited."""
        policy = make_policy(
            type, ttl, cache_if, tags, stale_while_revalidate, stale_if_error, variants
        )
        value: T = await self.acall(self.job(address(key), policy, fn))
        return value

    def delete(self, key: str | bytes) -> bool:
        """Remove the entry under `key`; whether there was one.

        Raises
        ------
        BackendError
            the store failed, and the entry may still be there
        """
        return self._store.delete(address(key))

    def clear(
        self,
        type: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
        *,
        label: str | None = None,
    ) -> int:
        """Remove the entries that match every given condition; without one, all of them.

        Parameters
        ----------
        type, tag
            a category, and a tag
        older_than
            an age
        label
            the qualified name of a function, as `StoredEntry.label` shows it

        Returns
        -------
        int
            how many were removed

        Raises
        ------
        BackendError
            the store failed
        """
        before = None
        if older_than is not None:
            before = self._store.clock() - parse_duration(older_than, "older_than")
        return self.backend.clear(type=type, tag=tag, before=before, label=label)

    def clear_expired(self) -> int:
        """Remove what is past its TTL and its stale windows; return how many entries that were.

        Raises
        ------
        BackendError
            the store failed
        """
        return self.backend.clear_expired(self._store.clock())

    def get_stats(self) -> dict[str, Any]:
        """Return what is stored, as plain data.

        Returns
        -------
        dict
            ``{"enabled": bool, "total_entries": int, "total_bytes": int, "by_type": {type:
            entries}, "evicted": int, "backend": name, …}``, and what else the store says
        """
        stats = self.backend.stats()
        return {
            "enabled": _switch.enabled(),
            "total_entries": stats.entries,
            "total_bytes": stats.bytes,
            "by_type": dict(stats.by_type),
            "evicted": stats.evicted,
            "backend": type(self.backend).__name__,
            **stats.details,
        }

    def entries(
        self, type: str | None = None, tag: str | None = None, *, label: str | None = None
    ) -> Iterator[StoredEntry]:
        """Iterate over what is stored, most recent first."""
        for key, entry in self.backend.entries(type=type, tag=tag, label=label):
            codec: Codec = self.codec
            if entry.codec == self._stream_codec.name:
                codec = self._stream_codec
            yield self._shown(key, entry, codec)

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all entries to a checksummed file; return how many.

        Raises
        ------
        OSError
            the file can't be written
        """
        from pathlib import Path

        from memoleo._portable import write_entries

        return write_entries(Path(path), self.backend.entries())

    def load(self, path: str | os.PathLike[str]) -> int:
        """Store the entries of a file that `export` wrote; return how many.

        Raises
        ------
        CorruptEntry
            the file is no export, or it was changed
        OSError
            the file can't be read
        """
        from pathlib import Path

        from memoleo._portable import read_entries

        count = 0
        for key, entry in read_entries(Path(path)):
            self.backend.set(key, entry)
            count += 1
        return count

    def close(self) -> None:
        """Release files and connections. Closing twice is harmless; a later use reopens."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cache on {self._url or self.backend!r}>"

    def _shown(self, key: bytes, entry: Entry, codec: Codec) -> StoredEntry:
        return StoredEntry(
            Key.of(key),
            entry.type,
            entry.tags,
            entry.label,
            entry.created,
            entry.ttl,
            self._store.clock() - entry.created,
            entry.size,
            entry.cost_ms,
            entry.tokens,
            partial(codec.decode, entry.payload),
        )


_PLAIN = Policy()


def _nothing() -> None:
    return None


def _variant_key(key: bytes, turn: int) -> bytes:
    return key if turn == 0 else hashlib.sha256(b"memoleo:variant" + key + bytes([turn])).digest()
