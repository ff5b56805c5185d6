"""The cache: a backend, a codec, a clock and counters behind one front."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from memoleo._cache.choice import Loaded, choose
from memoleo._cache.contents import Contents
from memoleo._calls import Calls
from memoleo._events import Hook
from memoleo._explaining.explain import Explanation
from memoleo._flow.policy import make_policy
from memoleo._flow.store import Store
from memoleo._stored import StoredEntry
from memoleo._units import Duration, parse_duration
from memoleo._verifying.findings import Verified
from memoleo.backends._protocol import Backend
from memoleo.backends._urls import open_backend, shown_url
from memoleo.backends.tiered import TieredBackend
from memoleo.codecs._protocol import Codec
from memoleo.codecs._resolve import resolve_codec
from memoleo.errors import ConfigError
from memoleo.keys._address import address
from memoleo.metrics._metrics import Metrics, get_metrics

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Cache"]

T = TypeVar("T")


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
        self.calls = Calls(
            Store(self.backend, clock, hooks),
            self.codec,
            self.metrics,
            None if ttl is None else parse_duration(ttl),
            {name: parse_duration(value) for name, value in (types or {}).items()},
        )
        self._contents = Contents(self.calls)

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

    def get(self, key: str | bytes, default: Any = None) -> Any:
        """Return the value stored under `key`, a copy of the caller's own, or `default`.

        Parameters
        ----------
        key
            any text or bytes, or what `cache_key` returned
        default
            what is returned if there is no fresh entry that this program can read
        """
        return self._contents.get(key, default)

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
        self._contents.set(key, value, type, ttl, tags)

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
        value: T = self.calls.call(self.calls.job(address(key), policy, fn))
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
        value: T = await self.calls.acall(self.calls.job(address(key), policy, fn))
        return value

    def delete(self, key: str | bytes) -> bool:
        """Remove the entry under `key`; whether there was one.

        Raises
        ------
        BackendError
            the store failed, and the entry may still be there
        """
        return self._contents.delete(key)

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
        return self._contents.clear(type, tag, older_than, label)

    def clear_expired(self) -> int:
        """Remove what is past its TTL and its stale windows; return how many entries that were.

        Raises
        ------
        BackendError
            the store failed
        """
        return self._contents.clear_expired()

    def get_stats(self) -> dict[str, Any]:
        """Return what is stored, as plain data.

        Returns
        -------
        dict
            ``{"enabled": bool, "total_entries": int, "total_bytes": int, "by_type": {type:
            entries}, "evicted": int, "backend": name, …}``, and what else the store says
        """
        return self._contents.stats()

    def entries(
        self,
        type: str | None = None,
        tag: str | None = None,
        *,
        label: str | None = None,
        older_than: Duration | None = None,
        newer_than: Duration | None = None,
        larger_than: int | str | None = None,
        key: str | None = None,
        fresh: bool | None = None,
    ) -> Iterator[StoredEntry]:
        """Iterate over the entries that match every given condition, most recent first.

        Parameters
        ----------
        type, tag
            a category, and a tag
        label
            the qualified name of a function
        older_than, newer_than
            ages
        larger_than
            a size: bytes, or text such as "1MiB"
        key
            what the text of a key begins with
        fresh
            whether they are within their TTL

        Raises
        ------
        BackendError
            the store failed
        ConfigError
            a condition is wrong
        """
        return self._contents.entries(
            choose(type, tag, label, older_than, newer_than, larger_than, key, fresh)
        )

    def explain(self, key: str | bytes) -> Explanation:
        """Return what is known of a key: what is stored under it, or why nothing is.

        Of a call `CachedFunction.explain` says more, since it knows what the call's key is made of.
        """
        return self.calls.explain_key(address(key))

    def verified(
        self, wait: float = 0.0, *, newer_than: Duration | None = None
    ) -> dict[str, Verified]:
        """Return by type what computing hits again has shown, in all processes; see `verify`.

        Parameters
        ----------
        wait
            seconds to wait at most for one that this process is computing in a thread
        newer_than
            leaves out processes that verified nothing within this time
        """
        newer = None if newer_than is None else parse_duration(newer_than, "newer_than")
        return self.calls.verifier.report(wait, newer)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
    ) -> int:
        """Write entries to a checksummed file that any machine can `load`; return how many.

        The file appears whole or not at all, for its owner only. It holds results, but nothing of
        the arguments that they belong to. What has expired stays behind.

        Parameters
        ----------
        path
            the file; one that is there is replaced
        type, tag, label
            only entries of this category, with this tag, of this function

        Raises
        ------
        BackendError
            the store failed
        OSError
            the file can't be written
        """
        from pathlib import Path

        return self._contents.export(Path(path), choose(type, tag, label))

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        type: str | None = None,
        tag: str | None = None,
        merge: str = "newer",
        damaged: str = "refuse",
    ) -> Loaded:
        """Store the entries of a file that `export` wrote; return how many.

        Parameters
        ----------
        path
            the file
        type, tag
            only entries of this category, with this tag
        merge
            which of two entries with one key stays: "newer" is the one that was computed later,
            "keep" the one that is there, "replace" the one in the file
        damaged
            "refuse" loads nothing at all from a file that was changed or cut off; "skip" loads what
            is intact in it

        Returns
        -------
        Loaded
            the number of entries that were stored; `kept`, `expired` and `damaged` tell of the rest

        Raises
        ------
        CorruptEntry
            the file is no export, or it was changed
        BackendError
            the store failed; what was stored until then stays
        OSError
            the file can't be read
        """
        from pathlib import Path

        return self._contents.load(Path(path), choose(type, tag), merge, damaged)

    def close(self) -> None:
        """Release files and connections. Closing twice is harmless; a later use reopens."""
        self.metrics.flush()
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
        return f"<Cache on {shown_url(self._url) if self._url else self.backend!r}>"
