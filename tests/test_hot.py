"""What is compiled for a function behaves as the function that it stands for."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import sys
import traceback
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import memoleo
from memoleo import Cache, Metrics, content_cached
from memoleo._switch import turn
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.testing import FakeClock


@pytest.fixture
def cache() -> Cache:
    return Cache("memory://", metrics=Metrics())


def test_parameters_may_have_any_name(cache: Cache) -> None:
    """Names of builtins, and of what the compiled function uses itself, don't get in the way."""

    @content_cached(cache=cache)
    def take(
        type: Any, str: Any, len: Any = 3, *Exception: Any, key: Any = 5, **values: Any
    ) -> Any:
        return [type, str, len, [*Exception], key, values]

    for _ in range(3):
        assert take(1, 2) == [1, 2, 3, [], 5, {}]
        assert take(1, str=2, len=4, mark=6, self=7) == [1, 2, 4, [], 5, {"mark": 6, "self": 7}]
        assert take("a", "b", "c", "d", key="e") == ["a", "b", "c", ["d"], "e", {}]
    assert take.cache_info().misses == 3


def test_positional_only_parameters_stay_so(cache: Cache) -> None:
    """A keyword of the same name is another argument."""

    @content_cached(cache=cache)
    def take(x: Any, /, **rest: Any) -> Any:
        return [x, rest]

    for _ in range(2):
        assert take(1, x=2) == [1, {"x": 2}]
        assert take(1) == [1, {}]
        with pytest.raises(TypeError, match="positional"):
            take(x=1)


def test_wrong_arguments_are_refused_in_the_functions_name(cache: Cache) -> None:
    """Before and after it is compiled, a call that doesn't fit is a `TypeError` about it."""

    @content_cached(cache=cache)
    def take(x: Any) -> Any:
        return [x]

    with pytest.raises(TypeError, match=r"take\(\) missing 1 required positional argument: 'x'"):
        take()
    assert take(1) == take(x=1) == [1]
    with pytest.raises(TypeError, match=r"take\(\) missing 1 required positional argument: 'x'"):
        take()
    with pytest.raises(TypeError, match=r"take\(\) got an unexpected keyword argument 'y'"):
        take(y=1)


def test_a_method_that_was_taken_before_the_first_call_is_compiled_too(cache: Cache) -> None:
    """A bound method kept from the start runs the same code as one taken later."""

    class Scorer:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @content_cached(cache=cache)
        def score(self, x: int) -> int:
            return self.factor * x

    two, three = Scorer(2), Scorer(3)
    early = two.score
    assert [early(5), two.score(5), early(5), three.score(5), early(x=5)] == [10, 10, 10, 15, 10]
    assert early.func is two.score.func is not None
    assert Scorer.score.cache_info()[:2] == (3, 2)
    assert early.cache_key(5) == two.score.cache_key(x=5) != three.score.cache_key(5)
    assert partial(early, 5)() == 10
    assert partial(early, 5).func.cache_key(5) == early.cache_key(5)


def test_subclasses_that_take_turns_keep_their_own_entries(cache: Cache) -> None:
    """What is compiled for one class of instances serves no other one."""

    class Base:
        @content_cached(cache=cache)
        def name(self, x: int) -> str:
            return type(self).__name__

    class One(Base): ...

    class Two(Base): ...

    for _ in range(3):
        assert [cls().name(1) for cls in (One, Two, Base)] == ["One", "Two", "Base"]
    assert Base.name.cache_info()[:2] == (6, 3)


def test_class_methods_know_their_class(cache: Cache) -> None:
    """What is compiled for a class method serves no other class."""

    class Base:
        @content_cached(cache=cache)
        @classmethod
        def name(cls, x: int) -> str:
            return cls.__name__

    class One(Base): ...

    for _ in range(3):
        assert (Base.name(1), One.name(1), One().name(x=1)) == ("Base", "One", "One")


def test_another_default_cache_is_noticed(tmp_path: Any) -> None:
    """A compiled function asks the default cache of the moment, whatever was before."""

    @content_cached
    def take(x: int) -> list[int]:
        calls.append(x)
        return [x]

    calls: list[int] = []
    first, second = (Cache("memory://", metrics=Metrics()) for _ in range(2))
    try:
        for cache in (first, second, first, second):
            memoleo.configure(cache)
            assert take(1) == take(x=1) == [1]
    finally:
        memoleo.configure()
    assert calls == [1, 1]
    assert len(list(first.entries())) == len(list(second.entries())) == 1


def test_switches_work_on_a_compiled_function(cache: Cache) -> None:
    """Switched off, bypassed and refreshed calls run the function; the next plain one is a hit."""

    @content_cached(cache=cache)
    def take(x: int) -> int:
        calls.append(x)
        return len(calls)

    calls: list[int] = []
    assert (take(1), take(1)) == (1, 1)
    with memoleo.bypass():
        assert take(1) == 2
    turn(False)
    try:
        assert take(1) == 3
    finally:
        turn(None)
    with memoleo.refresh():
        assert take(1) == 4
    assert take(1) == 4


def test_settings_that_change_hold_at_once(cache: Cache, tmp_path: Any) -> None:
    """A TTL that the settings give to a type holds for functions that were called before."""
    fast = tmp_path / "memoleo.toml"
    fast.write_text("[types.fast]\nttl = 0\n", encoding="utf-8")

    @content_cached(type="fast", cache=cache)
    def take(x: int) -> list[int]:
        calls.append(x)
        return [x]

    calls: list[int] = []
    take(1), take(1)
    try:
        memoleo.configure(cache, config=fast)
        take(1), take(1)
    finally:
        memoleo.configure()
    assert calls == [1, 1, 1]


def test_recursion_reaches_half_as_deep_as_without_a_cache(cache: Cache) -> None:
    """A cached function that calls itself takes two frames a level."""

    @content_cached(cache=cache)
    def total(n: int) -> int:
        return 0 if n == 0 else n + total(n - 1)

    total(0)
    depth = (sys.getrecursionlimit() - len(inspect.stack(0)) - 60) // 2
    if sys.version_info < (3, 12):
        depth //= 2  # calls from C count there too
    assert total(depth) == depth * (depth + 1) // 2


def test_errors_come_with_the_traceback_of_the_function(cache: Cache) -> None:
    """The innermost line is the user's, and nothing is chained to the error."""

    @content_cached(cache=cache)
    def fail(x: int) -> None:
        raise LookupError(x)

    for _ in range(3):
        with pytest.raises(LookupError) as caught:
            fail(1)
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"
        assert caught.value.__context__ is caught.value.__cause__ is None


def test_errors_leave_no_circles(cache: Cache) -> None:
    """What a failing call held is gone with its exception, without the garbage collector."""

    class Held:
        pass

    @content_cached(cache=cache, ignore=("held",))
    def fail(x: int, held: Any) -> None:
        raise LookupError(x)

    def call() -> weakref.ref[Held]:
        held = Held()
        with suppress(LookupError):
            fail(1, held)
        return weakref.ref(held)

    call()
    gc.collect()
    gc.disable()
    try:
        assert call()() is None
    finally:
        gc.enable()


def test_coroutine_functions_stay_ones(cache: Cache) -> None:
    """A compiled coroutine function is one for `inspect`, and its hits turn no loop."""

    class Client:
        @content_cached(cache=cache, state=None)
        async def ask(self, x: int) -> list[int]:
            await asyncio.sleep(0)
            return [x]

    client = Client()
    assert inspect.iscoroutinefunction(client.ask)
    assert asyncio.run(client.ask(1)) == [1]
    assert inspect.iscoroutinefunction(client.ask)
    coroutine = client.ask(x=1)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == [1]


class AtTop:
    @content_cached
    def method(self, x: int) -> int:
        return x


def test_bound_methods_are_what_they_were(cache: Cache) -> None:
    """They pickle, compare, and pass for methods; as an attribute of a class they stay bound."""
    bound = AtTop().method
    assert inspect.ismethod(bound)
    assert bound == bound.__self__.method != AtTop().method
    assert bound.__func__ is AtTop.method
    assert pickle.loads(pickle.dumps(bound)).__func__ is AtTop.method

    class Other:
        borrowed = bound

    assert Other().borrowed.__self__ is bound.__self__


def test_first_calls_of_many_threads(cache: Cache) -> None:
    """Threads that make the first call at once all get the right answer."""
    import threading

    for _ in range(20):

        @content_cached(cache=cache, version=object.__name__)
        def take(x: int, y: int = 2, *, z: int = 3) -> list[int]:
            return [x, y, z]

        start, wrong = threading.Barrier(8), []

        def work(take: Any = take, start: Any = start, wrong: Any = wrong) -> None:
            start.wait()
            for number in range(20):
                if take(number % 3, z=number) != [number % 3, 2, number]:
                    wrong.append(number)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class Counting:
    """A store that counts the lookups in another."""

    remote = False

    def __init__(self, store: Any) -> None:
        self._store = store
        self.gets = 0

    def get(self, key: bytes) -> Any:
        self.gets += 1
        return self._store.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_in_a_long_row_of_misses_each_looks_once(tmp_path: Any) -> None:
    """A batch of new inputs costs one lookup each; what others stored meanwhile is still a hit."""
    store = Counting(SQLiteBackend(tmp_path / "cache.db"))
    with (
        Cache(backend=store, metrics=Metrics()) as cache,  # type: ignore[arg-type]
        Cache(f"sqlite:///{tmp_path}/cache.db?memory=0", metrics=Metrics()) as other,
    ):

        def take(x: int) -> list[int]:
            calls.append(x)
            return [x]

        calls: list[int] = []
        here = content_cached(cache=cache, version=1)(take)
        there = content_cached(cache=other, version=1)(take)
        for number in range(40):
            here(number)
        before = store.gets
        for number in range(40, 60):
            here(number)
        assert store.gets - before == 20
        there(100)
        before = store.gets
        assert (here(100), here(100), here(0)) == ([100], [100], [0])
        assert (len(calls), store.gets - before) == (61, 3)
        assert here.cache_info()[:2] == (3, 60)


def test_in_a_long_row_of_misses_stale_entries_are_found() -> None:
    """An entry past its TTL excuses a failure, however many misses came before it."""
    clock = FakeClock()
    cache = Cache("memory://", clock=clock, metrics=Metrics())

    @content_cached(cache=cache, ttl=10, stale_if_error=100, ignore=("fails",))
    def take(x: int, fails: bool = False) -> list[int]:
        if fails:
            raise OSError
        return [x]

    for number in range(40):
        take(number)
    clock.advance(20)
    assert [take(number, fails=True) for number in range(40)] == [[n] for n in range(40)]
