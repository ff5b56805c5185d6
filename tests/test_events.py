"""Events, hooks and log records: what a program hears of what memoleo does."""

from __future__ import annotations

import ast
import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import memoleo
from memoleo import Cache, Event, Metrics, _events, content_cached, hooks, retried
from memoleo._breaker import BreakerPolicy, Breakers
from memoleo._entry import Entry
from memoleo._flow.flow import Intent
from memoleo._flow.policy import Policy
from memoleo._flow.steps import Count
from memoleo._flow.turn import Turn
from memoleo.errors import ConfigError
from memoleo.keys._address import Key

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "memoleo"


@pytest.fixture
def cache():
    return Cache("memory://", metrics=Metrics())


@pytest.fixture
def heard():
    """Everything that happens in this process."""
    events: list[Event] = []
    with hooks.listen(events.append):
        yield events


class TestListening:
    def test_whole_process(self, cache, heard):
        """A listener hears of every cache: misses, calls and what was stored, with their keys."""
        square = content_cached("squares", cache=cache)(lambda number: number * number)
        square(3)
        assert [event.outcome for event in heard] == ["miss", "call", "stored"]
        assert {event.type for event in heard} == {"squares"}
        assert {Key.of(event.key) for event in heard} == {square.cache_key(3)}

    def test_calls(self, cache, heard):
        """A run tells how long it took and what it raised, in sync and async code alike."""

        def wrong(number):
            raise ValueError(number)

        async def awrong(number):
            raise ValueError(number)

        with pytest.raises(ValueError, match="3"):
            content_cached(cache=cache)(wrong)(3)
        with pytest.raises(ValueError, match="3"):
            asyncio.run(content_cached(cache=cache)(awrong)(3))
        assert [event.outcome for event in heard] == ["miss", "call", "error"] * 2
        for event in heard[1], heard[4]:
            assert isinstance(event.error, ValueError)
            assert event.ms > 0

    def test_streams(self, cache, heard):
        """A stream has run when its consumer has come to its end."""

        def letters():
            yield from "abc"

        replayed = content_cached(cache=cache)(letters)
        assert "".join(replayed()) == "abc"
        assert [event.outcome for event in heard] == ["miss", "call", "stored"]
        assert "".join(replayed()) == "abc"
        assert [event.outcome for event in heard][3:] == ["hit"]

    def test_retries(self, heard, monkeypatch):
        """Each further attempt is an event, with its wait and what went wrong."""

        @retried(ConnectionError, attempts=2, backoff_ms=(1,), jitter=False)
        def flaky():
            if not heard:
                raise ConnectionError("down")
            return 1

        flaky()
        (event,) = heard
        assert (event.outcome, event.ms) == ("retry", 1.0)
        assert "flaky" in event.label
        assert isinstance(event.error, ConnectionError)

    def test_circuits(self, heard):
        """A circuit that opens and closes is told, with the host."""
        breakers = Breakers(BreakerPolicy(failures=1, open_for=1.0))
        breakers.leave(breakers.enter("a:80", 0.0), 0.0, failed=True)
        breakers.leave(breakers.enter("a:80", 2.0), 2.0, failed=False)
        assert [(event.outcome, event.label) for event in heard] == [
            ("circuit_open", "a:80"),
            ("circuit_half_open", "a:80"),
            ("circuit_closed", "a:80"),
        ]

    def test_kinds(self, cache):
        """Who names kinds is called with those only; one that doesn't exist is refused."""
        events: list[Event] = []
        with hooks.listen(events.append, kinds={"stored"}):
            content_cached(cache=cache)(str.upper)("a")
        assert [event.outcome for event in events] == ["stored"]
        with pytest.raises(ConfigError, match="'stowed'"):
            hooks.listen(events.append, kinds={"stowed"})
        with pytest.raises(ConfigError, match="callable"):
            hooks.listen(None)

    def test_closing(self, cache):
        """Who stops listening hears no more, and others go on."""
        first: list[Event] = []
        second: list[Event] = []
        one, two = hooks.listen(first.append), hooks.listen(second.append)
        one.close()
        one.close()
        content_cached(cache=cache)(str.upper)("a")
        two.close()
        assert (len(first), len(second)) == (0, 3)
        assert _events.listeners == ()

    def test_failing(self, cache, caplog):
        """What a hook raises is logged, and the call is none the wiser."""

        def bad(event):
            raise RuntimeError("no")

        with hooks.listen(bad):
            assert content_cached(cache=cache)(str.upper)("a") == "A"
        assert {record.memoleo_event for record in caplog.records} == {"hook_failed"}

    def test_hits_stay_fast_for_who_asks_for_none(self):
        """A hook of a cache that wants no hits leaves the shortest way to them in use."""

        class Misses:
            kinds = frozenset({"miss"})

            def __init__(self):
                self.events = []

            def __call__(self, event):
                self.events.append(event.outcome)

        hook = Misses()
        cache = Cache("memory://", metrics=Metrics(), hooks=[hook])
        upper = content_cached(cache=cache)(str.upper)
        upper("a"), upper("a")
        assert hook.events == ["miss"]
        job = cache.calls.job(b"", upper._policy, lambda: None)
        assert cache.calls.reader(job) is not None

    def test_hooks_of_any_make(self):
        """Whatever can be called is a hook, whatever else it has under the name `kinds`."""
        from unittest.mock import MagicMock

        class Odd:
            heard = 0

            def __getattr__(self, name):
                raise OSError("gone")

            def __call__(self, event):
                Odd.heard += 1

        mock = MagicMock()
        cache = Cache("memory://", metrics=Metrics(), hooks=[mock, Odd()])
        upper = content_cached(cache=cache)(str.upper)
        upper("a"), upper("a")
        assert [call.args[0].outcome for call in mock.call_args_list][-1] == "hit"
        assert Odd.heard == mock.call_count == 4

    def test_expired(self, heard):
        """An entry that is past its time is told, and counted beside the miss."""
        now = [1000.0]
        cache = Cache("memory://", metrics=Metrics(), clock=lambda: now[0])
        upper = content_cached("t", ttl=5, cache=cache)(str.upper)
        upper("a")
        now[0] += 6
        upper("a")
        assert [event.outcome for event in heard][3:] == ["expired", "miss", "call", "stored"]
        counts = cache.metrics.get_stats()["cache"]["t"]
        assert (counts["expired"], counts["misses"]) == (1, 2)

    def test_expired_in_a_long_row(self, tmp_path):
        """It is counted as well where so many inputs are new that none is looked up at first."""
        now = [1000.0]
        url = f"sqlite:///{tmp_path}/a.db?memory=0"
        cache = Cache(url, metrics=Metrics(), clock=lambda: now[0])
        double = content_cached("t", ttl=5, cache=cache)(lambda number: 2 * number)
        assert double(7) == 14
        now[0] += 6
        for number in range(100, 140):
            double(number)
        assert double(7) == 14
        counts = cache.metrics.get_stats()["cache"]["t"]
        assert (counts["expired"], counts["misses"]) == (1, 42)


def test_evictions_and_bytes_are_counted_by_type(tmp_path):
    """What a store removes for lack of room, takes in and gives out is counted under its type."""
    metrics = Metrics()
    urls = ("memory://?max_entries=2", f"sqlite:///{tmp_path}/a.db?max_entries=2&memory=0")
    for url in urls:
        cache = Cache(url, metrics=metrics)
        upper = content_cached("t", cache=cache)(str.upper)
        for letter in "abcd":
            upper(letter)
        upper("d")
        cache.close()
    counts = metrics.get_stats()["cache"]["t"]
    assert counts["evicted"] >= 3
    assert counts["bytes_stored"] == 8 * counts["bytes_served"] / 2 > 0
    assert memoleo.metrics.read_metrics(urls[1])["stats"]["cache"]["t"]["evicted"] >= 1


@pytest.mark.parametrize("outcome", ["shared", "hit"])
def test_waiting_for_a_run_saves_no_time(cache, outcome):
    """Who waits for another's run, in this process or another, shares it and saves less time."""
    job = cache.calls.job(b"k" * 32, Policy(type="t"), lambda: None)
    driver = cache.calls.driver
    turn = Turn(driver.store, driver._flights, job, Intent.ANSWER, iter(()))
    with turn.waiting():
        pass
    assert turn.waited > 0
    for waited, saved in ((60.0, 40.0), (500.0, 40.0)):
        turn.waited = waited
        turn._count(Count(outcome, Entry(b"abc", "auto", 0.0, cost_ms=100.0)))
        counts = cache.metrics.get_stats()["cache"]["t"]
        assert (counts["hits"], counts["saved_ms"]) == (0, saved)
    assert counts["shared"] == 2
    assert counts["bytes_served"] == 6


def test_what_a_hit_takes_is_measured(tmp_path):
    """The time of hits is estimated from a look at what was stored, in every kind of store."""
    for url in ("memory://", f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db?memory=0"):
        cache = Cache(url, metrics=Metrics())
        upper = content_cached("t", cache=cache)(str.upper)
        upper("a"), upper("a"), upper("a")
        counts = cache.metrics.get_stats()["cache"]["t"]
        assert 0 < counts["hit_ms"] < 100
        cache.close()


class TestLogging:
    def log_calls(self):
        levels = {"debug", "info", "warning", "error", "exception", "log"}
        for path in sorted(SOURCE.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in levels
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "logger"
                ):
                    yield f"{path.name}:{node.lineno}", node

    def test_every_record_says_what_it_is_about(self):
        """Each log call has structured extras beside its text."""
        found = list(self.log_calls())
        assert len(found) > 20
        plain = [place for place, node in found if "extra" not in {k.arg for k in node.keywords}]
        assert plain == []

    def test_one_logger(self):
        """Everything is logged to "memoleo", through one object."""
        places = [
            path.name
            for path in SOURCE.rglob("*.py")
            if "getLogger(" in path.read_text(encoding="utf-8")
        ]
        assert places == ["_events.py"]

    def test_extras(self, cache, caplog):
        """A record carries the event, the type, the function and the key, for log processors."""

        @content_cached("things", cache=cache)
        def thing(number):
            return object()

        with caplog.at_level(logging.WARNING, "memoleo"):
            thing(3)
        (record,) = caplog.records
        assert record.memoleo_event == "refused"
        assert record.memoleo_type == "things"
        assert record.memoleo_label.endswith("thing")
        assert record.memoleo_key == thing.cache_key(3)
        assert isinstance(record.memoleo_error, memoleo.CodecError)

    def test_quiet_by_default(self, tmp_path):
        """A program that configures no logging sees nothing on its standard error."""
        code = """
import memoleo
cache = memoleo.Cache(f"sqlite:///{__import__('sys').argv[1]}/cache.db")
@memoleo.content_cached(cache=cache)
def f(): return object()
f()
"""
        ran = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=True
        )
        assert (ran.stdout, ran.stderr) == (b"", b"")

    def test_kinds_are_documented(self):
        """The reference lists every kind of event, and none besides."""
        text = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
        rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
        assert [row for row in rows if row in _events.KINDS] == list(_events.KINDS)
