"""Time limits by signals: what a handler raises reaches the program, and breaks nothing of ours."""

from __future__ import annotations

import collections.abc
import functools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any

import ollama
import pytest
import requests
from scripted_ollama import ScriptedOllama

import memoleo
from memoleo import Cache, Metrics, content_cached
from memoleo._platform import file_locks
from memoleo._platform.interrupts import interruption
from memoleo._platform.locks import Lock
from memoleo.backends.memory import MemoryBackend

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no alarms")


class Late(Exception):
    pass


def too_late(*_: Any) -> None:
    raise Late


class Callable:
    def __call__(self, *_: Any) -> None:
        raise Late


@contextmanager
def handled_by(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("handler", [too_late, functools.partial(too_late, 1), Callable()])
def test_what_a_handler_raised_is_told_from_other_errors(handler: Any) -> None:
    """Functions, partials and callable objects are recognized by their frame."""
    with handled_by(handler):
        with pytest.raises(Late) as caught:
            signal.raise_signal(signal.SIGALRM)
        assert interruption(caught.value) is caught.value
        with pytest.raises(Late) as caught:
            raise Late
        assert interruption(caught.value) is None


def enter(lock: Lock) -> None:
    with lock:
        pass


def acquire(lock: Lock) -> None:
    if lock.acquire(timeout=10):
        try:
            pass
        finally:
            lock.release()


unsafe = pytest.mark.skipif(sys.version_info < (3, 11), reason="no call can protect its caller")


@pytest.mark.parametrize("use", [enter, pytest.param(acquire, marks=unsafe)])
def test_an_alarm_leaves_no_lock_held(use: Any) -> None:
    """Wherever it comes as a lock is taken and released, another thread gets the lock."""
    taken = []

    def take(lock: Lock) -> None:
        taken.append(lock.acquire(blocking=False))

    with handled_by(too_late):
        for number in range(200):
            lock = Lock()
            with suppress(Late):
                signal.setitimer(signal.ITIMER_REAL, (1 + number % 60) * 1e-6)
                while True:
                    use(lock)
            other = threading.Thread(target=take, args=(lock,))
            other.start()
            other.join()
    assert all(taken)


class Interrupted(MemoryBackend):
    def delete(self, key: bytes) -> bool:
        signal.raise_signal(signal.SIGALRM)
        return super().delete(key)

    def clear_expired(self, now: float) -> int:
        signal.raise_signal(signal.SIGALRM)
        return super().clear_expired(now)


def test_time_limit_of_a_removal_is_no_failure_of_the_store() -> None:
    """What the handler raised comes out as it is, not as a `BackendError`."""
    cache = memoleo.Cache(backend=Interrupted())
    with handled_by(too_late):
        with pytest.raises(Late):
            cache.delete("key")
        with pytest.raises(Late):
            cache.clear_expired()


def test_time_limit_while_a_lease_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler's `TimeoutError`, which is an `OSError`, is not taken for one of the file's."""
    take, stops = file_locks._lock, [True]

    def limit(*_: Any) -> None:
        raise TimeoutError

    def late(*arguments: int) -> None:
        take(*arguments)
        if stops and stops.pop():
            signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(file_locks, "_lock", late)
    with Cache(f"sqlite:///{tmp_path}/c.db", metrics=Metrics()) as cache, handled_by(limit):

        @content_cached(cache=cache, version=1)
        def double(number: int) -> int:
            return 2 * number

        cache.get("opened")
        stops[:] = [True]
        with pytest.raises(TimeoutError):
            double(1)
        assert double(1) == 2


STORM = """
import random, signal, sys, time
from memoleo import Cache, Metrics, content_cached

class Late(Exception):
    pass

def too_late(*_):
    raise Late

# An alarm in a finalizer can't be passed on by anybody: Python prints it.
sys.unraisablehook = lambda _: None
runs = []

cache = Cache("sqlite:///" + sys.argv[1], metrics=Metrics())
@content_cached(cache=cache, ttl="forever", version=1)
def double(number):
    runs.append(number)
    return [2 * number]

double(-1)
chance = random.Random(7)
lost = 0
signal.signal(signal.SIGALRM, too_late)
for number in range(600):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + chance.random() * 0.0006)
        assert double(number) == double(number) == [2 * number]
        time.sleep(0.05)
        lost += 1
    except Late:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
runs.clear()
expected = [[2 * number] for number in range(1000, 1100)]
for _ in range(2):
    assert [double(number) for number in range(1000, 1100)] == expected
assert runs == list(range(1000, 1100))
print(lost)
"""


def test_every_alarm_reaches_the_program(tmp_path: Path) -> None:
    """Alarms at random moments of calls that hit and miss a file: next to none is lost.

    Whatever comes back is right, and afterwards calls are cached as before. In a process of its
    own: what measures the tests would be interrupted as well, with its locks held.
    """
    done = subprocess.run(
        [sys.executable, "-c", STORM, (tmp_path / "c.db").as_posix()],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 30  # in finalizers, and between two instructions of ours


LOADING = """
import sys
from memoleo import Cache, content_cached

@content_cached(cache=Cache("memory://"), version=1)
def double(number):
    return 2 * number

inside = []

def handler(frame, event, argument):
    name = frame.f_globals.get("__name__", "")
    if event == "call" and frame.f_code.co_name == "<module>" and name.startswith("memoleo"):
        sys.setprofile(None)
        inside.append(double(len(inside)))
        sys.setprofile(handler)

sys.setprofile(handler)
first = double(100)
sys.setprofile(None)
assert (first, double(100)) == (200, 200)
assert inside and inside == [2 * number for number in range(len(inside))]
"""


def test_a_handler_may_call_while_a_first_call_loads_what_it_needs() -> None:
    """Modules that are half imported are no error: what a handler calls is run without a cache."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


FLIGHT = tuple(str(Path("_flow", name)) for name in ("drive.py", "singleflight.py", "turn.py"))


def test_a_result_that_is_never_stored_costs_no_look_for_handlers() -> None:
    """What failed in memoleo's own code alone takes few steps to tell from an alarm."""

    @content_cached(cache=Cache("memory://", metrics=Metrics()), version=1)
    def handle(number: int) -> object:
        return object()

    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    handle(1)
    sys.setprofile(count)
    handle(1)
    sys.setprofile(None)
    assert calls < 150


class Stop:
    """Raises `Late` before a line of the frames that are counted.

    Parameters
    ----------
    left
        how many lines come before it and with it; above 0 after a run that ended sooner
    counts
        whether a frame is counted
    """

    def __init__(self, left: int, counts: collections.abc.Callable[[FrameType, str], bool]) -> None:
        self.left = left
        self._counts = counts

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not self._counts(frame, event):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise Late
        return self._trace

    def __enter__(self) -> Stop:
        self._traced = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._traced)


def in_a_flight(frame: FrameType, event: str) -> bool:
    if not frame.f_code.co_filename.endswith(FLIGHT):
        return False
    # What stops a finalizer is printed, and nobody is left who could go on.
    return event != "call" or all(one.f_code.co_name != "__del__" for one, _ in walk_stack(frame))


def test_a_call_that_is_stopped_at_any_line_leaves_nothing_behind() -> None:
    """Wherever an exception comes between two lines: nobody waits for it, or gets what it left."""
    runs = []

    @content_cached(cache=(cache := Cache("memory://", metrics=Metrics())), version=1)
    def double(number: int) -> int:
        runs.append(number)
        return 2 * number

    double(-1)
    stops = 0
    for number in range(1000):
        found = None
        with suppress(Late), Stop(number + 1, in_a_flight) as stop:
            found = double(number)
        stops += stop.left <= 0
        assert found in (None, 2 * number)
        assert cache.calls.driver._flights._flights == {}
        cache.clear()
        before = len(runs)
        assert double(number) == 2 * number
        assert len(runs) == before + 1, "what was cleared came back"
        if stop.left > 0:
            break
    assert stops > 30


def test_a_byte_whose_locking_is_stopped_at_any_line_is_free(tmp_path: Path) -> None:
    """Also while the program keeps the exception, whose traceback keeps what the call had."""
    file = file_locks.open_lock_file(str(tmp_path / "locks"))
    code = file_locks.LockFile.acquire.__code__
    kept: list[BaseException] = []
    for number in range(100):
        stop = Stop(number + 1, lambda frame, event: frame.f_code is code)
        try:
            with stop:
                file.acquire(7)
        except Late as error:
            kept.append(error)
        again = file.acquire(7)
        assert again is not None
        again.release()
        if stop.left > 0:
            break
    assert len(kept) > 5
    file.close()


HIT = ("_entry.py", "<memoleo>")


@pytest.mark.parametrize("store", ["memory://", "sqlite:///c.db?memory=0"])
def test_an_alarm_while_a_hit_is_read_is_not_lost(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any line between finding an entry and handing out its value: it is raised, and no more."""
    monkeypatch.chdir(tmp_path)
    runs = []

    @content_cached(cache=Cache(store, metrics=Metrics()), ttl="forever", version=1)
    def double(number: int) -> list[int]:
        runs.append(number)
        return [2 * number]

    double(1)
    left = 0

    def ring_after(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(HIT):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGALRM)
        return ring_after

    traced = sys.gettrace()
    with handled_by(too_late):
        for line in range(1, 100):
            left = line
            sys.settrace(ring_after)
            try:
                assert double(1) == [2]
                rung = False
            except Late:
                rung = True
            finally:
                sys.settrace(traced)
            assert rung == (left <= 0)
            if left > 0:
                break
    assert line > 10
    assert runs == [1]


def by_requests(url: str) -> None:
    requests.post(f"{url}/api/generate", json={"model": "m", "prompt": "why?", "stream": False})


def by_ollama(url: str) -> None:
    with ollama.Client(url) as client:
        client.generate("m", "why?")


@pytest.mark.parametrize("ask", [by_requests, by_ollama])
def test_time_limit_holds_while_another_thread_is_asking(ask: Any) -> None:
    """A call that waits for another one's answer ends in time, and isn't sent after all."""
    with (
        ScriptedOllama() as server,
        memoleo.enable("requests", "ollama", rules=["ollama"], cache="memory://"),
    ):
        server.gate.clear()
        leader = threading.Thread(target=ask, args=(server.url,))
        leader.start()
        while not server.requests["/api/generate"]:
            time.sleep(0.005)
        with handled_by(too_late):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Late):
                ask(server.url)
        server.gate.set()
        leader.join()
        assert server.requests["/api/generate"] == 1
