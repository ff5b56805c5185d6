"""`verify`: hits are computed again in the background, and compared."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import memoleo
from memoleo import Cache, ConfigError, Metrics, Verified, content_cached
from memoleo._verifying.comparing import change_between
from memoleo.config import _settings
from memoleo.testing import FakeClock


@pytest.fixture(params=["memory", "sqlite", "tiered"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    urls = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/cache.db?memory=0",
        "tiered": f"sqlite:///{tmp_path}/cache.db",
    }
    with Cache(urls[request.param], clock=FakeClock(), metrics=Metrics()) as opened:
        yield opened


def settle() -> None:
    """Wait until nothing is being computed again."""
    for thread in threading.enumerate():
        if thread.name == "memoleo-verify":
            thread.join(30)


def found(cache: Cache, type: str = "default") -> Verified:
    settle()
    return cache.verified()[type]


class TestServing:
    def test_callers_get_the_hit_and_the_difference_is_told(self, cache: Cache) -> None:
        """A result that is another now is reported by type and place; the stored one is served."""
        scores = iter([0.5, 0.25, 0.125])

        @content_cached("emo", cache=cache)
        def score(text: str) -> dict[str, Any]:
            return {"joy": next(scores), "labels": ["a"]}

        first = score("x")
        with memoleo.verify(1.0, per_minute=100):
            assert score("x") == first
        report = found(cache, "emo")
        assert (report.checked, report.differed, report.failed, report.rate) == (1, 1, 0, 100.0)
        [finding] = report.findings
        assert finding.change is not None
        assert (finding.change.kind, finding.change.path) == ("value", "['joy']")
        assert finding.change.by == 0.5
        assert finding.key == score.cache_key("x")
        assert score("x") == first
        counts = cache.metrics.get_stats()["cache"]["emo"]
        assert (counts["verified"], counts["differed"], counts["hits"]) == (1, 1, 2)

    def test_results_that_are_the_same(self, cache: Cache) -> None:
        """Equal results of equal types count as checked only."""

        @content_cached(cache=cache)
        def f(x: int) -> dict[str, Any]:
            return {"x": x, "nan": float("nan"), "t": (1, 2)}

        f(1)
        for _ in range(3):
            with memoleo.verify(1.0, per_minute=100):
                f(1)
            settle()
        assert (found(cache).checked, found(cache).differed) == (3, 0)

    def test_a_miss_is_not_verified(self, cache: Cache) -> None:
        """What was computed just now is not computed once more."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            return x

        with memoleo.verify(1.0, per_minute=100):
            f(1)
        settle()
        assert calls == [1]
        assert cache.verified() == {}

    def test_a_computation_that_fails_now(self, cache: Cache) -> None:
        """A failure is counted apart, told by its class, and reaches nobody."""
        results = iter([1])

        @content_cached(cache=cache)
        def f() -> int:
            return next(results)

        f()
        with memoleo.verify(1.0, per_minute=100):
            assert f() == 1
        report = found(cache)
        assert (report.checked, report.failed) == (0, 1)
        assert report.findings[0].error == "StopIteration"

    def test_an_exit_stays_in_its_thread(self, cache: Cache) -> None:
        """A function that wants to end the program ends nothing when it is computed again."""
        codes = iter([None, 3])

        @content_cached(cache=cache)
        def f() -> int:
            code = next(codes)
            if code is not None:
                sys.exit(code)
            return 1

        f()
        with memoleo.verify(1.0, per_minute=100):
            assert f() == 1
        assert found(cache).failed == 1

    def test_it_is_computed_past_any_cache(self, cache: Cache) -> None:
        """A cached function inside is computed again too: else its hit would be compared."""
        numbers = iter(range(10))

        @content_cached("inner", cache=cache)
        def inner() -> int:
            return next(numbers)

        @content_cached("outer", cache=cache)
        def outer() -> int:
            return inner()

        outer()
        with memoleo.verify(1.0, per_minute=100):
            outer()
        assert found(cache, "outer").differed == 1
        assert inner() == 0

    def test_arguments_are_not_changed_behind_the_callers_back(self, cache: Cache) -> None:
        """A function that changes its arguments gets copies when it is computed again."""

        @content_cached(cache=cache)
        def drain(items: list[int], *, more: dict[str, int]) -> int:
            count = len(items) + len(more)
            items.clear(), more.clear()
            return count

        drain([1, 2], more={"a": 1})
        items, more = [1, 2], {"a": 1}
        with memoleo.verify(1.0, per_minute=100):
            assert drain(items, more=more) == 3
            mine = list(items)
            items.append(5)  # the caller goes on
        report = found(cache)
        assert (report.checked, report.differed) == (1, 0)
        assert (mine, items, more) == ([1, 2], [1, 2, 5], {"a": 1})

    def test_only_what_is_recent(self, cache: Cache) -> None:
        """What was found long ago can be left out."""
        f = content_cached(cache=cache)(str.upper)
        f("a")
        with memoleo.verify(1.0, per_minute=100):
            f("a")
        settle()
        cache.calls.store.clock.advance(3600)  # type: ignore[attr-defined]
        assert "default" in cache.verified(newer_than="2h")
        assert cache.verified(newer_than="30m") == {}


class TestBounds:
    def test_no_more_than_so_many_in_a_minute(self, cache: Cache) -> None:
        """The rate is limited, however many hits there are."""
        calls: list[int] = []

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            return x

        f(1)
        block = memoleo.verify(1.0, per_minute=3)
        for _ in range(20):
            with block:
                f(1)
            settle()
        assert len(calls) == 1 + 3
        assert found(cache).checked == 3

    def test_only_one_at_a_time(self, cache: Cache) -> None:
        """While one is computed no other begins, and hits don't wait for it."""
        gate, begun = threading.Event(), threading.Event()
        calls: list[int] = []

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            if len(calls) > 1:
                begun.set()
                assert gate.wait(30)
            return x

        f(1)
        with memoleo.verify(1.0, per_minute=100):
            assert f(1) == 1
            assert begun.wait(30)
            assert [f(1) for _ in range(50)] == [1] * 50
        gate.set()
        assert found(cache).checked == 1
        assert len(calls) == 2

    @pytest.mark.parametrize("sample", [0.0, 0])
    def test_a_sample_of_nothing(self, cache: Cache, sample: float) -> None:
        """Zero computes nothing again."""
        f = content_cached(cache=cache)(str.upper)
        f("a")
        with memoleo.verify(sample):
            f("a")
        settle()
        assert cache.verified() == {}

    @pytest.mark.parametrize(
        "wrong", [{"sample": 2}, {"sample": -1}, {"sample": "x"}, {"sample": True},
                  {"per_minute": -1}, {"sample": float("nan")}]
    )  # fmt: skip
    def test_wrong_arguments(self, wrong: dict[str, Any]) -> None:
        """A sample that can't be meant is refused at once."""
        with pytest.raises(ConfigError):
            memoleo.verify(**wrong)

    def test_blocks_are_per_context(self, cache: Cache) -> None:
        """Other threads don't notice a block, and bypass inside it bypasses."""
        f = content_cached(cache=cache)(str.upper)
        f("a")
        with memoleo.verify(1.0, per_minute=100):
            thread = threading.Thread(target=f, args=("a",))
            thread.start()
            thread.join()
            with memoleo.bypass():
                f("a")
        settle()
        assert cache.verified() == {}


class TestKinds:
    async def test_coroutine_functions(self, cache: Cache) -> None:
        """A coroutine function is computed again in its loop."""
        numbers = iter(range(10))

        @content_cached(cache=cache)
        async def f() -> int:
            await asyncio.sleep(0)
            return next(numbers)

        await f()
        with memoleo.verify(1.0, per_minute=100):
            assert await f() == 0
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        assert cache.verified()["default"].differed == 1

    def test_generators(self, cache: Cache) -> None:
        """The items of a generator are compared, and what it returns."""
        ends = iter([3, 3, 4])

        @content_cached(cache=cache)
        def f() -> Iterator[int]:
            yield from range(next(ends))

        assert list(f()) == [0, 1, 2]
        for _ in range(2):
            with memoleo.verify(1.0, per_minute=100):
                assert list(f()) == [0, 1, 2]
            settle()
        assert (found(cache).checked, found(cache).differed) == (2, 1)

    def test_a_whole_program_by_its_settings(self, tmp_path: Path) -> None:
        """The settings ask for it everywhere; another process reads what it showed."""
        script = tmp_path / "p.py"
        script.write_text(
            "import threading, time, memoleo\n"
            "memoleo.content_cached('clock')\n"
            "@memoleo.content_cached('clock')\n"
            "def f(): return time.perf_counter_ns()\n"
            "a = f()\n"
            "assert {f() for _ in range(100)} == {a}\n"
            "for t in threading.enumerate():\n"
            "    if t.name == 'memoleo-verify': t.join(30)\n"
        )
        url = f"sqlite:///{tmp_path.as_posix()}/c.db"
        for _ in range(2):
            subprocess.run(
                [sys.executable, str(script)],
                env={
                    **os.environ,
                    "MEMOLEO_CACHE": url,
                    "MEMOLEO_CACHING__VERIFY": "1",
                    "MEMOLEO_CACHING__VERIFY_PER_MINUTE": "1",
                },
                check=True,
                timeout=60,
            )
        with Cache(url) as cache:
            report = cache.verified()["clock"]
        assert (report.checked, report.differed) == (2, 2)
        assert len(report.findings) == 2

    def test_settings_pick_a_part_of_the_hits(self, cache: Cache) -> None:
        """With a sample between, chance is asked once for each hit, and all are answered."""
        settings = msgspec.structs.replace(
            _settings.current(), verify=0.2, verify_per_minute=10_000.0
        )
        before = _settings.use(settings)
        try:
            f = content_cached(cache=cache)(str.upper)
            f("a")
            state = random.getstate()
            random.seed(5)
            picked = sum(random.random() < 0.2 for _ in range(200))
            random.seed(5)
            for _ in range(200):
                assert f("a") == "A"
                settle()
            random.setstate(state)
        finally:
            _settings.use(before)
        assert found(cache).checked == picked

    def test_a_block_picks_for_itself(self, cache: Cache) -> None:
        """What chance said by the settings for a call before doesn't count in a block."""
        settings = msgspec.structs.replace(_settings.current(), verify=1e-9)
        before = _settings.use(settings)
        try:
            f = content_cached(cache=cache)(str.upper)
            f("a"), f("b")  # neither is there: nothing to verify
            with memoleo.verify(1.0, per_minute=100):
                f("a")
        finally:
            _settings.use(before)
        assert found(cache).checked == 1

    def test_answers_of_a_model(self) -> None:
        """Of a model's answers the text is compared, not when it came; streams are joined."""
        import ollama
        from scripted_ollama import ScriptedOllama

        with ScriptedOllama() as server, ollama.Client(server.url, verify=False) as client:
            cache = Cache("memory://", metrics=Metrics())
            with memoleo.enable("ollama", cache=cache):
                ask = [{"role": "user", "content": "why?"}]
                first = client.chat("m", ask)
                with memoleo.verify(1.0, per_minute=100):
                    assert client.chat("m", ask) == first
                settle()
                report = cache.verified()["ollama.chat"]
                assert (report.checked, report.differed) == (1, 1)  # it says something new
                assert report.findings[0].change is not None
                assert "content" in report.findings[0].change.path


class TestComparing:
    @dataclasses.dataclass
    class Point:
        x: float
        y: float

    @pytest.mark.parametrize(
        ("then", "now", "told"),
        [
            (1, 1.0, "another type"),
            (True, 1, "another type"),
            ([1, 2], [1, 3], "another value at [1], by 33.333%"),
            ([1, 2], [1], "other items"),
            ({"a": [1]}, {"a": ["x"]}, "another type at ['a'][0]"),
            ({"a": 1}, {"b": 1}, "other items"),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None),
            ("x", "y", "another value"),
            (float("nan"), float("nan"), None),
            (float("inf"), 1.0, "another value"),
            (0, 5, "another value, by 100.000%"),
            (10**400, 1, "another value, by 100.000%"),
            (Point(1.0, 2.0), Point(1.0, 2.5), "another value at .y, by 20.000%"),
            ({1, 2}, {2, 1}, None),
        ],
    )
    def test_the_first_place_that_differs(self, then: Any, now: Any, told: str | None) -> None:
        """Types are exact, the path leads to the place, and numbers say by how much."""
        change = change_between(then, now)
        assert (None if change is None else str(change)) == told

    def test_arrays(self) -> None:
        """Arrays are compared item by item."""
        import numpy as np

        assert change_between(np.arange(3), np.arange(3)) is None
        assert change_between(np.arange(3), np.arange(3) + 1) is not None
