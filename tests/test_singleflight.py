"""One computation per key: across threads, tasks and processes, whatever becomes of the leader."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memoleo import Cache, Metrics, content_cached
from memoleo._flow.singleflight import Flight, Flights, flights_of
from memoleo._flow.steps import Followed
from memoleo.backends.memory import MemoryBackend

MANY = 50


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    """A cache in memory, and one on a file."""
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/cache.db"
    with Cache(url, metrics=Metrics()) as opened:
        yield opened


def in_threads(function: Callable[[], Any], count: int = MANY) -> list[Any]:
    """Call `function` from many threads at the same moment; results and exceptions."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait(30)
        try:
            return function()
        except BaseException as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result(60) for future in [pool.submit(run) for _ in range(count)]]


def followers(cache: Cache) -> int:
    """How many callers wait for somebody else's computation right now."""
    flights = list(cache.calls.driver._flights._flights.values())
    futures: list[Any] = [flight.joined for flight in flights if flight.joined is not None]
    return sum(len(future._done_callbacks) + len(future._condition._waiters) for future in futures)


class TestThreads:
    def test_fifty_threads_compute_once(self, cache: Cache) -> None:
        """Fifty threads on one cold key: one execution, fifty equal results of their own."""
        calls: list[int] = []

        @content_cached("t", cache=cache)
        def slow(x: int) -> list[int]:
            calls.append(x)
            return [x]

        results = in_threads(lambda: slow(1))
        assert calls == [1]
        assert results == [[1]] * MANY
        assert len({id(result) for result in results}) == MANY
        counts = cache.metrics.get_stats()["cache"]["t"]
        assert counts["misses"] == 1
        assert counts["hits"] + counts["shared"] == MANY - 1

    def test_leader_that_raises(self, cache: Cache) -> None:
        """If the first execution fails, one follower takes over: two executions, one failure."""
        calls: list[int] = []
        error = OSError("first")

        @content_cached(cache=cache)
        def flaky(x: int) -> int:
            calls.append(x)
            if len(calls) == 1:
                started.set()
                waiting.wait(30)
                raise error
            return x

        started, waiting = threading.Event(), threading.Event()
        with ThreadPoolExecutor(MANY) as pool:
            leader = pool.submit(flaky, 1)
            assert started.wait(30)
            rest = [pool.submit(flaky, 1) for _ in range(MANY - 1)]
            waiting.set()
            with pytest.raises(OSError, match="first") as caught:
                leader.result(60)
            assert caught.value is error
            assert [future.result(60) for future in rest] == [1] * (MANY - 1)
        assert len(calls) == 2

    def test_call_that_always_fails_fails_everybody(self, cache: Cache) -> None:
        """A failure belongs to the call: each thread gets it, and nobody hangs."""

        @content_cached(cache=cache)
        def broken(x: int) -> int:
            raise ValueError(x)

        results = in_threads(lambda: broken(1))
        assert all(isinstance(result, ValueError) for result in results)

    def test_recursion_does_not_deadlock(self, cache: Cache) -> None:
        """A function that calls itself with the same arguments computes, also from its own task."""
        depth: list[int] = []

        @content_cached(cache=cache)
        def again(x: int) -> int:
            depth.append(x)
            if len(depth) == 1:
                context = contextvars.copy_context()
                with ThreadPoolExecutor(1) as pool:
                    return pool.submit(context.run, again, x).result(30) + 1
            if len(depth) == 2:
                return again(x) + 1
            return x

        assert again(0) == 2


class TestTwoCachesOnOneFile:
    def test_nested_call_of_the_same_key_does_not_deadlock(self, tmp_path: Path) -> None:
        """A call inside the computation of its own key, through another cache, computes."""
        url = f"sqlite:///{tmp_path}/cache.db"
        with Cache(url) as one, Cache(url) as other:
            inner = other.get_or_compute
            assert one.get_or_compute("k", lambda: inner("k", lambda: 5) + 1) == 6

    async def test_blocking_call_beside_a_suspended_task_does_not_deadlock(
        self, tmp_path: Path
    ) -> None:
        """A blocking call, where a task of the same loop leads in another cache, computes."""
        go = asyncio.Event()
        url = f"sqlite:///{tmp_path}/cache.db"

        async def slow() -> int:
            await go.wait()
            return 1

        with Cache(url) as one, Cache(url) as other:
            task = asyncio.create_task(one.aget_or_compute("k", slow))
            await asyncio.sleep(0)
            assert other.get_or_compute("k", lambda: 2) == 2
            go.set()
            assert await asyncio.wait_for(task, 60) == 1


def test_caches_that_are_opened_at_once_on_one_file_share_flights(
    request: pytest.FixtureRequest,
) -> None:
    """However threads take turns, there is one record of who computes what for a file."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    for number in range(400):
        found = in_threads(partial(flights_of, f"/{number}"), 4)
        assert len({id(one) for one in found}) == 1


def test_crossing_calls_of_two_threads_do_not_deadlock(cache: Cache) -> None:
    """Two computations that need each other's key: one of them computes it by itself."""
    inside = threading.Barrier(2)
    other = {1: 2, 2: 1}

    @content_cached(cache=cache, ignore=("depth",), version=1)
    def reach(n: int, depth: int) -> list[int]:
        if depth == 2:
            inside.wait(30)
        return [n, *(reach(other[n], depth - 1) if depth else [])]

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(reach, n, 2) for n in (1, 2)]
        assert [future.result(30)[0] for future in futures] == [1, 2]


def test_leader_of_a_closed_loop_is_replaced(cache: Cache) -> None:
    """A task that was left behind in a closed loop keeps nobody waiting."""
    calls: list[int] = []

    @content_cached(cache=cache)
    async def slow(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return x

    loop = asyncio.new_event_loop()
    task = loop.create_task(slow(1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert asyncio.run(asyncio.wait_for(slow(1), 30)) == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]


class TestTasks:
    async def test_fifty_tasks_compute_once(self, cache: Cache) -> None:
        """Fifty tasks on one cold key: one execution."""
        calls: list[int] = []
        go = asyncio.Event()

        @content_cached(cache=cache)
        async def slow(x: int) -> list[int]:
            calls.append(x)
            await go.wait()
            return [x]

        tasks = [asyncio.create_task(slow(1)) for _ in range(MANY)]
        while followers(cache) < MANY - 1:
            await asyncio.sleep(0)
        go.set()
        results = await asyncio.wait_for(asyncio.gather(*tasks), 60)
        assert calls == [1]
        assert len({id(result) for result in results}) == MANY

    async def test_cancelled_leader(self, cache: Cache) -> None:
        """When the leader is cancelled a follower takes over; only the leader is cancelled."""
        calls: list[int] = []
        started, go = asyncio.Event(), asyncio.Event()

        @content_cached(cache=cache)
        async def slow(x: int) -> int:
            calls.append(x)
            started.set()
            await go.wait()
            return x

        leader = asyncio.create_task(slow(1))
        await started.wait()
        rest = [asyncio.create_task(slow(1)) for _ in range(MANY - 1)]
        while followers(cache) < MANY - 1:
            await asyncio.sleep(0)
        leader.cancel()
        go.set()
        assert await asyncio.wait_for(asyncio.gather(*rest), 60) == [1] * (MANY - 1)
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert len(calls) == 2

    async def test_cancelled_follower(self, cache: Cache) -> None:
        """A follower that is cancelled takes nobody with it."""
        started, go = asyncio.Event(), asyncio.Event()

        @content_cached(cache=cache)
        async def slow(x: int) -> int:
            started.set()
            await go.wait()
            return x

        leader = asyncio.create_task(slow(1))
        await started.wait()
        others = [asyncio.create_task(slow(1)) for _ in range(2)]
        while followers(cache) < 2:
            await asyncio.sleep(0)
        others[0].cancel()
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.wait_for(asyncio.gather(leader, others[1]), 60) == [1, 1]

    async def test_recursion_does_not_deadlock(self, cache: Cache) -> None:
        """A coroutine that awaits its own key, directly or through a task, computes."""
        depth: list[int] = []

        @content_cached(cache=cache)
        async def again(x: int) -> int:
            depth.append(x)
            if len(depth) == 1:
                return await asyncio.create_task(again(x)) + 1
            if len(depth) == 2:
                return await again(x) + 1
            return x

        assert await asyncio.wait_for(again(0), 60) == 2

    async def test_threads_and_tasks_wait_for_one_another(self, cache: Cache) -> None:
        """A thread that follows a task of another thread, by key, shares its result."""
        calls: list[str] = []
        started, go = threading.Event(), asyncio.Event()

        async def compute() -> int:
            calls.append("task")
            started.set()
            await go.wait()
            return 1

        def compute_in_thread() -> int:
            calls.append("thread")
            return 2

        task = asyncio.create_task(cache.aget_or_compute("k", compute))
        await asyncio.to_thread(started.wait, 30)
        thread = asyncio.create_task(
            asyncio.to_thread(cache.get_or_compute, "k", compute_in_thread)
        )
        while not followers(cache):
            await asyncio.sleep(0)
        go.set()
        assert await asyncio.wait_for(asyncio.gather(task, thread), 60) == [1, 1]
        assert calls == ["task"]

    async def test_blocking_call_in_the_leaders_loop_does_not_deadlock(self, cache: Cache) -> None:
        """A blocking call of the same key, made where the leading task is suspended, computes."""
        go = asyncio.Event()

        async def compute() -> int:
            await go.wait()
            return 1

        task = asyncio.create_task(cache.aget_or_compute("k", compute))
        await asyncio.sleep(0)
        assert cache.get_or_compute("k", lambda: 2) == 2
        go.set()
        assert await asyncio.wait_for(task, 60) == 1


WORKER = """
import os, sys, time
from memoleo import Cache, content_cached

folder, what = sys.argv[1:]
cache = Cache(f"sqlite:///{folder}/cache.db")

def ready(name):
    open(os.path.join(folder, f"{name}-{os.getpid()}"), "x").close()

@content_cached(cache=cache, version=1)
def slow(x):
    ready("call")
    if what == "hang":
        time.sleep(600)
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.002)
    return [x]

print("up", flush=True)
sys.stdin.readline()
print(slow(1), flush=True)
"""


class Processes:
    """Worker processes on one cache file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "worker.py").write_text(WORKER)
        self.running: list[subprocess.Popen[str]] = []

    def start(self, what: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(self.folder / "worker.py"), str(self.folder), what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def begin(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def calls(self) -> int:
        return len(list(self.folder.glob("call-*")))

    def wait_for_calls(self, count: int) -> None:
        while self.calls() < count:
            os.sched_yield() if hasattr(os, "sched_yield") else None

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    workers = Processes(tmp_path)
    yield workers
    workers.end()


class TestProcesses:
    def test_four_processes_compute_once(self, processes: Processes) -> None:
        """Four processes on one cold key of one file: one execution."""
        workers = [processes.start("work") for _ in range(4)]
        for worker in workers:
            processes.begin(worker)
        processes.wait_for_calls(1)
        (processes.folder / "go").touch()
        outputs = [worker.communicate(timeout=60)[0] for worker in workers]
        assert outputs == ["[1]\n"] * 4
        assert processes.calls() == 1

    @pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a matter of POSIX")
    def test_killed_leader(self, processes: Processes) -> None:
        """When the leading process is killed, a follower takes over at once."""
        leader = processes.start("hang")
        processes.begin(leader)
        processes.wait_for_calls(1)
        rest = [processes.start("work") for _ in range(3)]
        for worker in rest:
            processes.begin(worker)
        leader.send_signal(signal.SIGKILL)
        leader.wait(30)
        (processes.folder / "go").touch()
        assert [worker.communicate(timeout=60)[0] for worker in rest] == ["[1]\n"] * 3
        assert processes.calls() == 2


def test_what_is_started_from_a_call_holds_no_arguments(cache: Cache) -> None:
    """A task that a cached function starts, and that outlives the call, keeps none of them."""

    @dataclass
    class Document:
        text: str

    async def main() -> None:
        tasks = []

        @content_cached(cache=cache)
        async def starts(document: Document) -> int:
            tasks.append(asyncio.create_task(asyncio.Event().wait()))
            return len(document.text)

        document = Document("long")
        held = weakref.ref(document)
        assert await starts(document) == 4
        del document
        gc.collect()
        assert held() is None
        tasks[0].cancel()

    asyncio.run(main())


def test_a_leader_that_is_gone_without_a_word() -> None:
    """Nobody waits for a run whose finalizer a signal handler's exception kept from beginning."""

    class Run:
        pass

    def flight(run: Run) -> Flight:
        return Flight(b"k" * 32, None, leader=weakref.ref(run))

    flights, run, other = Flights(), Run(), Run()
    flights.join(flight(run))
    ahead = flights.join(flight(other))
    assert ahead.leader() is run
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ahead.wait, 60)
        task = pool.submit(asyncio.run, ahead.await_(60))
        del run
        gc.collect()
        assert waiting.result(30) == task.result(30) == Followed(None, failed=True)
    mine = flight(other)
    assert flights.join(mine) is mine


def test_without_the_threads_of_a_loop() -> None:
    """A store that is far away is asked all the same once the executor of a loop was shut down."""

    class Remote(MemoryBackend):
        remote = True

    async def main() -> None:
        with Cache(backend=Remote()) as cache:

            @content_cached(cache=cache)
            async def double(number: int) -> int:
                return 2 * number

            threads = ThreadPoolExecutor(1)
            asyncio.get_running_loop().set_default_executor(threads)
            threads.shutdown()
            assert [await double(1), await double(1)] == [2, 2]
            assert double.cache_info().hits == 1

    asyncio.run(main())
