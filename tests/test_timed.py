"""`timed` and `timer`: what is recorded, and that a decorated function stays what it was."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import threading

import pytest

from memoleo._decorators.timed import timed, timer
from memoleo._functions.callable import WrappedCallable, takes_call
from memoleo.errors import ConfigError
from memoleo.metrics import Metrics, get_metrics


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics(clock):
    return Metrics(clock)


class Cached(WrappedCallable):
    """A wrapper with methods about its calls, as a cached function is."""

    def __init__(self, wrapped):
        super().__init__(wrapped, lambda *args, **kwargs: wrapped(*args, **kwargs))

    @takes_call
    def cache_key(self, *args, **kwargs):
        return repr((args, kwargs))

    def cache_info(self):
        return "info"


@timed
def at_module_level(x):
    return x


def outcome(metrics, name="work"):
    stats = metrics.get_stats()[name]
    return stats["count"], stats["errors"], stats["cancelled"]


class TestRecording:
    def test_success(self, metrics, clock):
        """A call's latency is recorded in milliseconds under the given name."""

        @timed("work", metrics=metrics)
        def work(seconds):
            clock.time += seconds
            return seconds

        assert [work(0.5), work(seconds=1.5)] == [0.5, 1.5]
        stats = metrics.get_stats()["work"]
        assert (stats["count"], stats["avg_ms"], stats["max_ms"]) == (2, 1000.0, 1500.0)

    def test_failure(self, metrics, clock):
        """A call that raises counts as an error with its latency apart; the error is unchanged."""
        error = ValueError("no")

        @timed("work", metrics=metrics)
        def work():
            clock.time += 2
            raise error

        with pytest.raises(ValueError, match="no") as caught:
            work()
        assert caught.value is error
        stats = metrics.get_stats()["work"]
        assert (stats["count"], stats["errors"], stats["error_avg_ms"]) == (0, 1, 2000.0)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
    def test_stopped_from_outside(self, metrics, error):
        """What stops a call from outside is no error of the operation: it counts as cancelled."""

        @timed("work", metrics=metrics)
        def work():
            raise error

        with pytest.raises(error):
            work()
        assert outcome(metrics) == (0, 0, 1)

    def test_async(self, metrics, clock):
        """A coroutine's latency lasts until it is done; a cancelled task counts as cancelled."""

        @timed("work", metrics=metrics)
        async def work(event, error=None):
            await event.wait()
            clock.time += 1
            if error:
                raise error

        async def main():
            event = asyncio.Event()
            tasks = [asyncio.ensure_future(work(event, error)) for error in (None, OSError())]
            cancelled = asyncio.ensure_future(work(event))
            await asyncio.sleep(0)
            cancelled.cancel()
            event.set()
            return await asyncio.gather(*tasks, cancelled, return_exceptions=True)

        results = asyncio.run(main())
        assert [type(each) for each in results] == [type(None), OSError, asyncio.CancelledError]
        assert outcome(metrics) == (1, 1, 1)
        assert metrics.get_stats()["work"]["max_ms"] == 1000.0

    def test_generator(self, metrics, clock):
        """A generator's latency lasts until it is exhausted; send, throw and return go through."""

        @timed("work", metrics=metrics)
        def work():
            clock.time += 1
            sent = yield "first"
            try:
                yield sent
            except KeyError:
                clock.time += 1
                yield "caught"
            return "end"

        items = work()
        assert next(items) == "first"
        assert "work" not in metrics.get_stats()
        assert items.send("sent") == "sent"
        assert items.throw(KeyError()) == "caught"
        with pytest.raises(StopIteration) as end:
            next(items)
        assert end.value.value == "end"
        assert outcome(metrics) == (1, 0, 0)
        assert metrics.get_stats()["work"]["max_ms"] == 2000.0

    def test_generator_ends_early(self, metrics):
        """A generator that raises counts as an error, one that is abandoned as cancelled."""
        closed = []

        @timed("work", metrics=metrics)
        def work(error=None):
            try:
                yield 1
                if error:
                    raise error
                yield 2
            finally:
                closed.append(True)

        with pytest.raises(OSError, match="gone"):
            list(work(OSError("gone")))
        items = work()
        next(items)
        items.close()
        assert outcome(metrics) == (0, 1, 1)
        assert len(closed) == 2

    def test_async_generator(self, metrics, clock):
        """An async generator is timed until its end; asend, athrow and aclose go through."""
        closed = []

        @timed("work", metrics=metrics)
        async def work(error=None):
            try:
                sent = yield "first"
                clock.time += 1
                if error:
                    raise error
                try:
                    yield sent
                except KeyError:
                    yield "caught"
            finally:
                await asyncio.sleep(0)
                closed.append(True)

        async def main():
            items = work()
            assert await items.__anext__() == "first"
            assert await items.asend("sent") == "sent"
            assert await items.athrow(KeyError()) == "caught"
            with pytest.raises(StopAsyncIteration):
                await items.__anext__()
            assert [item async for item in work()] == ["first", None]
            with pytest.raises(OSError, match="gone"):
                [item async for item in work(OSError("gone"))]
            abandoned = work()
            await abandoned.__anext__()
            await abandoned.aclose()

        asyncio.run(main())
        assert outcome(metrics) == (2, 1, 1)
        assert len(closed) == 4

    def test_default_metrics(self):
        """Without `metrics` the default ones are used, under the qualified name."""
        get_metrics().reset()
        assert at_module_level(3) == 3
        assert get_metrics().get_stats()["at_module_level"]["count"] == 1

    def test_default_name(self, metrics):
        """The default name says the class and the function, without the module and "<locals>"."""

        class Scorer:
            @timed(metrics=metrics)
            def score(self):
                return 1

        Scorer().score()
        name = "TestRecording.test_default_name.Scorer.score"
        assert metrics.get_stats()[name]["count"] == 1


class TestFace:
    def test_name_doc_signature(self):
        """Name, docstring, signature and annotations are those of the function."""

        def work(a: int, *, b: str = "x") -> list[str]:
            """Do it."""
            return [b] * a

        wrapped = timed("work")(work)
        assert wrapped.__name__ == "work"
        assert wrapped.__doc__ == "Do it."
        assert inspect.signature(wrapped) == inspect.signature(work)
        assert wrapped.__wrapped__ is wrapped.__memoleo_wrapped__ is work

    def test_kinds(self):
        """`inspect` takes a wrapper for the kind of function that it wraps."""

        async def coroutine():
            pass

        def generator():
            yield

        async def async_generator():
            yield

        assert inspect.iscoroutinefunction(timed(coroutine))
        assert inspect.isgeneratorfunction(timed(generator))
        assert inspect.isasyncgenfunction(timed(async_generator))
        assert inspect.isfunction(timed(len and (lambda: 1)))
        assert inspect.iscoroutinefunction(timed(functools.partial(coroutine)))

    def test_callable_object(self, metrics):
        """An object with an async `__call__` is timed until it is awaited."""

        class Worker:
            async def __call__(self):
                return 7

        worker = timed("work", metrics=metrics)(Worker())
        assert asyncio.run(worker()) == 7
        assert outcome(metrics) == (1, 0, 0)

    def test_methods(self, metrics):
        """Methods, class methods and static methods work, in either order of decorators."""
        mark = timed("work", metrics=metrics)

        class Slotted:
            __slots__ = ("base",)
            __hash__ = None

            def __init__(self):
                self.base = 10

            @mark
            def method(self, x):
                return self.base + x

            @mark
            @classmethod
            def outside_class(cls, x):
                return cls, x

            @classmethod
            @mark
            def inside_class(cls, x):
                return cls, x

            @mark
            @staticmethod
            def outside_static(x):
                return x

            @staticmethod
            @mark
            def inside_static(x):
                return x

        one = Slotted()
        assert one.method(1) == Slotted.method(one, 1) == 11
        assert one.outside_class(2) == Slotted.inside_class(2) == (Slotted, 2)
        assert one.outside_static(3) == Slotted.inside_static(3) == 3
        assert outcome(metrics) == (6, 0, 0)

    def test_pickle(self):
        """A decorated function of a module pickles by name."""
        assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level

    def test_reserved_name(self):
        """The name "cache" is refused when decorating, given or derived."""
        with pytest.raises(ConfigError, match="reserved"):
            timed("cache")
        with pytest.raises(ConfigError, match="reserved"):
            timer("cache")

        def cache():
            pass

        cache.__qualname__ = "cache"
        with pytest.raises(ConfigError, match="reserved"):
            timed(cache)

    @pytest.mark.parametrize("thing", [int, 3, property(lambda self: 1)])
    def test_not_a_function(self, thing):
        """What can't be decorated is refused when decorating."""
        with pytest.raises(ConfigError, match="@timed decorates functions"):
            timed(thing)

    def test_bad_metrics(self):
        """A wrong `metrics` fails when decorating."""
        with pytest.raises(ConfigError, match="metrics="):
            timed("work", metrics={})


class TestAroundCachedFunctions:
    def test_methods_stay_reachable(self, metrics):
        """What a cached function offers is still there on the timed one."""
        work = timed("work", metrics=metrics)(Cached(lambda x: x + 1))
        assert work(1) == 2
        assert work.cache_info() == "info"
        assert work.cache_key(1, y=2) == "((1,), {'y': 2})"
        assert outcome(metrics) == (1, 0, 0)

    def test_bound(self, metrics):
        """On a method they are about the call on that instance."""

        class Scorer:
            @timed("work", metrics=metrics)
            @Cached
            def score(self, text):
                return self, text

            @timed("work", metrics=metrics)
            @classmethod
            @Cached
            def name(cls, text):
                return cls, text

        one = Scorer()
        assert one.score("x") == (one, "x")
        assert one.score.cache_key("x") == repr(((one, "x"), {}))
        assert one.score.cache_info() == "info"
        assert one.name("x") == Scorer.name("x") == (Scorer, "x")
        assert Scorer.name.cache_key("x") == repr(((Scorer, "x"), {}))
        assert outcome(metrics) == (3, 0, 0)

    def test_kind(self, metrics):
        """An async cached function is awaited, and still is a coroutine function."""

        @timed("work", metrics=metrics)
        @Cached
        async def work(x):
            await asyncio.sleep(0)
            return x

        assert inspect.iscoroutinefunction(work)
        assert asyncio.run(work(3)) == 3
        assert outcome(metrics) == (1, 0, 0)

    def test_lru_cache(self, metrics):
        """functools' cache keeps its methods too."""
        work = timed("work", metrics=metrics)(functools.lru_cache(lambda x: x))
        assert [work(1), work(1)] == [1, 1]
        assert work.cache_info().hits == 1


class TestTimer:
    def test_block(self, metrics, clock):
        """A block is timed, and a failing one counts as an error that goes on."""
        block = timer("work", metrics=metrics)
        with block:
            clock.time += 1
        with pytest.raises(OSError, match="gone"), block:
            raise OSError("gone")
        assert outcome(metrics) == (1, 1, 0)
        assert metrics.get_stats()["work"]["max_ms"] == 1000.0

    def test_inside_itself(self, metrics, clock):
        """One object nests: the inner block's time is its own."""
        block = timer("work", metrics=metrics)
        with block:
            clock.time += 1
            with block:
                clock.time += 2
        stats = metrics.get_stats()["work"]
        assert (stats["count"], stats["avg_ms"], stats["max_ms"]) == (2, 2500.0, 3000.0)

    def test_tasks(self, metrics, clock):
        """Tasks that share an object each get their own time, whoever ends first."""
        block = timer("work", metrics=metrics)

        async def hold(entered, leave):
            async with block:
                entered.set()
                await leave.wait()

        async def main():
            events = [asyncio.Event() for _ in range(4)]
            first = asyncio.ensure_future(hold(events[0], events[1]))
            await events[0].wait()
            clock.time += 1
            second = asyncio.ensure_future(hold(events[2], events[3]))
            await events[2].wait()
            clock.time += 10
            events[1].set()
            await first
            clock.time += 100
            events[3].set()
            await second

        asyncio.run(main())
        stats = metrics.get_stats()["work"]
        assert (stats["avg_ms"], stats["max_ms"]) == ((11_000 + 110_000) / 2, 110_000.0)

    def test_threads(self, metrics, clock):
        """Threads that share an object each get their own time."""
        block = timer("work", metrics=metrics)
        entered, leave = threading.Event(), threading.Event()

        def hold():
            with block:
                entered.set()
                leave.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait(30)
        clock.time += 1
        with block:
            clock.time += 2
        leave.set()
        thread.join()
        stats = metrics.get_stats()["work"]
        assert (stats["avg_ms"], stats["max_ms"]) == (2500.0, 3000.0)

    def test_left_elsewhere(self, metrics, clock):
        """A block that is left by another thread than entered is recorded all the same."""
        block = timer("work", metrics=metrics)
        block.__enter__()
        clock.time += 1
        thread = threading.Thread(target=block.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        assert metrics.get_stats()["work"]["max_ms"] == 1000.0
