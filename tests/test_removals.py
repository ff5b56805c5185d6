"""Removing a result while it is computed: what was read before that is not served after it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis_servers import shared_server

from memoleo import Cache, Metrics, content_cached
from memoleo._flow.removals import Removal


@pytest.fixture(params=["memory", "sqlite", "tiered", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"{shared_server().url}?prefix=t:{tmp_path.name}:{os.getpid()}&timeout=10"
    return {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/cache.db?memory=0",
        "tiered": f"sqlite:///{tmp_path}/cache.db",
    }[request.param]


@pytest.fixture
def cache(url: str) -> Iterator[Cache]:
    with Cache(url, metrics=Metrics()) as opened:
        yield opened


class Source:
    """What a function reads, and a gate that it then waits at the first time."""

    def __init__(self) -> None:
        self.truth = "old"
        self.runs = 0
        self.began, self.goes_on = threading.Event(), threading.Event()

    def read(self, number: int = 0) -> str:
        self.runs += 1
        found = self.truth
        if self.runs == 1:
            self.began.set()
            assert self.goes_on.wait(30)
        return found


REMOVALS: dict[str, Callable[[Any, Cache], Any]] = {
    "invalidate": lambda read, cache: read.invalidate(1),
    "cache_clear": lambda read, cache: read.cache_clear(),
    "clear": lambda read, cache: cache.clear(),
    "clear its type": lambda read, cache: cache.clear(type="t"),
    "clear its tag": lambda read, cache: cache.clear(tag="fixed"),
    "clear a tag of its result": lambda read, cache: cache.clear(tag="old"),
    "refresh": lambda read, cache: read.refresh(1),
}


@pytest.mark.parametrize("what", REMOVALS)
def test_what_was_read_before_a_removal_is_not_served_after_it(cache: Cache, what: str) -> None:
    """The caller in flight gets what it computed; who asks later gets the new truth, for good."""
    source = Source()
    tags = (lambda bound, result: [result]) if "result" in what else ["fixed"]

    @content_cached("t", "forever", cache=cache, tags=tags)
    def read(number: int) -> str:
        return source.read(number)

    with ThreadPoolExecutor() as pool:
        early = pool.submit(read, 1)
        assert source.began.wait(30)
        source.truth = "new"
        REMOVALS[what](read, cache)
        later = read(1)
        source.goes_on.set()
        assert early.result(30) == "old"
        assert later == "new"
    assert read(1) == "new"
    assert source.runs == 2


@pytest.mark.parametrize(
    "remove",
    [
        lambda read, cache: read.invalidate(2),
        lambda read, cache: cache.clear(type="other"),
        lambda read, cache: cache.clear(tag="other"),
        lambda read, cache: cache.clear(older_than="1h"),
        lambda read, cache: cache.delete("other"),
    ],
)
def test_what_is_not_removed_is_stored(cache: Cache, remove: Callable[[Any, Cache], Any]) -> None:
    """A removal of other entries doesn't cost a result that is being computed."""
    source = Source()

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> str:
        return source.read(number)

    with ThreadPoolExecutor() as pool:
        early = pool.submit(read, 1)
        assert source.began.wait(30)
        remove(read, cache)
        source.goes_on.set()
        early.result(30)
    assert read(1) == "old"
    assert source.runs == 1


def test_those_who_wait_share_one_new_run(cache: Cache) -> None:
    """Callers that wait when a result is removed are given the new one, computed once for all."""
    source = Source()

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> str:
        return source.read(number)

    waiting = 5
    with ThreadPoolExecutor(waiting + 1) as pool:
        early = pool.submit(read, 1)
        assert source.began.wait(30)
        flights = cache.calls.driver._flights
        (flight,) = flights._flights.values()
        late = [pool.submit(read, 1) for _ in range(waiting)]
        while flight.joined is None or len(flight.joined._condition._waiters) < waiting:
            threading.Event().wait(0.001)
        source.truth = "new"
        read.invalidate(1)
        source.goes_on.set()
        assert early.result(30) == "old"
        assert [one.result(30) for one in late] == ["new"] * waiting
    assert source.runs == 2


@pytest.mark.parametrize("url", ["tiered", "redis"], indirect=True)
def test_a_removal_by_another_cache_of_this_process(cache: Cache, url: str) -> None:
    """Caches on one store know of one another's runs: they share them, and what was removed."""
    source = Source()

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> str:
        return source.read(number)

    with ThreadPoolExecutor() as pool, Cache(url, metrics=Metrics()) as other:
        again = content_cached("t", "forever", cache=other)(read.__wrapped__)
        early = pool.submit(read, 1)
        assert source.began.wait(30)
        source.truth = "new"
        again.invalidate(1)
        assert again(1) == "new"
        source.goes_on.set()
        assert early.result(30) == "old"
        assert read(1) == "new"


def test_what_is_set_after_a_removal_stays(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finds its result removed takes nothing away but its own."""
    backend = cache.backend
    put = backend.set

    def overtaken(key: bytes, entry: Any) -> None:
        put(key, entry)
        monkeypatch.undo()
        cache.set("name", "new")

    monkeypatch.setattr(backend, "set", overtaken)
    assert cache.get_or_compute("name", lambda: "old") == "old"
    assert cache.get("name") == "new"


def test_a_removal_counts_where_nobody_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was removed as it was stored goes also if the store can't be read just then."""
    cache = Cache("memory://", metrics=Metrics())
    backend = cache.backend
    put = backend.set

    def broken(key: bytes) -> Any:
        raise OSError("unreadable")

    def overtaken(key: bytes, entry: Any) -> None:
        put(key, entry)
        cache.delete("name")
        put(key, entry)
        monkeypatch.setattr(cache.calls.driver.store, "find", broken)

    monkeypatch.setattr(backend, "set", overtaken)
    assert cache.get_or_compute("name", lambda: "old") == "old"
    monkeypatch.undo()
    assert cache.get("name") is None


def test_a_removal_while_the_result_is_stored(cache: Cache) -> None:
    """It is gone although it was not there yet when it was removed."""
    runs = []

    def remove(result: int) -> bool:
        if len(runs) == 1:
            read.invalidate(1)
        return True

    @content_cached("t", "forever", cache=cache, cache_if=remove)
    def read(number: int) -> int:
        runs.append(number)
        return len(runs)

    assert [read(1), read(1), read(1)] == [1, 2, 2]


def test_under_a_name(cache: Cache) -> None:
    """`Cache.get_or_compute` brings back nothing that `set` or `delete` has replaced meanwhile."""
    for replace, expected in (
        (lambda: cache.set("name", "new"), "new"),
        (lambda: cache.delete("name"), "unknown"),
    ):
        source = Source()
        with ThreadPoolExecutor() as pool:
            early = pool.submit(cache.get_or_compute, "name", source.read)
            assert source.began.wait(30)
            replace()
            source.goes_on.set()
            assert early.result(30) == "old"
        assert cache.get("name", "unknown") == expected
        cache.delete("name")


def test_in_tasks(cache: Cache) -> None:
    """The same for coroutine functions."""

    async def main() -> None:
        truth, began, goes_on = ["old"], asyncio.Event(), asyncio.Event()

        @content_cached("t", "forever", cache=cache)
        async def read(number: int) -> str:
            found = truth[0]
            if not began.is_set():
                began.set()
                await goes_on.wait()
            return found

        early = asyncio.create_task(read(1))
        await began.wait()
        truth[0] = "new"
        read.invalidate(1)
        assert await read(1) == "new"
        goes_on.set()
        assert await early == "old"
        assert await read(1) == "new"

    asyncio.run(main())


def test_while_a_stream_is_consumed(cache: Cache) -> None:
    """A recording that was removed before its end is not replayed."""
    truth = ["old"]

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> Iterator[str]:
        yield truth[0]
        yield truth[0]

    stream = read(1)
    assert next(stream) == "old"
    truth[0] = "new"
    read.invalidate(1)
    assert [*stream] == ["new"]
    assert [*read(1)] == ["new", "new"]


def test_a_refreshed_stream(cache: Cache) -> None:
    """A recording that began before a refresh doesn't replace what the refresh brought."""
    truth = ["old"]

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> Iterator[str]:
        found = truth[0]
        yield found
        yield found

    stream = read(1)
    assert next(stream) == "old"
    truth[0] = "new"
    assert [*read.refresh(1)] == ["new", "new"]
    assert [*stream] == ["old"]
    assert [*read(1)] == ["new", "new"]


def test_a_refresh_that_was_overtaken(cache: Cache) -> None:
    """What is invalidated while a refresh computes it stays removed."""
    source = Source()

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> str:
        return source.read(number)

    with ThreadPoolExecutor() as pool:
        early = pool.submit(read.refresh, 1)
        assert source.began.wait(30)
        source.truth = "new"
        read.invalidate(1)
        source.goes_on.set()
        assert early.result(30) == "old"
    assert read(1) == "new"


@pytest.mark.parametrize("what", ["tags of other results", "many other keys"])
def test_removals_that_mean_others_cost_nothing(cache: Cache, what: str) -> None:
    """A long run is stored, whatever else is set or cleared by a tag meanwhile."""
    source = Source()

    @content_cached("t", "forever", cache=cache, tags=lambda bound, result: [result])
    def read(number: int) -> str:
        return source.read(number)

    with ThreadPoolExecutor() as pool:
        early = pool.submit(read, 1)
        assert source.began.wait(30)
        if what == "many other keys":
            for number in range(1100):
                cache.set(f"name {number}", number)
        else:
            cache.clear(tag="another")
        source.goes_on.set()
        early.result(30)
    assert read(1) == "old"
    assert source.runs == 1


@pytest.mark.parametrize("what", ["clears", "keys"])
def test_more_removals_than_are_remembered(cache: Cache, what: str) -> None:
    """A run that saw very many of them leaves nothing, since one may have meant it."""
    source = Source()

    @content_cached("t", "forever", cache=cache)
    def read(number: int) -> str:
        return source.read(number)

    with ThreadPoolExecutor() as pool:
        early = pool.submit(read, 1)
        assert source.began.wait(30)
        if what == "clears":
            cache.clear(type="t")
            for _ in range(1100):
                cache.calls.driver.disown(Removal(type="other"))
        else:
            read.invalidate(1)
            others = (number.to_bytes(32, "big") for number in range(17_000))
            cache.calls.driver.disown(Removal(keys=frozenset(others)))
        source.goes_on.set()
        early.result(30)
    assert read.peek(1) is None
