"""`map` and `amap`: one function over many inputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from memoleo._decorators.cached import content_cached
from memoleo._functions.decorating import kind_of
from memoleo._mapping.mapping import Mapping, Misused, arun, run
from memoleo._mapping.progress import Progress, showing
from memoleo._units import Duration
from memoleo.codecs._resolve import resolve_codec
from memoleo.errors import CodecError, ConfigError, KeyingError

if TYPE_CHECKING:
    from memoleo._cache.cache import Cache

__all__ = ["amap", "map"]

T = TypeVar("T")
R = TypeVar("R")

_TAKES = {"sync": "map() calls plain", "async": "amap() calls coroutine"}
_KINDS = {
    "sync": "a plain one: use map()",
    "async": "a coroutine function: use amap()",
    "generator": "a generator",
    "async generator": "an async generator",
}


@overload
def map(
    function: Callable[[T], R],
    inputs: Iterable[T],
    *,
    concurrency: int = 8,
    key: Callable[[T], Hashable] | None = None,
    errors: Literal["raise"] = "raise",
    progress: Progress = None,
    unpack: Literal[False] = False,
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[R]: ...
@overload
def map(
    function: Callable[..., R],
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    key: Callable[[Any], Hashable] | None = None,
    errors: Literal["raise"] = "raise",
    progress: Progress = None,
    unpack: Literal[True],
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[R]: ...
@overload
def map(
    function: Callable[..., R],
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    key: Callable[[Any], Hashable] | None = None,
    errors: Literal["return"],
    progress: Progress = None,
    unpack: bool = False,
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[R | Exception]: ...
def map(
    function: Callable[..., Any],
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    key: Callable[[Any], Hashable] | None = None,
    errors: Literal["raise", "return"] = "raise",
    progress: Progress = None,
    unpack: bool = False,
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[Any]:
    """Call a function for many inputs, in threads, and return the results in their order.

    Inputs of the same content are computed once. With a cached function, or a `type`, each result
    is stored as soon as it is there: a run that was killed goes on where it stopped.

    Parameters
    ----------
    function
        a plain function, or one that `content_cached` made
    inputs
        what to call it with; taken one at a time, so a generator may be endless
    concurrency
        calls at once; 1 calls in the caller's own thread
    key
        returns what is equal for inputs that have one result. Left out, the key of the call as
        `content_cached` makes it; inputs that can't be keyed are then computed one by one.
        Equal inputs get equal results that are objects of their own
    errors
        "raise": after the first failure no call begins, and when those that run have ended it is
        raised, with the input in its notes. "return": exceptions stand in the place of results
    progress
        True, or a text, for a bar on a terminal; or a callable that gets (done, total)
    unpack
        call ``function(*input)``, or ``function(**input)`` for a mapping
    type, ttl, cache
        as for `content_cached`; given any of them, results of a plain function are kept

    Raises
    ------
    ConfigError
        an argument is wrong, or the function is asynchronous or a generator
    Exception
        what a call raised
    """
    plan = _Plan("sync", function, concurrency, key, errors, unpack, type, ttl, cache)
    with showing(progress, plan.name) as told:
        mapping = Mapping(inputs, plan.key_of, stop=errors == "raise", told=told)
        results = run(mapping, plan.call, concurrency)
    return _parted(mapping, results)


@overload
async def amap(
    function: Callable[[T], Awaitable[R]],
    inputs: Iterable[T],
    *,
    concurrency: int = 8,
    key: Callable[[T], Hashable] | None = None,
    errors: Literal["raise"] = "raise",
    progress: Progress = None,
    unpack: Literal[False] = False,
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[R]: ...
@overload
async def amap(
    function: Callable[..., Awaitable[R]],
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    key: Callable[[Any], Hashable] | None = None,
    errors: Literal["raise"] = "raise",
    progress: Progress = None,
    unpack: Literal[True],
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[R]: ...
@overload
async def amap(
    function: Callable[..., Awaitable[R]],
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    key: Callable[[Any], Hashable] | None = None,
    errors: Literal["return"],
    progress: Progress = None,
    unpack: bool = False,
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[R | Exception]: ...
async def amap(
    function: Callable[..., Awaitable[Any]],
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    key: Callable[[Any], Hashable] | None = None,
    errors: Literal["raise", "return"] = "raise",
    progress: Progress = None,
    unpack: bool = False,
    type: str | None = None,
    ttl: Duration | None = None,
    cache: Cache | None = None,
) -> list[Any]:
    """Do what `map` does with a coroutine function, in tasks.

    A plain function that returns what can be awaited will do too, unless results are to be kept.
    Parameters and errors are those of `map`. Cancelled, it cancels the calls that run and
    returns when they have ended.
    """
    plan = _Plan("async", function, concurrency, key, errors, unpack, type, ttl, cache)
    with showing(progress, plan.name) as told:
        mapping = Mapping(inputs, plan.key_of, stop=errors == "raise", told=told)
        results = await arun(mapping, plan.acall, concurrency)
    return _parted(mapping, results)


class _Plan:
    """What `map` and `amap` do alike."""

    def __init__(
        self,
        wanted: str,
        function: Callable[..., Any],
        concurrency: int,
        key: Callable[[Any], Hashable] | None,
        errors: str,
        unpack: bool,
        type_: str | None,
        ttl: Duration | None,
        cache: Cache | None,
    ) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigError(f"concurrency={concurrency!r}: give a whole number, 1 or more")
        if errors not in ("raise", "return"):
            raise ConfigError(f"errors={errors!r}: give 'raise' or 'return'")
        if key is not None and not callable(key):
            raise ConfigError(f"key={key!r}: give f(input) -> what is equal for equal inputs")
        if not callable(function):
            raise ConfigError(f"{function!r} can't be called")
        self.name = getattr(function, "__name__", "map")
        kind = kind_of(function)
        keeps = type_ is not None or ttl is not None or cache is not None
        # Of a lambda nobody knows before it is called.
        unknown = (wanted, kind) == ("async", "sync") and not isinstance(function, type)
        if kind != wanted and (keeps or not unknown):
            raise self._misused(wanted, kind)
        # Also through other decorators, which pass on what they don't know.
        self._cache_key = getattr(function, "cache_key", None)
        if keeps:
            if self._cache_key is not None:
                raise ConfigError(f"{self.name} is cached already: leave out type, ttl and cache")
            category = "default" if type_ is None else type_
            function = content_cached(type=category, ttl=ttl, cache=cache)(function)
        self.function = function
        self.unpack = unpack
        self._given_key = key
        if key is None and self._cache_key is None:
            self._cache_key = _keyer(function)

    def _misused(self, wanted: str, kind: str) -> Misused:
        return Misused(
            f"{_TAKES[wanted]} functions, and {self.name} is {_KINDS[kind]}",
        )

    def call(self, given: Any) -> Any:
        result = self._with(self.function, given)
        if isinstance(result, CoroutineType):
            result.close()
            raise self._misused("sync", "async")
        return result

    async def acall(self, given: Any) -> Any:
        result = self._with(self.function, given)
        if not hasattr(result, "__await__"):
            raise self._misused("async", "sync")
        return await result

    def _with(self, function: Callable[..., Any], given: Any) -> Any:
        if not self.unpack:
            return function(given)
        return function(**given) if hasattr(given, "keys") else function(*given)

    def key_of(self, given: Any) -> Hashable | None:
        if self._given_key is not None:
            return self._given_key(given)
        if self._cache_key is None:
            return None
        try:
            key: Hashable = self._with(self._cache_key, given)
        except (KeyingError, TypeError):
            # The call itself will say what is wrong with its arguments, if anything is.
            return None
        return key


def _keyer(function: Callable[..., Any]) -> Callable[..., Hashable] | None:
    try:
        key: Callable[..., Hashable] = content_cached(function).cache_key
    except Exception:
        # Some callables have no content that could be keyed, and can be called all the same.
        return None
    return key


def _parted(mapping: Mapping, results: list[Any]) -> list[Any]:
    """Give equal inputs equal results that are objects of their own, as hits would be."""
    for work in mapping.repeated:
        first, *others = work.positions
        result = results[first]
        if isinstance(result, (str, bytes, int, float, bool, type(None), Exception)):
            continue
        codec = resolve_codec("auto")
        try:
            payload = codec.encode(result)
            for position in others:
                results[position] = codec.decode(payload)
        except CodecError:
            # What has no exact form stays one object.
            continue
    return results
