"""Never run: mypy and pyright check that decorators keep the types of what they wrap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from memoleo import Cache, content_cached, retried, timed, timer

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
bare.invalidate("a")
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
    for number in generator(3):
        assert_type(number, int)
    async for other in async_generator(3):
        assert_type(other, int)


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

    @staticmethod
    @content_cached
    def static_method(text: str) -> bytes:
        return text.encode()


async def use_methods(scorer: Scorer) -> None:
    assert_type(scorer.method("a"), float)
    assert_type(scorer.method_called("a"), float)
    assert_type(await scorer.async_method("a"), float)
    assert_type(Scorer.static_method("a"), bytes)
    scorer.method(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@timed
def timed_bare(text: str) -> int:
    return len(text)


@timed("name")
async def timed_called(text: str) -> int:
    return len(text)


@retried
def retried_bare(text: str) -> int:
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


def takes_a_callable(function: Callable[[str], float]) -> float:
    return function("a")


async def takes_a_coroutine_function(
    function: Callable[[str], Coroutine[Any, Any, list[str]]],
) -> list[str]:
    return await function("a")


async def hand_them_on() -> None:
    takes_a_callable(Scorer().method)
    await takes_a_coroutine_function(coroutine)
