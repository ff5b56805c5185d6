"""`Cache` as an object: keys of one's own, clearing, exporting, counting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import memoleo
from memoleo import BackendError, Cache, CodecError, ConfigError, Event, Metrics
from memoleo.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "tiered"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Cache]:
    """A cache on each backend, with a clock that stands still."""
    urls = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/cache.db?memory=0",
        "tiered": f"sqlite:///{tmp_path}/cache.db",
    }
    with Cache(urls[request.param], clock=clock, metrics=Metrics()) as opened:
        yield opened


class TestKeysOfOnesOwn:
    @pytest.mark.parametrize("key", ["", "song:1", "ünï", "\ud800", b"", b"\x00raw", "x" * 10_000])
    def test_any_text_and_bytes(self, cache: Cache, key: str | bytes) -> None:
        """Any str and any bytes is a key."""
        assert cache.get(key, "none yet") == "none yet"
        cache.set(key, {"a": (1, 2)})
        assert cache.get(key) == {"a": (1, 2)}
        assert cache.delete(key)
        assert not cache.delete(key)

    def test_text_and_bytes_are_apart(self, cache: Cache) -> None:
        """ "a" and b"a" are two keys."""
        cache.set("a", 1)
        cache.set(b"a", 2)
        assert (cache.get("a"), cache.get(b"a")) == (1, 2)

    def test_other_types_are_refused(self, cache: Cache) -> None:
        """A number is not a key."""
        with pytest.raises(TypeError, match="str or bytes"):
            cache.get(1)  # type: ignore[arg-type]

    def test_stored_none_is_not_the_default(self, cache: Cache) -> None:
        """A stored None is a value."""
        cache.set("k", None)
        assert cache.get("k", "default") is None

    def test_expired_value_is_the_default(self, cache: Cache, clock: FakeClock) -> None:
        """get judges freshness by the TTL that set was given."""
        cache.set("k", 1, ttl="10s")
        clock.advance(10)
        assert cache.get("k") is None

    def test_value_without_a_form_is_an_error(self, cache: Cache) -> None:
        """An explicit set of what can't be stored says so."""
        with pytest.raises(CodecError):
            cache.set("k", object())

    def test_ttl_of_zero_removes_what_was_there(self, cache: Cache) -> None:
        """A value that is not to be kept doesn't leave an older one behind."""
        cache.set("k", 1)
        cache.set("k", 2, ttl=0)
        assert cache.get("k") is None

    @pytest.mark.parametrize(
        "wrong", [{"variants": 0}, {"variants": 300}, {"type": 5}, {"tags": "abc"}, {"tags": [1]}]
    )
    def test_wrong_options_are_refused(self, cache: Cache, wrong: dict[str, Any]) -> None:
        """get_or_compute checks what content_cached checks."""
        with pytest.raises(ConfigError):
            cache.get_or_compute("k", lambda: 1, **wrong)

    def test_get_or_compute(self, cache: Cache) -> None:
        """The function runs once per key."""
        calls: list[int] = []

        def compute() -> list[int]:
            calls.append(1)
            return [1]

        first = cache.get_or_compute("k", compute, type="t", ttl="1h")
        second = cache.get_or_compute("k", compute, type="t", ttl="1h")
        assert first == second == [1]
        assert first is not second
        assert calls == [1]

    async def test_aget_or_compute(self, cache: Cache) -> None:
        """So does a coroutine function."""
        calls: list[int] = []

        async def compute() -> int:
            calls.append(1)
            await asyncio.sleep(0)
            return 1

        assert await cache.aget_or_compute("k", compute) == 1
        assert await cache.aget_or_compute("k", compute) == 1
        assert calls == [1]


class TestClearing:
    @pytest.fixture(autouse=True)
    def _filled(self, cache: Cache, clock: FakeClock) -> None:
        cache.set("old", 1, type="a", tags=["x"], ttl="10s")
        clock.advance(100)
        cache.set("new", 2, type="a", tags=["x", "y"])
        cache.set("other", 3, type="b", ttl="forever")

    @pytest.mark.parametrize(
        ("conditions", "removed"),
        [
            ({}, {"old", "new", "other"}),
            ({"type": "a"}, {"old", "new"}),
            ({"tag": "y"}, {"new"}),
            ({"older_than": "50s"}, {"old"}),
            ({"type": "a", "tag": "x", "older_than": 50}, {"old"}),
            ({"type": "nothing"}, set()),
        ],
    )
    def test_clear(self, cache: Cache, conditions: dict[str, Any], removed: set[str]) -> None:
        """clear removes what matches every condition, and says how many."""
        assert cache.clear(**conditions) == len(removed)
        stats = cache.get_stats()
        assert stats["total_entries"] == 3 - len(removed)

    def test_clear_expired(self, cache: Cache) -> None:
        """clear_expired removes what is past its TTL only."""
        assert cache.clear_expired() == 1
        assert cache.get("new") == 2

    def test_stats(self, cache: Cache) -> None:
        """get_stats has the documented shape."""
        stats = cache.get_stats()
        assert stats["enabled"] is True
        assert stats["total_entries"] == 3
        assert stats["total_bytes"] > 0
        assert stats["by_type"] == {"a": 2, "b": 1}

    def test_entries(self, cache: Cache) -> None:
        """entries shows values and ages, filtered."""
        found = {entry.value: entry for entry in cache.entries(type="a")}
        assert set(found) == {1, 2}
        assert (found[1].age, found[1].fresh, found[2].fresh) == (100.0, False, True)
        assert cache.get(found[2].key) == 2

    @pytest.mark.parametrize(
        ("conditions", "shown"),
        [
            ({"older_than": "50s"}, {1}),
            ({"newer_than": 50}, {2, 3}),
            ({"fresh": False}, {1}),
            ({"fresh": True, "type": "a"}, {2}),
            ({"larger_than": "1MiB"}, set()),
            ({"larger_than": 1, "tag": "y"}, {2}),
            ({"label": "nobody"}, set()),
        ],
    )
    def test_entries_by_conditions(
        self, cache: Cache, conditions: dict[str, Any], shown: set[int]
    ) -> None:
        """entries shows what matches every condition."""
        assert {entry.value for entry in cache.entries(**conditions)} == shown

    def test_entries_by_the_beginning_of_a_key(self, cache: Cache) -> None:
        """A few letters of a key find its entry, with or without what all keys begin with."""
        [entry] = cache.entries(type="b")
        for start in (entry.key[:12], entry.key[3:12], entry.key):
            assert [each.value for each in cache.entries(key=start)] == [3]

    @pytest.mark.parametrize(
        "wrong", [{"older_than": "soon"}, {"larger_than": "big"}, {"type": 3}, {"key": b"x"}]
    )
    def test_wrong_conditions(self, cache: Cache, wrong: dict[str, Any]) -> None:
        """A condition that can't be meant is refused at once, not when the first entry comes."""
        with pytest.raises(ConfigError):
            cache.entries(**wrong)


class TestConstruction:
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("mysql://x", "memory, sqlite|memory.*sqlite"),
            ("memory://?max_entris=3", "max_entries"),
            ("memory://?max_entries=0", "at least 1"),
            ("memory://?max_bytes=lots", "not a size"),
            (f"memory://?max_bytes={'9' * 400}MB", "not a size"),
            ("sqlite://relative.db", "sqlite:///relative"),
            ("sqlite:///", "sqlite:///relative"),
            ("sqlite:///notes/#1/cache.db", "%23"),
        ],
    )
    def test_wrong_urls(self, url: str, words: str) -> None:
        """A wrong URL says what is wrong with it."""
        with pytest.raises(ConfigError, match=words):
            Cache(url)

    @pytest.mark.parametrize(
        "wrong", [{"url": 5}, {"backend": 5}, {"clock": 5}, {"metrics": 5}, {"hooks": [5]}]
    )
    def test_wrong_arguments(self, wrong: dict[str, Any]) -> None:
        """A cache that could not work is refused when it is made, not when it is used."""
        with pytest.raises(ConfigError):
            Cache(**wrong)

    def test_url_and_backend_exclude_each_other(self) -> None:
        """A cache has one place."""
        from memoleo.backends import MemoryBackend

        with pytest.raises(ConfigError):
            Cache("memory://", backend=MemoryBackend())

    def test_names_with_odd_letters(self, tmp_path: Path) -> None:
        """Percent signs, spaces and question marks in a path survive the URL."""
        from urllib.parse import quote

        path = tmp_path / "a b%20?#é.db"
        with Cache(f"sqlite:///{quote(str(path))}") as cache:
            cache.set("k", 1)
        assert path.exists()

    def test_tiers(self, tmp_path: Path) -> None:
        """A tiered cache answers from the file after the memory is gone."""
        urls = ("memory://", f"sqlite:///{tmp_path}/a.db")
        with Cache.tiered(*urls) as cache:
            cache.set("k", [1])
        with Cache.tiered(*urls) as cache:
            assert cache.get("k") == [1]

    def test_own_backend(self) -> None:
        """Whatever satisfies the protocol serves as a backend, even one that is broken."""

        class Broken:
            remote = False

            def __getattr__(self, name: str) -> Any:
                raise OSError("gone")

        calls: list[int] = []

        def compute() -> int:
            calls.append(1)
            return 1

        cache = Cache(backend=Broken())  # type: ignore[arg-type]
        assert [cache.get_or_compute("k", compute) for _ in range(2)] == [1, 1]
        assert calls == [1, 1]
        assert cache.get("k", "default") == "default"
        asked: list[Any] = [cache.get_stats, cache.clear, cache.clear_expired]
        for ask in (lambda: cache.delete("k"), lambda: list(cache.entries()), *asked):
            with pytest.raises(BackendError):
                ask()

    @pytest.mark.parametrize("fails", ["attributes", "answers", "fields"])
    async def test_own_backend_never_hurts_the_call(self, fails: str) -> None:
        """Whatever the attributes of a backend raise or its methods return, calls are made."""

        class Hostile:
            def __init__(self) -> None:
                self.inner = Cache("memory://").backend

            def __getattribute__(self, name: str) -> Any:
                if name.startswith("__") or name == "inner":
                    return object.__getattribute__(self, name)
                if fails == "attributes":
                    raise RuntimeError(name)
                if name == "remote":
                    return False
                if fails == "answers":
                    return lambda *args, **kwargs: "nonsense"
                found = getattr(self.inner, name)
                return (lambda key: broken(found(key))) if name == "get" else found

        def broken(entry: Any) -> Any:
            fields = {"created": "once", "tokens": None, "cost_ms": b""}
            return entry and msgspec.structs.replace(entry, **fields)

        options: list[dict[str, Any]] = [
            {}, {"stale_while_revalidate": 9}, {"stale_if_error": 9}, {"variants": 2},
        ]  # fmt: skip
        cache = Cache(backend=Hostile())  # type: ignore[arg-type]
        for option in options:

            @memoleo.content_cached(ttl=60, cache=cache, **option)
            def plain(x: int) -> int:
                return x

            @memoleo.content_cached(ttl=60, cache=cache, **option)
            async def awaited(x: int) -> int:
                return x

            @memoleo.content_cached(ttl=60, cache=cache, **option)
            def stream(x: int) -> Iterator[int]:
                yield x

            for _ in range(3):
                assert (plain(1), await awaited(1), list(stream(1))) == (1, 1, [1])

    def test_closing_twice_and_using_again(self, cache: Cache) -> None:
        """close is harmless, and a later use reopens."""
        cache.set("k", 1)
        cache.close()
        cache.close()
        cache.set("k", 2)
        assert cache.get("k") == 2


class TestListening:
    def test_hooks_get_events(self) -> None:
        """A hook gets a record of everything that happens."""
        events: list[Event] = []
        cache = Cache("memory://", hooks=[events.append])
        f = memoleo.content_cached("t", cache=cache)(str.upper)
        f("a"), f("a")
        assert [event.outcome for event in events] == ["miss", "call", "stored", "hit"]
        assert {event.type for event in events} == {"t"}

    def test_failing_hook_is_logged_only(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error in a hook never reaches the call."""

        def hook(event: Event) -> None:
            raise RuntimeError("hook")

        cache = Cache("memory://", hooks=[hook])
        assert cache.get_or_compute("k", lambda: 1) == 1
        assert "hook" in caplog.text
