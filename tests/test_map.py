"""`map` and `amap`: each key once, so many at once, results in order, and on after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

import memoleo
from memoleo import Cache, amap, content_cached
from memoleo import map as leo_map
from memoleo.errors import ConfigError


def driven(function, inputs, **options):
    """Call `amap` as `map` is called, so that both pass the same tests."""

    async def coroutine(*args, **kwargs):
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    if "cached" in options:
        cached = options.pop("cached")
        return asyncio.run(amap(cached(coroutine), inputs, **options))
    return asyncio.run(amap(coroutine, inputs, **options))


def plain(function, inputs, **options):
    if "cached" in options:
        function = options.pop("cached")(function)
    return leo_map(function, inputs, **options)


both = pytest.mark.parametrize("mapped", [plain, driven], ids=["map", "amap"])


@both
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_results_stand_in_the_order_of_the_inputs(mapped, concurrency):
    """Whatever order calls end in."""
    assert mapped(lambda x: x * 2, range(100), concurrency=concurrency) == list(range(0, 200, 2))
    assert mapped(lambda x: x, [], concurrency=concurrency) == []
    assert mapped(str, iter("abc"), concurrency=concurrency) == ["a", "b", "c"]


@both
def test_equal_inputs_are_computed_once(mapped):
    """By the content of the call, or by a key of the user's own; unkeyable ones one by one."""
    calls = []

    def work(x):
        calls.append(x)
        return [x]

    results = mapped(work, [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}])
    assert len(calls) == 2
    assert results[0] == results[1]
    assert results[0] is not results[1]
    calls.clear()
    assert mapped(work, ["a", "A", "b"], key=str.lower) == [["a"], ["a"], ["b"]]
    assert sorted(calls) == ["a", "b"]
    calls.clear()
    lock = threading.Lock()
    assert mapped(lambda x: calls.append(x) or 1, [lock, lock]) == [1, 1]
    assert len(calls) == 2


@both
def test_what_has_no_exact_form_is_shared(mapped):
    """A result that can't be encoded stays one object."""
    first, second = mapped(lambda x: threading.Lock(), [1, 1])
    assert first is second


def test_so_many_threads_at_once():
    """All workers are in the function together, and never one more."""
    inside, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(4)

    def work(x):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        together.wait()
        with lock:
            inside -= 1

    leo_map(work, range(40), concurrency=4)
    assert most == 4


async def test_so_many_tasks_at_once():
    """The same for tasks."""
    inside, most = 0, 0

    async def work(x):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    await amap(work, range(40), concurrency=4)
    assert most == 4


@both
def test_the_first_failure_ends_all_and_says_which_input(mapped):
    """No further call begins, and the error carries the input in its notes."""
    calls = []

    def work(x):
        calls.append(x)
        if x == 3:
            raise ValueError("three")
        return x

    with pytest.raises(ValueError, match="three") as caught:
        mapped(work, range(100), concurrency=1)
    assert calls == [0, 1, 2, 3]
    assert caught.value.__notes__ == ["memoleo: input 3 of map: 3"]


@both
def test_errors_in_place(mapped):
    """With errors="return" each failure stands where its result would."""

    def work(x):
        if x % 2:
            raise ValueError(x)
        return x

    results = mapped(work, [0, 1, 2, 1], errors="return")
    assert [results[0], results[2]] == [0, 2]
    assert isinstance(results[1], ValueError)
    assert results[3] is results[1]


@both
def test_inputs_that_fail_are_raised(mapped):
    """What the iterable or the key function raises ends all, in either way with errors."""

    def inputs():
        yield 1
        raise OSError("disk")

    for errors in ("raise", "return"):
        with pytest.raises(OSError, match="disk"):
            mapped(lambda x: x, inputs(), errors=errors)
        with pytest.raises(ZeroDivisionError):
            mapped(lambda x: x, [1], key=lambda x: x / 0, errors=errors)


@both
def test_endless_inputs_are_taken_one_at_a_time(mapped):
    """A generator is read no further than workers need."""
    taken = []

    def inputs():
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    def work(x):
        if x == 20:
            raise KeyError(x)

    with pytest.raises(KeyError):
        mapped(work, inputs(), concurrency=2)
    assert len(taken) < 30


@both
def test_unpacked(mapped):
    """Tuples become arguments, mappings become keywords."""
    rows = [(1, 2), {"b": 4, "a": 3}, "xy"]
    assert mapped(lambda a, b: a + b, rows, unpack=True) == [3, 7, "xy"]


def test_unpacked_inputs_are_one_call_however_spelled():
    """By position, by keyword, in any order."""
    calls = []

    def work(a, b):
        calls.append((a, b))
        return a + b

    assert leo_map(work, [(1, 2), {"b": 2, "a": 1}, [1, 2]], unpack=True) == [3, 3, 3]
    assert calls == [(1, 2)]


@both
def test_progress_counts_every_input(mapped):
    """Repeated ones too; a callback that fails is logged, and hurts nobody."""
    told = []
    mapped(lambda x: x, [1, 2, 1, 2, 3], progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (5, 5)
    assert mapped(lambda x: x, [1, 2], progress=lambda done, total: 1 / 0) == [1, 2]


def test_the_bar_shows_on_a_terminal_only(monkeypatch, capsys):
    """Where standard error is no terminal, nothing is written."""
    leo_map(str, range(3), progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    leo_map(str, range(3), progress="songs")
    written = capsys.readouterr()
    assert written.out == ""
    assert "songs" in written.err
    assert "3/3" in written.err


@both
def test_cached(mapped):
    """Results are stored as they come, and a second run computes nothing."""
    cache, calls = Cache(), []

    def work(x):
        calls.append(x)
        return {"x": x}

    for _ in range(2):
        options = {"cached": content_cached(type="songs", cache=cache)}
        assert mapped(work, [1, 2, 2], **options) == [{"x": 1}, {"x": 2}, {"x": 2}]
    assert len(calls) == 2


def test_type_makes_a_plain_function_cached():
    """So that a run can go on where it stopped; the same content is the same entry."""
    cache, calls = Cache(), []

    def work(x):
        calls.append(x)
        return x

    for _ in range(2):
        assert leo_map(work, [1, 2], type="songs", ttl="24h", cache=cache) == [1, 2]
    assert len(calls) == 2
    assert cache.get_stats()["by_type"] == {"songs": 2}


def test_modes_hold_in_the_threads():
    """`bypass` and `refresh` around `map` hold for its calls, and its results are this run's."""
    cache, number = Cache(), iter(range(100))

    @content_cached(cache=cache)
    def work(x):
        return [next(number)]

    assert leo_map(work, ["a", "a"]) == [[0], [0]]
    with memoleo.bypass():
        assert leo_map(work, ["a", "a"]) == [[1], [1]]
    assert leo_map(work, ["a", "a"]) == [[0], [0]]
    with memoleo.refresh():
        assert leo_map(work, ["a", "a"]) == [[2], [2]]
    assert leo_map(work, ["a"]) == [[2]]


def test_methods_and_stacked_decorators():
    """A bound method is keyed as it is cached, through `timed` and `retried` too."""
    cache, calls = Cache(), []

    class Scorer:
        @memoleo.timed
        @content_cached(cache=cache, state=None)
        @memoleo.retried
        def score(self, text):
            calls.append(text)
            return text.upper()

    assert leo_map(Scorer().score, ["a", "b", "a"]) == ["A", "B", "A"]
    assert leo_map(Scorer().score, ["a", "b"]) == ["A", "B"]
    assert sorted(calls) == ["a", "b"]
    assert leo_map(partial(pow, 2), [3, 3]) == [8, 8]


async def test_cancelled_it_leaves_no_task():
    """Calls that run are cancelled and awaited before `amap` ends."""
    started, ended = asyncio.Event(), []

    async def work(x):
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(x)

    task = asyncio.ensure_future(amap(work, range(100), concurrency=5))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted(error):
    """Ctrl-C in a call ends all, and is what the caller gets, with errors="return" too."""
    calls = []

    def work(x):
        calls.append(x)
        raise error

    with pytest.raises(error):
        leo_map(work, range(100), concurrency=2, errors="return")
    assert len(calls) <= 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": True}, "concurrency"),
        ({"errors": "ignore"}, "errors"),
        ({"key": 3}, "key"),
        ({"progress": 3}, "progress"),
        ({"ttl": "soon"}, "soon"),
        ({"type": ""}, "type=''"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    """An error at once, before anything is computed."""
    with pytest.raises(ConfigError, match=message):
        leo_map(str, [1], **wrong)


def test_wrong_functions_are_named():
    """Each says which one to use instead."""

    async def coroutine(x):
        return x

    def generator(x):
        yield x

    with pytest.raises(ConfigError, match=r"use amap\(\)"):
        leo_map(coroutine, [1])
    with pytest.raises(ConfigError, match="a generator"):
        leo_map(generator, [1])
    with pytest.raises(ConfigError, match=r"use map\(\)"):
        asyncio.run(amap(str, [1]))
    with pytest.raises(ConfigError, match="cached already"):
        leo_map(content_cached(str.title), ["a"], type="x")
    with pytest.raises(ConfigError, match="can't be called"):
        leo_map(3, [1])


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_a_function_that_only_turns_out_to_be_of_the_other_kind_is_named(errors):
    """No coroutine that nobody awaits is handed out as a result."""

    async def coroutine(x):
        return x

    with pytest.raises(ConfigError, match=r"use amap\(\)"):
        leo_map(lambda x: coroutine(x), [1, 2], errors=errors)
    with pytest.raises(ConfigError, match=r"use map\(\)"):
        asyncio.run(amap(lambda x: x, [1, 2], errors=errors))
    with pytest.raises(ConfigError, match=r"use map\(\)"):
        asyncio.run(amap(lambda x: coroutine(x), [1, 2], errors=errors, type="x"))


def test_a_lambda_that_returns_a_coroutine_is_called():
    """`amap` takes what its types allow: whatever returns an awaitable."""

    async def coroutine(x):
        return [x]

    assert asyncio.run(amap(lambda x: coroutine(x), [1, 2, 1])) == [[1], [2], [1]]


@both
def test_a_key_that_stops_is_an_error_and_not_the_end(mapped):
    """Inputs are not left out without a word if `key` runs into the end of something of its own."""
    with pytest.raises((StopIteration, RuntimeError)):
        mapped(str, [1, 2], key=lambda x: next(iter(())))
    with pytest.raises(TypeError, match="unhashable"):
        mapped(str, [1, 2], key=lambda x: [x])


def test_inputs_may_wait_for_results():
    """As in a crawl: an input comes when an earlier call has been counted as done."""
    counted = threading.Event()

    def inputs():
        yield 1
        assert counted.wait(10)
        yield 2

    assert leo_map(
        lambda x: x, inputs(), concurrency=2, progress=lambda done, total: counted.set()
    ) == [1, 2]


RUN = r"""
import sys
from memoleo import Cache, map
cache = Cache(sys.argv[1])
def work(x):
    sys.stdout.write(f"{x}\n")
    sys.stdout.flush()
    if x == int(sys.argv[2]):
        sys.stdin.readline()
    return x * x
if __name__ == "__main__":
    total = sum(map(work, range(40), concurrency=2, type="squares", cache=cache))
    print("sum", total)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    """After kill -9 only what had not been stored is computed again."""
    script = tmp_path / "job.py"
    script.write_text(RUN)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    command = [sys.executable, str(script), url]
    computed = []
    with subprocess.Popen(
        [*command, "30"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        # The call of 30 hangs in one thread; the other one goes on until the last input.
        for line in first.stdout:
            computed.append(int(line))
            if line == "39\n":
                break
        os.kill(first.pid, signal.SIGKILL)
    assert sorted(computed) == list(range(40))
    second = subprocess.run([*command, "-1"], capture_output=True, text=True, check=True)
    *again, last = second.stdout.splitlines()
    assert last == f"sum {sum(x * x for x in range(40))}"
    assert {30} <= set(map(int, again)) <= {30, 39}
