"""`content_cached` as its users see it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import memoleo
from memoleo import Cache, ConfigError, KeyingError, content_cached
from memoleo.testing import FakeClock


@pytest.fixture(params=["memory", "sqlite", "tiered"])
def cache(request: pytest.FixtureRequest, tmp_path: Any, clock: FakeClock) -> Iterator[Cache]:
    """A cache on each backend, with a clock that stands still."""
    urls = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/cache.db?memory=0",
        "tiered": f"sqlite:///{tmp_path}/cache.db",
    }
    with Cache(urls[request.param], clock=clock, metrics=memoleo.Metrics()) as opened:
        yield opened


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestServing:
    def test_second_call_is_a_hit(self, cache: Cache) -> None:
        """The same call runs the function once."""
        calls: list[str] = []

        @content_cached(cache=cache)
        def shout(text: str, times: int = 1) -> str:
            calls.append(text)
            return text.upper() * times

        assert [shout("a"), shout("a", 1), shout(text="a"), shout(times=1, text="a")] == ["A"] * 4
        assert calls == ["a"]

    @pytest.mark.parametrize("other", [True, 1.0, "1", b"1", (1,), [1]])
    def test_arguments_of_other_types_are_other_calls(self, cache: Cache, other: Any) -> None:
        """1, True, 1.0 and "1" never share an entry, and each gives back its own type."""

        @content_cached(cache=cache)
        def same(value: Any) -> Any:
            return value

        assert same(1) == 1
        for _ in range(2):
            assert type(same(other)) is type(other)
        assert type(same(1)) is int

    def test_none_is_a_result(self, cache: Cache) -> None:
        """None is stored like any other result."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def nothing(x: int) -> None:
            calls.append(x)

        assert nothing(1) is None
        assert nothing(1) is None
        assert calls == [1]

    def test_hits_are_copies(self, cache: Cache) -> None:
        """What a caller does to a result reaches neither the cache nor another caller."""

        @content_cached(cache=cache)
        def scores(text: str) -> dict[str, list[int]]:
            return {"joy": [1, 2]}

        scores("x")["joy"].append(3)
        first, second = scores("x"), scores("x")
        assert first == second == {"joy": [1, 2]}
        assert first is not second
        assert first["joy"] is not second["joy"]

    def test_failures_are_not_stored(self, cache: Cache) -> None:
        """An exception reaches the caller as it is, and the next call runs again."""
        error = LookupError("not today")
        calls: list[int] = []

        @content_cached(cache=cache)
        def flaky(x: int) -> int:
            calls.append(x)
            if len(calls) == 1:
                raise error
            return x

        with pytest.raises(LookupError) as caught:
            flaky(1)
        assert caught.value is error
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert flaky(1) == flaky(1) == 1
        assert len(calls) == 2

    def test_result_that_cannot_be_stored_is_returned(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A result without an exact form goes to the caller, and one warning is logged."""

        @content_cached(cache=cache)
        def lock(x: int) -> Any:
            return threading.Lock()

        assert lock(1) is not lock(1)
        assert len([r for r in caplog.records if "not cached" in r.getMessage()]) == 1

    def test_arguments_that_do_not_fit_raise_the_functions_own_error(self, cache: Cache) -> None:
        """A wrong call fails as it would without the cache."""

        @content_cached(cache=cache)
        def one(x: int) -> int:
            return x

        with pytest.raises(TypeError, match=r"one\(\) .* argument"):
            one(1, 2)  # type: ignore[call-arg]

    def test_argument_that_cannot_be_keyed_names_itself(self, cache: Cache) -> None:
        """A generator has no content: the error names the parameter and the ways out."""

        @content_cached(cache=cache)
        def total(numbers: Any) -> int:
            return sum(numbers)

        with pytest.raises(KeyingError, match=r"numbers.*generator.*ignore"):
            total(x for x in [1])

    def test_mutated_arguments_do_not_poison(self, cache: Cache) -> None:
        """The key is that of the arguments as they came, whatever the function does to them."""

        @content_cached(cache=cache)
        def drain(items: list[int]) -> int:
            count = len(items)
            items.clear()
            return count

        assert drain([1, 2]) == 2
        assert drain([]) == 0
        assert drain([1, 2]) == 2


class TestFreshness:
    @pytest.mark.parametrize("ttl", [60, 60.0, "60s", "1m", timedelta(minutes=1)])
    def test_ttl(self, cache: Cache, clock: FakeClock, ttl: Any) -> None:
        """An entry is served until its TTL has passed, however that is written."""
        calls: list[int] = []

        @content_cached(cache=cache, ttl=ttl)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(1)
        clock.advance(59)
        f(1)
        assert len(calls) == 1
        clock.advance(1)
        f(1)
        assert len(calls) == 2

    def test_zero_never_stores(self, cache: Cache) -> None:
        """ttl=0 is the plain call."""
        calls: list[int] = []

        @content_cached(cache=cache, ttl=0)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(1), f(1)
        assert len(calls) == 2
        assert cache.get_stats()["total_entries"] == 0

    @pytest.mark.parametrize("ttl", ["forever", 10**400], ids=["text", "number"])
    def test_forever(self, cache: Cache, clock: FakeClock, ttl: Any) -> None:
        """ "forever" outlives any time, also when the clock is set back."""
        calls: list[int] = []

        @content_cached(cache=cache, ttl=ttl)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(1)
        for seconds in (1e9, -2e9):
            clock.advance(seconds)
            f(1)
        assert len(calls) == 1

    def test_clock_set_back(self, cache: Cache, clock: FakeClock) -> None:
        """An entry from the future can't be judged, so it is computed anew."""
        calls: list[int] = []

        @content_cached(cache=cache, ttl=60)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(1)
        clock.advance(-3600)
        assert f(1) == f(1) == 1
        assert len(calls) == 2

    def test_ttl_of_the_type(self, clock: FakeClock) -> None:
        """Without a TTL of its own a function takes that of its type."""
        cache = Cache("memory://", clock=clock, types={"short": "10s"}, ttl="1h")
        calls: list[str] = []

        @content_cached("short", cache=cache)
        def f() -> None:
            calls.append("f")

        @content_cached("other", cache=cache)
        def g() -> None:
            calls.append("g")

        f(), g()
        clock.advance(10)
        f(), g()
        assert calls == ["f", "g", "f"]

    def test_stale_while_revalidate(self, cache: Cache, clock: FakeClock) -> None:
        """Past its TTL an entry is served at once, and one refresh runs in the background."""
        refreshed = threading.Event()
        go = threading.Event()
        calls: list[int] = []

        @content_cached(cache=cache, ttl=10, stale_while_revalidate=20)
        def f(x: int) -> int:
            calls.append(x)
            if len(calls) > 1:
                go.wait(10)
                refreshed.set()
            return len(calls)

        assert f(1) == 1
        clock.advance(15)
        assert [f(1), f(1), f(1)] == [1, 1, 1]
        go.set()
        assert refreshed.wait(10)
        for thread in threading.enumerate():
            if thread.name == "memoleo-refresh":
                thread.join(10)
        assert f(1) == 2
        assert len(calls) == 2

    def test_refresh_runs_in_the_callers_context(self, clock: FakeClock) -> None:
        """A background refresh sees the context variables of the call that asked for it."""
        cache = Cache("memory://", clock=clock)
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
        done = threading.Event()

        @content_cached(cache=cache, ttl=10, stale_while_revalidate=20, version=1)
        def whoami() -> str:
            done.set()
            return user.get()

        user.set("leo")
        whoami()
        done.clear()
        clock.advance(15)
        whoami()
        assert done.wait(10)
        for thread in threading.enumerate():
            if thread.name == "memoleo-refresh":
                thread.join(10)
        assert whoami() == "leo"

    async def test_refresh_that_exits_does_not_end_the_program(self, clock: FakeClock) -> None:
        """Whatever a background refresh raises, nobody waits for it."""
        cache = Cache("memory://", clock=clock)
        calls: list[int] = []
        ended = asyncio.Event()

        @content_cached(cache=cache, ttl=10, stale_while_revalidate=20, version=1)
        async def f(x: int) -> int:
            calls.append(x)
            if len(calls) > 1:
                ended.set()
                raise SystemExit(3)
            return x

        await f(1)
        clock.advance(15)
        assert await f(1) == 1
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.sleep(0)
        assert await f(1) == 1

    def test_stale_if_error(
        self, cache: Cache, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Past its TTL an entry is served if the call fails: logged, counted, and not for ever."""
        upstream = Upstream()

        @content_cached("t", cache=cache, ttl=10, stale_if_error=20)
        def f(x: int) -> int:
            return upstream.ask(x)

        f(1)
        upstream.broken = True
        clock.advance(15)
        assert f(1) == 1
        assert "down" in caplog.text
        assert cache.metrics.get_stats()["cache"]["t"]["stale_if_error"] == 1
        clock.advance(20)
        with pytest.raises(OSError, match="down"):
            f(1)


class TestOptions:
    def test_cache_if(self, cache: Cache) -> None:
        """A result that cache_if refuses is returned and not stored."""
        calls: list[int] = []

        @content_cached(cache=cache, cache_if=lambda result: result > 0)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(-1), f(-1), f(1), f(1)
        assert calls == [-1, -1, 1]

    def test_cache_if_that_fails_costs_only_the_entry(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error in cache_if never reaches the caller."""

        @content_cached(cache=cache, cache_if=lambda result: result["missing"])
        def f() -> dict[str, int]:
            return {}

        assert f() == f() == {}
        assert "not cached" in caplog.text

    def test_tags(self, cache: Cache) -> None:
        """Entries are cleared by their tags, fixed ones and computed ones."""

        @content_cached(cache=cache, tags=lambda bound, result: [f"user:{bound['user']}"])
        def f(user: str, page: int = 0) -> str:
            return f"{user}{page}"

        f("a"), f("a", 1), f("b")
        assert cache.clear(tag="user:a") == 2
        assert f.peek("a") is None
        assert f.peek("b") is not None

    def test_ignore(self, cache: Cache) -> None:
        """An ignored parameter has no part in the key."""
        calls: list[float] = []

        @content_cached(cache=cache, ignore=("timestamp",))
        def f(text: str, timestamp: float) -> str:
            calls.append(timestamp)
            return text

        f("a", 1.0), f("a", 2.0), f("a", timestamp=3.0)
        assert calls == [1.0]

    def test_normalize_touches_the_key_only(self, cache: Cache) -> None:
        """Texts that differ in case and white space share an entry; the function sees its own."""
        seen: list[str] = []

        @content_cached(cache=cache, normalize="text")
        def f(text: str) -> int:
            seen.append(text)
            return len(text)

        f("  Hello\n World"), f("hello world")
        assert seen == ["  Hello\n World"]

    def test_normalize_of_parameters_with_the_names_of_builtins(self, cache: Cache) -> None:
        """A parameter may be called as it likes."""
        calls: list[int] = []

        @content_cached(cache=cache, normalize="text")
        def f(map: str, *words: str) -> int:
            calls.append(1)
            return len(words)

        assert [f("A", "B"), f("a", "b")] == [1, 1]
        assert calls == [1]

    def test_version_takes_the_place_of_the_code(self, cache: Cache) -> None:
        """Another version is another function."""

        def make(version: int) -> Any:
            @content_cached(cache=cache, version=version)
            def f() -> int:
                return version

            return f

        assert [make(1)(), make(2)(), make(1)()] == [1, 2, 1]

    def test_version_keeps_closures_apart(self, cache: Cache) -> None:
        """A version stands for the code; what the function closes over counts all the same."""

        def times(n: int) -> Any:
            @content_cached(cache=cache, version=1)
            def f(x: int) -> int:
                return x * n

            return f

        assert [times(2)(5), times(3)(5), times(2)(5)] == [10, 15, 10]

    def test_options_beside_a_function(self, cache: Cache) -> None:
        """content_cached(f, …) takes its options as the decorator does."""
        function = content_cached(len, ttl="1m", cache=cache)  # type: ignore[call-overload]
        assert function("abc") == 3
        entry = function.peek("abc")
        assert (entry.ttl, entry.value) == (60.0, 3)

    def test_variants(self, cache: Cache) -> None:
        """The first N calls compute; then their results are served in turn."""
        calls: list[int] = []

        @content_cached(cache=cache, variants=3)
        def poem(topic: str) -> int:
            calls.append(1)
            return len(calls)

        assert [poem("rain") for _ in range(8)] == [1, 2, 3, 1, 2, 3, 1, 2]
        assert poem.invalidate("rain")
        poem("rain")
        assert len(calls) == 4

    def test_types_do_not_share_entries(self, cache: Cache) -> None:
        """The same function under two types has two entries."""

        def f() -> int:
            return 1

        assert content_cached("a", cache=cache)(f).cache_key() != content_cached("b")(f).cache_key()

    def test_closures_with_other_values_do_not_share_entries(self, cache: Cache) -> None:
        """What a function closes over is part of it."""

        def times(n: int) -> Any:
            @content_cached(cache=cache)
            def f(x: int) -> int:
                return x * n

            return f

        assert [times(2)(5), times(3)(5), times(2)(5)] == [10, 15, 10]

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"ttl": "soon"}, "ttl"),
            ({"ttl": -1}, "ttl"),
            ({"ttl": True}, "ttl"),
            ({"ttl": float("nan")}, "ttl"),
            ({"ttl": -(10**400)}, "ttl"),
            ({"stale_if_error": "x"}, "stale_if_error"),
            ({"ignore": ("nope",)}, "nope"),
            ({"normalize": {"nope": "text"}}, "nope"),
            ({"normalize": "words"}, "normalize"),
            ({"variants": 0}, "variants"),
            ({"cache_if": 3}, "cache_if"),
            ({"cache": "memory://"}, "cache"),
            ({"tags": "one"}, "tags"),
            ({"type": ""}, "type"),
            ({"type": "\ud800"}, "type"),
        ],
    )
    def test_wrong_use_fails_when_decorating(self, options: dict[str, Any], word: str) -> None:
        """A mistake shows when the decorator is applied, not when the function is called."""
        with pytest.raises(ConfigError, match=word):

            @content_cached(**options)
            def f(x: int) -> int:
                return x


class TestHandles:
    def test_cache_info_and_clear(self, cache: Cache) -> None:
        """functools' two methods count and clear this function only."""

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return x

        @content_cached(cache=cache)
        def g(x: int) -> int:
            return x

        f(1), f(1), f(2), g(1)
        assert tuple(f.cache_info()) == (1, 2, None, 2)
        f.cache_clear()
        assert tuple(f.cache_info()) == (0, 0, None, 0)
        assert g.cache_info().currsize == 1

    def test_refresh_replaces(self, cache: Cache) -> None:
        """refresh computes now; later calls get the new result."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            return len(calls)

        assert [f(0), f.refresh(0), f(0)] == [1, 2, 2]

    def test_bypass_touches_nothing(self, cache: Cache) -> None:
        """bypass computes, and stores nothing."""

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return x

        assert f.bypass(1) == 1
        assert f.peek(1) is None

    def test_peek_shows_the_entry(self, cache: Cache, clock: FakeClock) -> None:
        """peek tells value, age and type, also of an expired entry, and never computes."""

        @content_cached("kind", cache=cache, ttl=10, tags=["t"])
        def f(x: int) -> list[int]:
            return [x]

        assert f.peek(1) is None
        f(1)
        clock.advance(12)
        entry = f.peek(1)
        assert entry is not None
        assert (entry.value, entry.type, entry.tags, entry.age, entry.ttl, entry.fresh) == (
            [1],
            "kind",
            ("t",),
            12.0,
            10.0,
            False,
        )
        assert entry.key == f.cache_key(1)

    def test_invalidate(self, cache: Cache) -> None:
        """invalidate removes the entry of one call, and says whether there was one."""

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return x

        f(1), f(2)
        assert f.invalidate(1) is True
        assert f.invalidate(1) is False
        assert f.peek(2) is not None

    def test_key_is_text_that_the_cache_takes(self, cache: Cache) -> None:
        """What cache_key returns can be looked up and deleted, also after a trip through a log."""

        @content_cached(cache=cache)
        def f(x: int) -> list[int]:
            return [x]

        f(1)
        key = str(f.cache_key(1))
        assert cache.get(key) == [1]
        assert cache.delete(key)
        assert cache.get(key, "gone") == "gone"

    def test_it_passes_for_the_function(self) -> None:
        """Name, docstring, signature, annotations and kind are those of the function."""

        @content_cached
        def f(x: int, *, y: str = "a") -> str:
            """Say something."""
            return y * x

        assert (f.__name__, f.__doc__, f.__module__) == ("f", "Say something.", __name__)
        assert str(inspect.signature(f)) == "(x: 'int', *, y: 'str' = 'a') -> 'str'"
        assert inspect.isfunction(f)
        assert f.__wrapped__(2) == "aa"

    def test_module_level_function_pickles(self) -> None:
        """A decorated function goes to other processes by name, and copies as itself."""
        assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
        assert copy.deepcopy(at_module_level) is at_module_level


@content_cached
def at_module_level(x: int) -> int:
    return x


class Upstream:
    """Something that fails when it is told to."""

    broken = False

    def ask(self, x: int) -> int:
        if self.broken:
            raise OSError("down")
        return x


class Slotted:
    __slots__ = ("factor", "seen")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, factor: int) -> None:
        self.factor = factor


class TestMethods:
    def test_self_counts_by_content(self, cache: Cache) -> None:
        """Equal instances share entries, others don't; slots and missing hashes don't matter."""
        calls: list[int] = []

        class Scorer(Slotted):
            __slots__ = ()

            @content_cached(cache=cache)
            def score(self, text: str) -> int:
                calls.append(self.factor)
                return len(text) * self.factor

        assert [Scorer(2).score("ab"), Scorer(2).score("ab"), Scorer(3).score("ab")] == [4, 4, 6]
        assert calls == [2, 3]

    def test_handles_know_the_instance(self, cache: Cache) -> None:
        """Reached through an instance, cache_key and its like take the method's own arguments."""

        class Scorer:
            def __init__(self, factor: int) -> None:
                self.factor = factor

            @content_cached(cache=cache)
            def score(self, text: str) -> int:
                return len(text) * self.factor

        two, three = Scorer(2), Scorer(3)
        two.score("ab")
        assert two.score.peek("ab") is not None
        assert three.score.peek("ab") is None
        assert two.score.cache_key("ab") == Scorer.score.cache_key(two, "ab")
        assert two.score.refresh("ab") == 4
        assert two.score.invalidate("ab")

    def test_docstring_is_the_methods_own(self, cache: Cache) -> None:
        """Tools that describe a method by its docstring get that of the method."""

        class Scorer:
            @content_cached(cache=cache)
            def score(self, text: str) -> int:
                """Score a text."""
                return len(text)

        assert inspect.getdoc(Scorer().score) == "Score a text."

    def test_state_holds_for_a_method_put_into_a_class_later(self, cache: Cache) -> None:
        """Whoever gives state= says that there is an instance."""

        class Scorer:
            def __init__(self) -> None:
                self.name = "s"
                self.lock = threading.Lock()

            def score(self, text: str) -> int:
                return len(text)

        Scorer.score = content_cached(cache=cache, state=("name",))(Scorer.score)  # type: ignore[method-assign]
        assert [Scorer().score("ab"), Scorer().score("ab")] == [2, 2]

    def test_state_that_cannot_be_keyed_names_the_attribute(self, cache: Cache) -> None:
        """A client in an attribute is named, with the three ways out."""

        class Scorer:
            def __init__(self) -> None:
                self.name = "s"
                self.client = threading.Lock()

            @content_cached(cache=cache)
            def score(self, text: str) -> int:
                return 1

            @content_cached(cache=cache, state=("name",))
            def by_name(self, text: str) -> int:
                return 1

            @content_cached(cache=cache, state=lambda self: self.name)
            def by_function(self, text: str) -> int:
                return 1

            @content_cached(cache=cache, state=None)
            def by_nothing(self, text: str) -> int:
                return 1

        scorer = Scorer()
        with pytest.raises(KeyingError, match=r"self\.client.*state="):
            scorer.score("a")
        assert [scorer.by_name("a"), scorer.by_function("a"), scorer.by_nothing("a")] == [1, 1, 1]

    def test_subclasses_do_not_share(self, cache: Cache) -> None:
        """The class of self is part of the call."""

        class Base:
            @content_cached(cache=cache)
            def name(self) -> str:
                return type(self).__name__

        class Child(Base):
            pass

        assert [Base().name(), Child().name(), Base().name()] == ["Base", "Child", "Base"]

    @pytest.mark.parametrize("inside", [True, False])
    def test_classmethods_and_staticmethods(self, cache: Cache, inside: bool) -> None:
        """The decorator stands above or below classmethod and staticmethod."""
        calls: list[str] = []

        def both(binding: Any) -> Any:
            cached = content_cached(cache=cache)
            return lambda f: binding(cached(f)) if inside else cached(binding(f))

        class Box:
            @both(classmethod)
            def make(cls, x: int) -> tuple[str, int]:
                calls.append("c")
                return cls.__name__, x

            @both(staticmethod)
            def double(x: int) -> int:
                calls.append("s")
                return 2 * x

        class Crate(Box):
            pass

        for _ in range(2):
            assert Box.make(1) == Box().make(1) == ("Box", 1)
            assert Crate.make(1) == ("Crate", 1)
            assert Box.double(4) == Box().double(4) == 8
        assert calls == ["c", "c", "s"]


class TestKinds:
    async def test_async_functions(self, cache: Cache) -> None:
        """A coroutine function stays one, and runs once."""
        calls: list[int] = []

        @content_cached(cache=cache)
        async def f(x: int) -> int:
            calls.append(x)
            await asyncio.sleep(0)
            return x

        assert inspect.iscoroutinefunction(f)
        assert [await f(1), await f(1), await f.refresh(1), await f.bypass(1)] == [1] * 4
        assert len(calls) == 3

    async def test_async_hit_hops_no_thread(self, cache: Cache) -> None:
        """A hit is answered without giving up control to the loop."""

        @content_cached(cache=cache)
        async def f(x: int) -> int:
            return x

        await f(1)
        coroutine = f(1)
        with pytest.raises(StopIteration) as stop:
            coroutine.send(None)
        assert stop.value.value == 1

    @pytest.mark.parametrize("remote", [False, True])
    def test_without_a_loop_of_asyncio(self, tmp_path: Any, remote: bool) -> None:
        """Whatever else runs coroutines has its hits, also after many misses in a row."""
        runs: list[int] = []
        with Cache(f"sqlite:///{tmp_path}/c.db?memory=0", metrics=memoleo.Metrics()) as cache:
            cache.calls.store.remote = remote

            @content_cached(cache=cache)
            async def f(x: int) -> int:
                runs.append(x)
                return x

            def run(x: int) -> int:
                with pytest.raises(StopIteration) as stop:
                    f(x).send(None)
                return int(stop.value.value)

            assert [run(x) for x in range(30)] == [*range(30)]
            assert [run(0) for _ in range(5)] == [0] * 5
        assert runs == [*range(30)]

    def test_generators(self, cache: Cache) -> None:
        """A generator is recorded while it is consumed, and replayed with its return value."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def count(n: int) -> Iterator[list[int]]:
            calls.append(n)
            for i in range(n):
                yield [i]
            return "end"

        def consume() -> tuple[list[list[int]], Any]:
            items, source = [], count(3)
            while True:
                try:
                    items.append(next(source))
                except StopIteration as stop:
                    return items, stop.value

        assert inspect.isgeneratorfunction(count)
        first = consume()
        first[0][0].append(99)
        assert consume() == ([[0], [1], [2]], "end")
        assert calls == [3]

    async def test_sending_to_a_replay(self, cache: Cache) -> None:
        """What is sent to a replayed generator, or raised in it, has the effect it ever has."""

        def talk(name: str) -> Iterator[Any]:
            try:
                heard = yield "hello"
                yield f"{heard}, {name}?"
            except ValueError:
                yield "oh"
            return "bye"

        async def atalk(name: str) -> AsyncIterator[Any]:
            try:
                heard = yield "hello"
                yield f"{heard}, {name}?"
            except ValueError:
                yield "oh"

        cached = content_cached(cache=cache)(talk)
        acached = content_cached(cache=cache)(atalk)
        for _ in range(2):
            assert list(cached("a")) == ["hello", "None, a?"]
            talker: Any = cached("a")
            assert (next(talker), talker.send("why")) == ("hello", "why, a?")
            with pytest.raises(StopIteration, match="bye"):
                next(talker)
            talker = cached("a")
            assert (next(talker), talker.throw(ValueError())) == ("hello", "oh")
            assert list(talker) == []
            assert [item async for item in acached("a")] == ["hello", "None, a?"]
            atalker: Any = acached("a")
            assert await atalker.asend(None) == "hello"
            assert await atalker.asend("why") == "why, a?"
            assert [item async for item in atalker] == []
            atalker = acached("a")
            assert await atalker.asend(None) == "hello"
            assert await atalker.athrow(ValueError()) == "oh"
            await atalker.aclose()

    def test_generator_runs_only_when_consumed(self, cache: Cache) -> None:
        """Calling a generator function runs nothing, as ever."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def f() -> Iterator[int]:
            calls.append(1)
            yield 1

        f()
        assert calls == []

    @pytest.mark.parametrize("end", ["close", "raise", "drop", "throw", "send"])
    def test_unfinished_generator_stores_nothing(self, cache: Cache, end: str) -> None:
        """Who stops early, fails, or talks back, leaves no entry."""

        @content_cached(cache=cache)
        def f(fail: bool) -> Any:
            got = yield 1
            if fail:
                raise OSError("cut")
            yield got
            yield 3

        stream = f(end == "raise")
        assert next(stream) == 1
        if end == "close":
            stream.close()
        elif end == "raise":
            with pytest.raises(OSError, match="cut"):
                next(stream)
        elif end == "throw":
            with pytest.raises(KeyError):
                stream.throw(KeyError("x"))
        elif end == "send":
            assert [stream.send("hello"), *stream] == ["hello", 3]
        del stream
        assert f.peek(end == "raise") is None

    async def test_cache_if_and_tags_get_what_a_generator_yielded(self, cache: Cache) -> None:
        """Both are told a list, and what they do to it reaches neither caller nor cache."""
        options: Any = {
            "cache_if": lambda items: items == [[1], [2]],
            "tags": lambda bound, items: [f"second:{items[1].pop()}"],
        }

        @content_cached(cache=cache, **options)
        def f(n: int) -> Iterator[list[int]]:
            yield [n]
            yield [2]

        @content_cached(cache=cache, **options)
        async def g(n: int) -> AsyncIterator[list[int]]:
            yield [n]
            yield [2]

        assert list(f(1)) == list(f(1)) == [item async for item in g(1)] == [[1], [2]]
        assert list(f(3)) == [item async for item in g(3)] == [[3], [2]]
        assert f.peek(3) is g.peek(3) is None
        assert cache.clear(tag="second:2") == 2

    async def test_async_generators(self, cache: Cache) -> None:
        """An asynchronous generator is recorded and replayed; an early stop stores nothing."""
        calls: list[int] = []

        @content_cached(cache=cache)
        async def f(n: int) -> AsyncIterator[int]:
            calls.append(n)
            for i in range(n):
                await asyncio.sleep(0)
                yield i

        assert inspect.isasyncgenfunction(f)
        stream = f(3)
        assert await stream.__anext__() == 0
        await stream.aclose()
        assert f.peek(3) is None
        assert [i async for i in f(3)] == [i async for i in f(3)] == [0, 1, 2]
        assert calls == [3, 3]

    def test_callable_objects_and_partials(self, cache: Cache) -> None:
        """Any callable can be decorated; what is bound in a partial is part of it."""

        class Adder:
            def __init__(self, n: int) -> None:
                self.n = n

            def __call__(self, x: int) -> int:
                return x + self.n

        two, three = (content_cached(cache=cache)(Adder(n)) for n in (2, 3))
        assert [two(1), three(1), two(1)] == [3, 4, 3]
        power = content_cached(cache=cache)(functools.partial(pow, 2))
        assert [power(3), power(3), power(4)] == [8, 8, 16]


class TestSwitches:
    def test_bypass_refresh_observe(self, cache: Cache) -> None:
        """The three switches hold for a block, nest, and end with it."""
        calls: list[int] = []

        @content_cached("t", cache=cache)
        def f() -> int:
            calls.append(1)
            return len(calls)

        with memoleo.bypass():
            assert [f(), f()] == [1, 2]
            with memoleo.refresh():
                assert [f(), f()] == [3, 4]
            assert f() == 5
        assert f() == 4
        with memoleo.observe():
            assert f() == 6
        assert f() == 4
        assert cache.metrics.get_stats()["cache"]["t"]["would_hit"] == 1

    def test_observe_counts_what_would_be_stored(self, cache: Cache) -> None:
        """A call that failed, or whose result is refused, would not have been there next time."""
        found = [LookupError(), 503, 200, 200]

        @content_cached(cache=cache, cache_if=lambda status: status < 500)
        def ask() -> int:
            answer = found.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        with memoleo.observe():
            with pytest.raises(LookupError):
                ask()
            assert [ask(), ask(), ask()] == [503, 200, 200]
        watched = cache.metrics.get_stats()["cache"]["default"]
        assert (watched["would_hit"], watched["would_miss"]) == (1, 3)

    def test_observe_stores_nothing(self, cache: Cache) -> None:
        """Observing counts the second equal call as a would-be hit, and leaves no entry."""

        @content_cached("t", cache=cache)
        def f(x: int) -> int:
            return x

        with memoleo.observe():
            f(1), f(1), f(2)
        counts = cache.metrics.get_stats()["cache"]["t"]
        assert (counts["would_hit"], counts["would_miss"], counts["hits"]) == (1, 2, 0)
        assert cache.get_stats()["total_entries"] == 0

    def test_switches_belong_to_their_context(self, cache: Cache) -> None:
        """Another thread doesn't notice that this one bypasses."""

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return x

        f(1)
        with memoleo.bypass(), ThreadPoolExecutor(1) as pool:
            pool.submit(f, 1).result(10)
        assert f.cache_info().hits == 1

    async def test_tasks_do_not_affect_one_another(self, cache: Cache) -> None:
        """A task that bypasses leaves its siblings alone."""
        inside, done = asyncio.Event(), asyncio.Event()

        @content_cached(cache=cache)
        async def f(x: int) -> int:
            return x

        async def bypassing() -> None:
            with memoleo.bypass():
                inside.set()
                await done.wait()

        await f(1)
        task = asyncio.create_task(bypassing())
        await inside.wait()
        await f(1)
        done.set()
        await task
        assert f.cache_info().hits == 1

    def test_switched_off_by_environment(
        self, monkeypatch: pytest.MonkeyPatch, cache: Cache
    ) -> None:
        """MEMOLEO_ENABLED=0 turns everything into the plain call."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(1)
        monkeypatch.setenv("MEMOLEO_ENABLED", "0")
        memoleo.configure("memory://")
        try:
            f(1)
            assert len(calls) == 2
            assert cache.get_stats()["enabled"] is False
        finally:
            monkeypatch.undo()
            memoleo.configure("memory://")
        f(1)
        assert len(calls) == 2


class TestDefaultCache:
    def test_default_is_looked_up_at_call_time(self, clock: FakeClock) -> None:
        """configure() moves functions that were decorated before."""
        calls: list[int] = []

        @content_cached
        def f(x: int) -> int:
            calls.append(x)
            return x

        first = memoleo.configure("memory://")
        f(1), f(1)
        second = memoleo.configure("memory://")
        f(1), f(1)
        assert memoleo.get_cache() is second
        assert len(calls) == 2
        assert first.get_stats()["total_entries"] == second.get_stats()["total_entries"] == 1

    def test_bare_decorator_needs_no_parentheses(self) -> None:
        """@content_cached and @content_cached() are the same."""
        memoleo.configure("memory://")

        def f(x: int) -> int:
            return x

        assert content_cached(f).cache_key(1) == content_cached()(f).cache_key(1)


def test_an_error_that_is_kept_keeps_nothing_for_ever(cache: Cache) -> None:
    """An instance that holds on to its own failure is collected once nobody uses it."""

    class Scorer:
        last: Exception

        @content_cached(cache=cache, state=None)
        def score(self, text: str) -> float:
            raise ValueError(text)

    scorer = Scorer()
    alive = weakref.ref(scorer)
    try:
        scorer.score("why?")
    except ValueError as error:
        scorer.last = error
    del scorer
    gc.collect()
    assert alive() is None
