"""`content_cached`: results stored under the content of the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    NamedTuple,
    ParamSpec,
    TypeVar,
    overload,
)

import msgspec

from memoleo import _default, _switch
from memoleo._cache import Cache
from memoleo._callable import BoundCallable, Documented, WrappedCallable, takes_call
from memoleo._decorating import kind_of
from memoleo._explain import Explanation
from memoleo._flow import Intent
from memoleo._policy import Policy, make_policy
from memoleo._reader import NOT_LOOKED, Missed
from memoleo._store import Job
from memoleo._stored import StoredEntry
from memoleo._switch import Mode, mode
from memoleo._units import Duration
from memoleo._verify import passes
from memoleo.errors import ConfigError, KeyingError
from memoleo.keys._address import Key
from memoleo.keys._keyer import UNSET, Keyer
from memoleo.metrics._counters import CacheCounters

__all__ = ["BoundCached", "CacheInfo", "CachedFunction", "content_cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class CacheInfo(NamedTuple):
    """What `functools.lru_cache` shows, with the hits of every tier and process-wide misses.

    Parameters
    ----------
    hits, misses
        calls of this function in this process, answered without and with running it
    maxsize
        always `None`: limits belong to the cache, not to the function
    currsize
        entries of this function in the cache
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class BoundCached(BoundCallable[P, R]):
    # A cached function reached through an instance.
    __doc__ = Documented()  # pyright: ignore[reportAssignmentType]

    __slots__ = ()

    if TYPE_CHECKING:

        def cache_info(self) -> CacheInfo: ...
        def cache_clear(self) -> None: ...
        def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> Key: ...
        def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def peek(self, *args: P.args, **kwargs: P.kwargs) -> StoredEntry | None: ...
        def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation: ...
        def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...


class _Attached:
    """What a function keeps for the cache that it used last: replaced as a whole, never changed."""

    __slots__ = ("cache", "counters", "fresh")

    def __init__(
        self, cache: Cache | None, counters: CacheCounters, fresh: Callable[[bytes], Any]
    ) -> None:
        self.cache = cache
        self.counters = counters
        self.fresh = fresh


class CachedFunction(WrappedCallable[P, R]):
    """A function whose results are kept; made by `content_cached`."""

    _bound_type: ClassVar[type[BoundCallable[..., Any]]] = BoundCached
    _streamed: ClassVar[bool] = False

    def __init__(
        self,
        function: Callable[P, R],
        policy: Policy,
        options: Mapping[str, Any],
        tags: Callable[[dict[str, Any], Any], Iterable[str]] | None,
        cache: Cache | None,
    ) -> None:
        super().__init__(function)
        self._keyer = Keyer(self.__wrapped__, type=policy.type, **options)
        self._policy = policy
        self._tags = tags
        self._cache = cache
        self._attached = _Attached(None, CacheCounters(), _never)
        # Whoever says what of the instance counts says that there is one.
        if self.__binding__ == "classmethod" or options.get("state", UNSET) is not UNSET:
            self._keyer.is_method = True

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        if self.__binding__ == "method":
            self._keyer.is_method = True

    if TYPE_CHECKING:
        # Checkers look through `classmethod` and `staticmethod`: the first parameter tells.
        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], R], instance: S | None, owner: type[S]
        ) -> BoundCached[Q, R]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], R], instance: S, owner: type | None = None
        ) -> BoundCached[Q, R]: ...
        @overload
        def __get__(self, instance: object, owner: type | None = None) -> CachedFunction[P, R]: ...
        def __get__(self, instance: Any, owner: type | None = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        attached = self._attached
        if (
            (self._cache or _default.current) is not attached.cache
            or not _switch.on
            or mode.get() is not _SERVE
        ):
            return self._go_on(self._begin(args, kwargs), args, kwargs)  # type: ignore[no-any-return]
        # The plainest case, once more than in `_begin`: a call of that would cost as much as
        # making the key.
        try:
            key = self._keyer.make(*args, **kwargs)
        except KeyingError:
            raise
        except TypeError:
            return self.__wrapped__(*args, **kwargs)
        value = attached.fresh(key)
        if type(value) is not Missed:
            return value  # type: ignore[no-any-return]
        job = self._job(key, args, kwargs)
        return self._at().cache.calls.call(job, None, value)  # type: ignore[no-any-return]

    def _go_on(self, begun: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what `_begin` left to be done."""
        if type(begun) is not _Begun:
            return begun
        if begun.key is None:
            return self.__wrapped__(*args, **kwargs)
        return self._perform(self._job(begun.key, args, kwargs), None, begun.missed)

    def _perform(self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED) -> Any:
        return self._at().cache.calls.call(job, intent, missed)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the value of a fresh entry at hand, or a `_Begun` that says how to go on."""
        attached = self._attached
        cache = self._cache or _default.current
        # The plainest case: every instruction here is paid on each hit.
        if cache is attached.cache and _switch.on and mode.get() is _SERVE:
            fresh = attached.fresh
        elif not _switch.enabled() or mode.get() is Mode.BYPASS:
            return _STRAIGHT
        elif mode.get() is Mode.INSPECT and cache is attached.cache and passes():
            fresh = attached.fresh
        else:
            fresh = _never
        try:
            key = self._keyer.make(*args, **kwargs)
        except KeyingError:
            raise
        except TypeError:
            # The arguments don't fit: the function itself says so best.
            return _STRAIGHT
        value = fresh(key)
        return _Begun(key, value) if type(value) is Missed else value

    def _at(self) -> Any:
        """Return what this function keeps for the cache in use."""
        cache = self._cache or _default.get_cache()
        attached = self._attached
        if attached.cache is not cache:
            calls = cache.calls
            counters = calls.tally.of(self._policy.type).child()
            job = calls.job(b"", self._policy, _nothing, counters=counters, streamed=self._streamed)
            reader = calls.reader(job)
            attached = _Attached(cache, counters, reader or _never)
            self._attached = attached
        return attached

    def _job(self, key: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        attached = self._at()
        job: Job = attached.cache.calls.job(
            key,
            self._policy,
            partial(self.__wrapped__, *args, **kwargs),
            counters=attached.counters,
            tags=None if self._tags is None else partial(self._tagged, args, kwargs),
            streamed=self._streamed,
            describe=partial(self._keyer.describe, args, kwargs),
        )
        return job

    def _tagged(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Iterable[str]:
        assert self._tags is not None
        return self._tags(self._keyer.bind(args, kwargs), result)

    def cache_info(self) -> CacheInfo:
        """Return hits, misses and the number of entries of this function."""
        attached = self._at()
        counts = attached.counters.snapshot()
        served = counts["hits"] + counts["stale"] + counts["shared"]
        size = sum(1 for _ in attached.cache.entries(self._policy.type, label=self._policy.label))
        return CacheInfo(int(served), int(counts["misses"]), None, size)

    def cache_clear(self) -> None:
        """Remove every entry of this function, and start its counters at zero."""
        attached = self._at()
        attached.cache.clear(type=self._policy.type, label=self._policy.label)
        attached.counters.reset()

    @takes_call
    def cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of a call, without making it.

        Raises
        ------
        KeyingError
            an argument can't be keyed
        TypeError
            the arguments don't fit the signature
        """
        return Key.of(self._keyer.key(args, kwargs))

    @takes_call
    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute a call now, and replace what is stored."""
        job = self._job(self._keyer.key(args, kwargs), args, kwargs)
        return self._perform(job, Intent.REFRESH)  # type: ignore[no-any-return]

    @takes_call
    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute a call now, and touch no cache."""
        return self.__wrapped__(*args, **kwargs)

    @takes_call
    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> StoredEntry | None:
        """Return the entry of a call, fresh or not, or `None`; nothing is computed or counted."""
        job = self._job(self._keyer.key(args, kwargs), args, kwargs)
        entry: StoredEntry | None = self._at().cache.calls.peek(job)
        return entry

    @takes_call
    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Return why a call would be a hit or a miss; nothing is computed or counted."""
        job = self._job(self._keyer.key(args, kwargs), args, kwargs)
        found: Explanation = self._at().cache.calls.explain(job)
        return found

    @takes_call
    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the entry of a call, all its variants; whether there was one."""
        found: bool = self._at().cache.calls.forget(
            self._keyer.key(args, kwargs), self._policy.variants
        )
        return found


class _AsyncCached(CachedFunction[P, Any]):
    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        found = self._begin(args, kwargs)
        if type(found) is not _Begun:
            return found
        return await self._go_on(found, args, kwargs)

    def _perform(self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED) -> Any:
        return self._at().cache.calls.acall(job, intent, missed)


class _StreamCached(CachedFunction[P, Any]):
    _streamed = True

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._go_on(self._begin(args, kwargs), args, kwargs)

    def _perform(self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED) -> Any:
        return self._at().cache.calls.stream(job, intent)


class _AsyncStreamCached(CachedFunction[P, Any]):
    _streamed = True

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._go_on(self._begin(args, kwargs), args, kwargs)

    def _perform(self, job: Job, intent: Intent | None = None, missed: Missed = NOT_LOOKED) -> Any:
        return self._at().cache.calls.astream(job, intent)


_KINDS: dict[str, type[CachedFunction[..., Any]]] = {
    "sync": CachedFunction,
    "async": _AsyncCached,
    "generator": _StreamCached,
    "async generator": _AsyncStreamCached,
}


def _nothing() -> None:
    return None


def _never(key: bytes) -> Any:
    return NOT_LOOKED


_SERVE = Mode.SERVE
_CLASS = type


class _Begun:
    """A call that is not answered yet.

    Parameters
    ----------
    key
        its key; `None` if no cache is to be asked
    missed
        what the reader found out
    """

    __slots__ = ("key", "missed")

    def __init__(self, key: bytes | None, missed: Missed) -> None:
        self.key = key
        self.missed = missed


_STRAIGHT = _Begun(None, NOT_LOOKED)


@overload
def content_cached(type: Callable[P, R], /) -> CachedFunction[P, R]: ...
@overload
def content_cached(
    type: str = "default",
    ttl: Duration | None = None,
    *,
    cache: Cache | None = None,
    version: Any = None,
    ignore: Iterable[str] = (),
    normalize: Any = None,
    cache_if: Callable[[Any], bool] | None = None,
    tags: Iterable[str] | Callable[[dict[str, Any], Any], Iterable[str]] = (),
    stale_while_revalidate: Duration | None = None,
    stale_if_error: Duration | None = None,
    variants: int = 1,
    state: Any = UNSET,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...
def content_cached(
    type: Any = "default",
    ttl: Duration | None = None,
    *,
    cache: Cache | None = None,
    version: Any = None,
    ignore: Iterable[str] = (),
    normalize: Any = None,
    cache_if: Callable[[Any], bool] | None = None,
    tags: Iterable[str] | Callable[[dict[str, Any], Any], Iterable[str]] = (),
    stale_while_revalidate: Duration | None = None,
    stale_if_error: Duration | None = None,
    variants: int = 1,
    state: Any = UNSET,
) -> Any:
    """Store the results of a function under the content of its arguments.

    Works bare and with arguments, on functions, methods, classmethods, staticmethods, coroutine
    functions, generators and asynchronous generators. A generator is recorded while it is
    consumed, stored when it is exhausted without an error, and replayed.

    Parameters
    ----------
    type
        the category: TTL, counters, clearing and config are per type
    ttl
        how long a result is fresh: seconds, a `timedelta`, or text such as "250ms", "90s",
        "15m", "24h", "30d"; `None` takes the type's from the config, then the cache's default;
        0 never stores; "forever" never expires
    cache
        where results are kept; `None` is the default cache, looked up at each call
    version
        any value, folded into the key in place of the function's own code
    ignore
        names of parameters that are left out of the key
    normalize
        "text" (Unicode NFC, case folded, white space collapsed), a callable, or a dictionary from
        parameters to either: applied to what is keyed, never to what is passed on
    cache_if
        ``f(result) -> bool``: whether a result is stored
    tags
        names for clearing in groups, or ``f(bound_arguments, result)`` that returns them
    stale_while_revalidate
        this long past its TTL an entry is served at once, while one refresh runs (RFC 5861)
    stale_if_error
        this long past its TTL an entry is served if the call fails (RFC 5861)
    variants
        how many different results are kept for one key, and served in turn: 1 to 255
    state
        for methods, what of `self` belongs in the key: names of attributes, ``f(self)``, or
        `None` for nothing; left out, the instance's own content

    Returns
    -------
    CachedFunction
        a callable with the same signature, and with `cache_info`, `cache_clear`, `cache_key`,
        `refresh`, `bypass`, `peek`, `explain` and `invalidate`

    Raises
    ------
    ConfigError
        an argument is wrong; raised here, not when the function is called
    KeyingError
        when it is called: an argument has no content that could be keyed exactly
    """
    if callable(type) or isinstance(type, (classmethod, staticmethod)):
        decorator: Callable[[Any], Any] = content_cached(
            ttl=ttl,
            cache=cache,
            version=version,
            ignore=ignore,
            normalize=normalize,
            cache_if=cache_if,
            tags=tags,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            variants=variants,
            state=state,
        )
        return decorator(type)
    if cache is not None and not isinstance(cache, Cache):
        raise ConfigError(f"cache={cache!r} is not a memoleo.Cache")
    tagger = tags if callable(tags) else None
    policy = make_policy(
        type,
        ttl,
        cache_if,
        () if callable(tags) else tags,
        stale_while_revalidate,
        stale_if_error,
        variants,
    )
    options = {"version": version, "ignore": ignore, "normalize": normalize, "state": state}

    def decorate(function: Any) -> Any:
        inner = getattr(function, "__func__", function)
        if isinstance(inner, _CLASS) or not callable(inner):
            raise ConfigError(f"content_cached decorates functions and methods, not {function!r}")
        label = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', inner)}"
        named = msgspec.structs.replace(policy, label=label)
        return _KINDS[kind_of(inner)](function, named, options, tagger, cache)

    return decorate
