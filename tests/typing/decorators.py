"""Never run: mypy and pyright check that decorators keep the types of what they wrap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from memoleo import (
    Cache,
    CachedFunction,
    Explanation,
    StoredEntry,
    content_cached,
    retried,
    timed,
    timer,
)
from memoleo.keys import Key
from memoleo.metrics import Metrics

if TYPE_CHECKING:
    from typing_extensions import assert_type


@content_cached
def bare(text: str, *, count: int = 1) -> dict[str, int]:
    return {text: count}


@content_cached(type="scores", ttl="30d", ignore=("count",))
def called(text: str, *, count: int = 1) -> dict[str, int]:
    return {text: count}


assert_type(bare("a", count=2), dict[str, int])
assert_type(called("a"), dict[str, int])
assert_type(bare.bypass("a"), dict[str, int])
assert_type(bare.refresh("a", count=3), dict[str, int])
assert_type(bare.cache_key("a"), Key)
assert_type(bare.peek("a"), StoredEntry | None)
assert_type(bare.explain("a"), Explanation)
assert_type(bare.invalidate("a"), bool)
assert_type(bare.cache_info().hits, int)
bare.cache_clear()

bare(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare("a", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
called("a", counts=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare.refresh(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@content_cached
async def coroutine(text: str) -> list[str]:
    return [text]


@content_cached(type="async")
async def coroutine_called(text: str) -> list[str]:
    return [text]


async def use_coroutines() -> None:
    assert_type(await coroutine("a"), list[str])
    assert_type(await coroutine_called("a"), list[str])
    assert_type(await coroutine.refresh("a"), list[str])


@content_cached
def generator(count: int) -> Iterator[int]:
    yield from range(count)


@content_cached
async def async_generator(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def use_streams() -> None:
    assert_type(generator(3), Iterator[int])
    assert_type(async_generator(3), AsyncIterator[int])
    assert_type(generator.refresh(3), Iterator[int])
    for number in generator(3):
        assert_type(number, int)
    async for other in async_generator(3):
        assert_type(other, int)


T = TypeVar("T")


@content_cached
def generic(items: list[T]) -> T:
    return items[0]


assert_type(generic([1]), int)


class Scorer:
    @content_cached
    def method(self, text: str) -> float:
        return float(len(text))

    @content_cached(type="scores", state=None)
    def method_called(self, text: str) -> float:
        return float(len(text))

    @content_cached
    async def async_method(self, text: str) -> float:
        return float(len(text))

    @content_cached
    def generator_method(self, count: int) -> Iterator[int]:
        yield from range(count)

    @staticmethod
    @content_cached
    def static_method(text: str) -> bytes:
        return text.encode()

    @content_cached(type="scores")
    @staticmethod
    def static_below(text: str) -> bytes:
        return text.encode()

    @staticmethod
    @content_cached(type="scores")
    def static_of_nothing() -> bytes:
        return b""

    @classmethod
    @content_cached
    def class_method(cls, text: str) -> bytes:
        return text.encode()

    @content_cached
    @classmethod
    def class_below(cls, text: str) -> bytes:
        return text.encode()

    @content_cached(type="scores")
    @classmethod
    async def class_below_async(cls, text: str) -> bytes:
        return text.encode()


class LoudScorer(Scorer):
    pass


async def use_methods(scorer: Scorer) -> None:
    assert_type(scorer.method("a"), float)
    assert_type(scorer.method_called("a"), float)
    assert_type(scorer.method.refresh("a"), float)
    assert_type(scorer.method.cache_key("a"), Key)
    assert_type(await scorer.async_method("a"), float)
    assert_type(scorer.generator_method(3), Iterator[int])
    assert_type(Scorer.method(scorer, "a"), float)
    scorer.method(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def use_static_methods(scorer: Scorer) -> None:
    assert_type(Scorer.static_method("a"), bytes)
    assert_type(scorer.static_method("a"), bytes)
    assert_type(Scorer.static_below("a"), bytes)
    assert_type(scorer.static_below("a"), bytes)
    assert_type(scorer.static_below.refresh("a"), bytes)
    assert_type(Scorer.static_of_nothing(), bytes)
    assert_type(scorer.static_of_nothing(), bytes)
    scorer.static_method(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Scorer.static_below(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def use_class_methods(scorer: Scorer) -> None:
    assert_type(Scorer.class_method("a"), bytes)
    assert_type(scorer.class_method("a"), bytes)
    assert_type(LoudScorer.class_method("a"), bytes)
    assert_type(LoudScorer().class_below("a"), bytes)
    assert_type(Scorer.class_below("a"), bytes)
    assert_type(scorer.class_below("a"), bytes)
    assert_type(Scorer.class_below.refresh("a"), bytes)
    assert_type(await Scorer.class_below_async("a"), bytes)
    assert_type(await scorer.class_below_async("a"), bytes)
    Scorer.class_method(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scorer.class_below(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@timed
def timed_bare(text: str) -> int:
    return len(text)


@timed("name")
async def timed_called(text: str) -> int:
    return len(text)


@retried
def retried_bare(text: str) -> int:
    return len(text)


@timed("named", metrics=Metrics())
def timed_iterator(count: int) -> Iterator[int]:
    yield from range(count)


@timed(operation="named")
def timed_by_keyword(text: str) -> int:
    return len(text)


@retried(OSError)
async def retried_iterator(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def is_busy(error: Exception) -> bool:
    return "busy" in str(error)


@retried(on=is_busy, give_up=(KeyError, ValueError), deadline="3s")
def retried_by_predicate(text: str) -> int:
    return len(text)


class Caller:
    @timed
    def method(self, text: str) -> int:
        return len(text)

    @timed("class")
    @classmethod
    def class_method(cls, text: str) -> int:
        return len(text)

    @retried
    @staticmethod
    def static_method(text: str) -> int:
        return len(text)

    @classmethod
    @timed
    @content_cached
    @retried
    def stacked(cls, text: str) -> int:
        return len(text)


@retried(on=ConnectionError, attempts=5, backoff_ms=(1, 2))
async def retried_called(text: str) -> int:
    return len(text)


@timed("stage1")
@content_cached(type="all")
@retried(on=(ConnectionError, TimeoutError))
def stacked(text: str, labels: list[str]) -> dict[str, float]:
    return dict.fromkeys(labels, 0.0)


async def use_the_others() -> None:
    assert_type(timed_bare("a"), int)
    assert_type(await timed_called("a"), int)
    assert_type(retried_bare("a"), int)
    assert_type(await retried_called("a"), int)
    assert_type(stacked("a", ["b"]), dict[str, float])
    assert_type(stacked.refresh("a", ["b"]), dict[str, float])
    assert_type(timed_iterator(1), Iterator[int])
    assert_type(timed_by_keyword("a"), int)
    assert_type(retried_iterator(1), AsyncIterator[int])
    assert_type(retried_by_predicate("a"), int)
    assert_type(Caller().method("a"), int)
    assert_type(Caller.class_method("a"), int)
    assert_type(Caller().static_method("a"), int)
    assert_type(Caller.stacked("a"), int)
    assert_type(Caller().stacked("a"), int)
    timed(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    retried(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    retried(on=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    timed_bare(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    retried_bare(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stacked("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with timer("block"):
        pass
    async with timer("block"):
        pass


def use_a_cache(cache: Cache) -> None:
    assert_type(cache.get_or_compute("key", lambda: 3), int)
    assert_type(cache.delete("key"), bool)
    assert_type(cache.get_stats(), dict[str, Any])


def takes_a_cached_function(function: CachedFunction[[str], float]) -> float:
    return function.refresh("a")


def takes_a_callable(function: Callable[[str], float]) -> float:
    return function("a")


async def takes_a_coroutine_function(
    function: Callable[[str], Coroutine[Any, Any, list[str]]],
) -> list[str]:
    return await function("a")


async def hand_them_on() -> None:
    takes_a_callable(Scorer().method)
    await takes_a_coroutine_function(coroutine)
