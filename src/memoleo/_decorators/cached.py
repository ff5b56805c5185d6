"""`content_cached`: results stored under the content of the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import FunctionType
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
from msgspec.structs import replace

from memoleo import _switch
from memoleo._cache import default
from memoleo._cache.cache import Cache
from memoleo._decorators.hot import compile_call, exchange, stub
from memoleo._explaining.explain import Explanation
from memoleo._flow.flow import Intent
from memoleo._flow.policy import Policy, make_policy
from memoleo._flow.reader import Streak, count_miss
from memoleo._flow.store import Job
from memoleo._functions.callable import BoundCallable, Documented, WrappedCallable, takes_call
from memoleo._functions.compiled import UNSET
from memoleo._functions.decorating import hands_on, kind_of
from memoleo._stored import StoredEntry
from memoleo._switch import Mode, mode
from memoleo._units import Duration
from memoleo.config import _settings
from memoleo.errors import ConfigError, KeyingError
from memoleo.keys._address import Key
from memoleo.keys._keyer import Keyer
from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._keeper import keeper

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
    """What a function keeps for the cache and the settings that it used last."""

    __slots__ = ("cache", "compiled", "counters", "job", "settings", "streak")

    def __init__(self, cache: Cache | None, counters: CacheCounters, settings: Any) -> None:
        self.cache = cache
        self.counters = counters
        self.settings = settings
        self.compiled = False
        self.job: Job | None = None
        self.streak = Streak()


class CachedFunction(WrappedCallable[P, R]):
    """A function whose results are kept; made by `content_cached`."""

    _bound_type: ClassVar[type[BoundCallable[..., Any]]] = BoundCached
    _awaits: ClassVar[bool] = False
    _streamed: ClassVar[bool] = False

    def __init__(
        self,
        function: Callable[P, R],
        policy: Policy,
        options: Mapping[str, Any],
        tags: Callable[[dict[str, Any], Any], Iterable[str]] | None,
        cache: Cache | None,
    ) -> None:
        super().__init__(function, self._stub(function))
        self._keyer = Keyer(self.__wrapped__, type=policy.type, **options)
        self._policy = policy
        self._tags = tags
        self._cache = cache
        self._attached = _Attached(None, CacheCounters(), None)
        keeper.expect()
        # Whoever says what of the instance counts says that there is one.
        if self.__binding__ == "classmethod" or options.get("state", UNSET) is not UNSET:
            self._keyer.is_method = True

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        if self.__binding__ == "method" and not self._keyer.is_method:
            self._keyer.is_method = True
            self._enter_by(self._stub(self.__wrapped__))
            self._attached = _Attached(None, self._attached.counters, None)

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

    def _stub(self, function: Any) -> FunctionType:
        name = getattr(function, "__qualname__", type(self).__name__)
        return stub(self._slowly, name, awaits=self._awaits)

    def _slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer any call: the first one, and those that are not plain."""
        job = self._begun(args, kwargs)
        return self.__wrapped__(*args, **kwargs) if job is None else self._perform(job)

    def _begun(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job | None:
        """Return what the cache is to be asked; `None` if it isn't."""
        if not _switch.enabled() or mode.get() is Mode.BYPASS:
            return None
        try:
            key = self._keyer.make(*args, **kwargs)
        except KeyingError:
            raise
        except TypeError:
            # The arguments don't fit: the function itself says so best.
            return None
        except ImportError:
            # A signal handler calls it in the middle of an import that the first key needs.
            return None
        job = self._job(self._at(), key, partial(self.__wrapped__, *args, **kwargs))
        if not self._attached.compiled:
            self._attached.compiled = True
            if not self._streamed and job.freshness.ttl > 0:
                self._compile(job, args)
        return job

    def _compile(self, job: Job, args: tuple[Any, ...]) -> None:
        """Compile what answers plain calls from now on, under the present cache and settings."""
        attached = self._attached
        calls = attached.cache.calls  # type: ignore[union-attr]
        driver = calls.driver
        awaits = self._awaits
        call = compile_call(
            self.__wrapped__,
            self._keyer.parameters if hands_on(self.__wrapped__) else None,
            self._keyer.recipe(args),
            calls.lookup(job, attached.streak),
            count_miss(job, attached.streak),
            keyer=self._keyer,
            cache=attached.cache,
            settings=attached.settings,
            is_default=self._cache is None,
            slowly=self._slowly,
            job=self._maker(attached),
            found=calls.afound if awaits else calls.found,
            begin=driver.abegin if awaits else driver.begin,
            perform=driver.aperform if awaits else driver.perform,
            awaits=awaits,
        )
        mine = object()
        if self.__dict__.setdefault("_exchanged", mine) is mine:
            exchange(self._entry, call)  # type: ignore[arg-type]
        else:
            self._enter_by(call)

    def _perform(self, job: Job, intent: Intent | None = None) -> Any:
        return self._at().cache.calls.call(job, intent)

    def _at(self) -> Any:
        """Return what this function keeps for the cache and the settings in use."""
        cache = self._cache or default.get_cache()
        settings = _settings.current()
        attached = self._attached
        if attached.cache is not cache or attached.settings is not settings:
            counters = attached.counters
            if attached.cache is not cache:
                counters = cache.calls.tally.of(self._policy.type).child()
            attached = self._attached = _Attached(cache, counters, settings)
        return attached

    def _job_of(self, args: Any, kwargs: Any) -> Job:
        compute = partial(self.__wrapped__, *args, **kwargs)
        return self._job(self._at(), self._keyer.key(args, kwargs), compute)

    def _maker(self, attached: _Attached) -> Callable[[bytes, partial[Any]], Job]:
        """Return what makes a call that is answered from the store."""
        make = partial(self._job, attached)
        if self._policy.variants == 1:
            return make
        calls = attached.cache.calls  # type: ignore[union-attr]
        return lambda key, compute: calls.variant(make(key, compute))

    def _job(self, attached: _Attached, key: bytes, compute: partial[Any]) -> Job:
        alike = attached.job
        if alike is None:
            calls = attached.cache.calls  # type: ignore[union-attr]
            alike = attached.job = calls.job(
                b"", self._policy, _nothing, counters=attached.counters, streamed=self._streamed
            )
        args, kwargs = compute.args, compute.keywords
        describe: Any
        latest, describe = self._keyer.latest.made
        if latest is not key:
            describe = partial(self._keyer.describe, args, kwargs)
        if self._tags is None:
            return replace(alike, key=key, compute=compute, describe=describe)
        tags = partial(self._tagged, args, kwargs)
        return replace(alike, key=key, compute=compute, describe=describe, tags=tags)

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
        job = self._job_of(args, kwargs)
        return self._perform(job, Intent.REFRESH)  # type: ignore[no-any-return]

    @takes_call
    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute a call now, and touch no cache."""
        return self.__wrapped__(*args, **kwargs)

    @takes_call
    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> StoredEntry | None:
        """Return the entry of a call, fresh or not, or `None`; nothing is computed or counted."""
        job = self._job_of(args, kwargs)
        entry: StoredEntry | None = self._at().cache.calls.peek(job)
        return entry

    @takes_call
    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Return why a call would be a hit or a miss; nothing is computed or counted."""
        job = self._job_of(args, kwargs)
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
    _awaits = True

    async def _slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        job = self._begun(args, kwargs)
        return await (self.__wrapped__(*args, **kwargs) if job is None else self._perform(job))

    def _perform(self, job: Job, intent: Intent | None = None) -> Any:
        return self._at().cache.calls.acall(job, intent)


class _StreamCached(CachedFunction[P, Any]):
    _streamed = True

    def _perform(self, job: Job, intent: Intent | None = None) -> Any:
        return self._at().cache.calls.stream(job, intent)


class _AsyncStreamCached(CachedFunction[P, Any]):
    _streamed = True

    def _perform(self, job: Job, intent: Intent | None = None) -> Any:
        return self._at().cache.calls.astream(job, intent)


_KINDS: dict[str, type[CachedFunction[..., Any]]] = {
    "sync": CachedFunction,
    "async": _AsyncCached,
    "generator": _StreamCached,
    "async generator": _AsyncStreamCached,
}


_CLASS = type


def _nothing() -> None:
    return None


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
        ``f(result) -> bool``: whether a result is stored; of a generator the result is the list
        of what it yielded, also for `tags`
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
