"""Numbers of many processes on one cache: killed, terminated, forked, and read by another."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from math import floor
from pathlib import Path
from typing import Any

import pytest

from memoleo.metrics import read_metrics
from memoleo.metrics._ledger_file import LedgerFile

PROCESSES, THREADS, CALLS = 4, 4, 400
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")

PROLOGUE = """
import atexit, json, os, random, signal, sys, threading, time
from memoleo import Cache, content_cached, get_metrics, timed, timer
folder, number = sys.argv[1], int(sys.argv[2])
cache = Cache(f"sqlite:///{folder}/cache.db")
runs = os.open(f"{folder}/runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def durations(process, thread):
    source = random.Random(f"{process}-{thread}")
    return [source.lognormvariate(2, 2) for _ in range(CALLS)]

@content_cached(type="squares", cache=cache)
def square(text):
    os.write(runs, b".")
    return text * 2

def work(thread):
    metrics = get_metrics()
    for place, ms in enumerate(durations(number, thread)):
        metrics.record_latency("work", ms)
        if place % 10 == 0:
            metrics.record_error("work", ms * 2)
        square(f"{number}-{thread}-{place % 40}")

def work_in_threads():
    threads = [threading.Thread(target=work, args=(each,)) for each in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def say(word):
    print(word, flush=True)

def wait():
    # In short pieces: a signal that comes just before a sleep doesn't end it.
    for _ in range(6000):
        time.sleep(0.01)
""".replace("CALLS", str(CALLS)).replace("THREADS", str(THREADS))


def start(folder: Path, code: str, number: int = 0, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + code, str(folder), str(number)],
        env={**os.environ, "MEMOLEO_METRICS__INTERVAL": "3600", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def heard(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


def read(folder: Path) -> dict[str, Any]:
    """What another process sees, which is told nothing but the URL."""
    code = "import json, sys; from memoleo.metrics import read_metrics\n"
    code += "print(json.dumps(read_metrics(sys.argv[1], step='minute')))"
    ran = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{folder}/cache.db"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def true_durations(processes: int = PROCESSES) -> list[float]:
    values = []
    for process in range(processes):
        for thread in range(THREADS):
            source = random.Random(f"{process}-{thread}")
            values += [source.lognormvariate(2, 2) for _ in range(CALLS)]
    return sorted(values)


def runs(folder: Path) -> int:
    """How often the function ran: once a key, and again where a busy store refused a result."""
    return (folder / "runs").stat().st_size


def assert_exact(found: dict[str, Any], runs: int) -> None:
    true = true_durations()
    work = found["stats"]["work"]
    assert work["count"] == len(true)
    assert work["errors"] == len(true) / 10
    assert work["max_ms"] == true[-1]
    assert work["avg_ms"] == pytest.approx(sum(true) / len(true))
    for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        exact = true[floor(q * (len(true) - 1))]
        assert abs(work[name] - exact) <= exact * 0.01 * (1 + 1e-9)
    squares = found["stats"]["cache"]["squares"]
    assert squares["lookups"] == len(true)
    assert squares["misses"] == runs >= PROCESSES * THREADS * 40
    assert squares["hits"] == len(true) - runs
    assert sum(part["stats"]["work"]["count"] for part in found["series"]) == len(true)


@signals
def test_terminated_workers_lose_nothing(tmp_path):
    """4 × 4 workers that SIGTERM ends have written every count by then; a reader sees them all."""
    code = "work_in_threads(); say('done'); wait()"
    workers = [start(tmp_path, code, number) for number in range(PROCESSES)]
    for worker in workers:
        heard(worker, "done")
    for worker in workers:
        worker.terminate()
    assert [ended(worker) for worker in workers] == [-signal.SIGTERM] * PROCESSES
    assert_exact(read(tmp_path), runs(tmp_path))


def test_workers_that_end_by_themselves_lose_nothing(tmp_path):
    """Counts add up exactly when processes end: by return, by sys.exit, by an exception."""
    ends = ["", "sys.exit(3)", "sys.exit()", "say('done')"]
    workers = [
        start(tmp_path, f"work_in_threads(); {end}", number) for number, end in enumerate(ends)
    ]
    assert [ended(worker) for worker in workers] == [0, 3, 0, 0]
    assert_exact(read(tmp_path), runs(tmp_path))


@signals
def test_a_killed_worker_loses_its_last_interval_at_most(tmp_path):
    """What was flushed before SIGKILL is there, whole; what came after it is not, in no part."""
    code = """
work_in_threads()
get_metrics().flush()
say("flushed")
sys.stdin.readline()
work_in_threads()
say("done")
wait()
"""
    workers = [start(tmp_path, code, number) for number in range(PROCESSES)]
    for worker in workers:
        heard(worker, "flushed")
    flushed = runs(tmp_path)
    assert_exact(read(tmp_path), flushed)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        heard(worker, "done")
        worker.kill()
    assert [ended(worker) for worker in workers] == [-signal.SIGKILL] * PROCESSES
    assert_exact(read(tmp_path), flushed)


@signals
def test_flushed_in_the_background_before_a_kill(tmp_path):
    """Numbers get to the file within an interval, without anybody's doing."""
    code = "work_in_threads(); say('done'); wait()"
    workers = [
        start(tmp_path, code, number, MEMOLEO_METRICS__INTERVAL="0.1")
        for number in range(PROCESSES)
    ]
    for worker in workers:
        heard(worker, "done")
    url = f"sqlite:///{tmp_path}/cache.db"
    deadline = time.monotonic() + 30
    while True:
        stats = read_metrics(url)["stats"]
        if stats.get("work", {}).get("count") == len(true_durations()):
            break
        assert time.monotonic() < deadline, stats
        time.sleep(0.02)
    for worker in workers:
        worker.kill()
        ended(worker)
    assert_exact(read(tmp_path), runs(tmp_path))


@signals
def test_terminated_under_load(tmp_path):
    """SIGTERM in the midst of everything: the process ends by it, and what is kept is whole."""
    code = """
def forever(thread):
    while True:
        work(thread)
for each in range(THREADS):
    threading.Thread(target=forever, args=(each,), daemon=True).start()
say("busy")
wait()
""".replace("THREADS", str(THREADS))
    workers = [
        start(tmp_path, code, number, MEMOLEO_METRICS__INTERVAL="0.05")
        for number in range(PROCESSES)
    ]
    for worker in workers:
        heard(worker, "busy")
    source = random.Random(3)
    for place, worker in enumerate(workers):
        time.sleep(source.uniform(0.0, 0.1))
        worker.send_signal(signal.SIGKILL if place % 2 else signal.SIGTERM)
    expected = [-signal.SIGTERM, -signal.SIGKILL] * (PROCESSES // 2)
    assert [ended(worker) for worker in workers] == expected
    work = read(tmp_path)["stats"]["work"]
    assert work["count"] > 0
    connection = sqlite3.connect(tmp_path / "cache.db.metrics")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@signals
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL)", -signal.SIGTERM),
        (
            "before = signal.getsignal(signal.SIGTERM)\n"
            "def handler(*arguments):\n"
            "    if callable(before): before(*arguments)\n"
            "    sys.exit(8)\n"
            "signal.signal(signal.SIGTERM, handler)",
            8,
        ),
    ],
    ids=["own", "default", "chained"],
)
def test_handlers_of_the_program_decide(tmp_path, code, status):
    """A handler that the program sets, and one that calls the handler before it, work as ever."""
    worker = start(tmp_path, f"work(0)\n{code}\nsay('ready')\nwait()")
    heard(worker, "ready")
    worker.terminate()
    assert ended(worker) == status
    if status > 0:
        assert read(tmp_path)["stats"]["work"]["count"] == CALLS


@signals
def test_a_handler_set_before_is_left_alone(tmp_path):
    """Nobody's handler is replaced, and an ignored signal stays ignored."""
    code = """
for handler in (signal.SIG_IGN, lambda *_: None):
    signal.signal(signal.SIGTERM, handler)
    work(0)
    Cache(f"sqlite:///{folder}/other.db").set("a", 1)
    assert signal.getsignal(signal.SIGTERM) is handler
say("same")
"""
    early = PROLOGUE.replace(
        "folder, number", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfolder, number", 1
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", early + code, str(tmp_path), "0"],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    heard(worker, "same")
    assert ended(worker) == 0


@signals
@forks
def test_forked_children_add_up(tmp_path):
    """Parents and children that fork, by os.fork and by multiprocessing, count each call once."""
    code = """
import warnings
warnings.simplefilter("error")  # a thread of ours must not make a fork suspicious
import multiprocessing
work(0)
pid = os.fork()
if pid == 0:
    work(1)
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
work(2)
process = multiprocessing.get_context("fork").Process(target=work, args=(3,))
process.start()
process.join()
assert process.exitcode == 0
"""
    worker = start(tmp_path, code)
    assert ended(worker) == 0
    found = read(tmp_path)["stats"]
    assert found["work"]["count"] == 4 * CALLS
    assert found["cache"]["squares"]["lookups"] == 4 * CALLS
    assert found["cache"]["squares"]["misses"] == 4 * 40


@forks
@signals
def test_a_forked_child_that_is_terminated(tmp_path):
    """A child that counts nothing but hits in memory is written down too when SIGTERM ends it."""
    code = """
work(0)
pid = os.fork()
if pid == 0:
    work(0)
    say("done")
    wait()
sys.stdin.readline()
os.kill(pid, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
"""
    worker = start(tmp_path, code)
    heard(worker, "done")
    worker.communicate("\n", timeout=60)
    assert worker.returncode == 0
    squares = read(tmp_path)["stats"]["cache"]["squares"]
    assert (squares["lookups"], squares["misses"]) == (2 * CALLS, 40)


MAIN = """
import concurrent.futures, multiprocessing, sys
from memoleo import Cache, content_cached, timed

cache = Cache(f"sqlite:///{sys.argv[1]}/cache.db")

@timed("work")
@content_cached(type="squares", cache=cache)
def square(number):
    return number * number

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert sum(pool.map(square, [3] * 20)) == 180
    with context.Pool(2) as pool:
        assert sum(pool.map(square, [4] * 20)) == 320
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes(tmp_path, method):
    """Workers of both kinds of pools hand in their counts, however they were started."""
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = tmp_path / "main.py"
    script.write_text(MAIN)
    subprocess.run(
        [sys.executable, str(script), str(tmp_path), method],
        env={**os.environ, "MEMOLEO_METRICS__INTERVAL": "3600"},
        check=True,
        timeout=60,
    )
    found = read(tmp_path)["stats"]
    assert found["work"]["count"] == 40
    assert found["cache"]["squares"]["lookups"] == 40


COMPUTING = """
import itertools, multiprocessing, sys
from memoleo import Cache, content_cached

cache = Cache(f"sqlite:///{sys.argv[1]}/cache.db")

@content_cached(cache=cache)
def square(number):
    return number * number

def compute(begun):
    square(3)
    begun.set()
    sum(itertools.repeat(1, 10**11))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    if sys.argv[3] == "used":
        square(2)
    begun = context.Event()
    child = context.Process(target=compute, args=(begun,))
    child.start()
    assert begun.wait(60)
    child.terminate()
    child.join(10)
    print(child.exitcode)
    child.kill()
"""


@signals
@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_is_terminated_at_once(tmp_path, method, used):
    """Whatever it does: its parent waits for that, and nothing of ours holds it up."""
    script = tmp_path / "main.py"
    script.write_text(COMPUTING)
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path), method, used],
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert (ran.stdout, ran.stderr) == (f"{-signal.SIGTERM}\n", "")


@signals
@forks
def test_a_child_that_is_terminated_before_it_runs(tmp_path):
    """A signal that comes right after the fork ends the child, as it does without memoleo."""
    code = """
work(0)
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        time.sleep(20)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
"""
    assert ended(start(tmp_path, code)) == 0


def test_many_begin_at_once(tmp_path):
    """Processes that make the file at the same moment neither lose a count nor refuse it."""
    code = """
from memoleo.metrics._ledger_file import LedgerFile
from memoleo.metrics._spans import minute_of
from memoleo.metrics._totals import Totals
totals = Totals()
totals.types["songs"] = {"hits": 1}
say("ready")
sys.stdin.readline()
for round in range(10):
    LedgerFile(f"{folder}/{round}.metrics").add({minute_of(time.time()): totals}, time.time(), 20.0)
"""
    workers = [start(tmp_path, code) for _ in range(6)]
    for worker in workers:
        heard(worker, "ready")
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert [ended(worker) for worker in workers] == [0] * 6
    for turn in range(10):
        parts = LedgerFile(f"{tmp_path}/{turn}.metrics").read(float("-inf"), float("inf"))
        assert sum(totals.types["songs"]["hits"] for _, totals in parts) == 6


def test_a_program_that_only_times(tmp_path):
    """Operations of a program that uses no cache are kept beside the default one."""
    code = "from memoleo import timed\n@timed('alone')\ndef f(): pass\nf(), f()"
    environment = {**os.environ, "MEMOLEO_CACHE": f"sqlite:///{tmp_path}/new/cache.db"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert os.listdir(tmp_path / "new") == ["cache.db.metrics"]
    found = read_metrics(f"sqlite:///{tmp_path}/new/cache.db")
    assert found["stats"]["alone"]["count"] == 2


@pytest.mark.parametrize(
    "setting", [{"MEMOLEO_METRICS__PERSIST": "false"}, {"MEMOLEO_ENABLED": "0"}]
)
def test_switched_off(tmp_path, setting):
    """Nothing is written where the settings say so."""
    worker = start(tmp_path, "work(0)", **setting)
    assert ended(worker) == 0
    assert not list(tmp_path.glob("*.metrics*"))


@forks
def test_a_fork_waits_for_who_is_writing(tmp_path):
    """A fork begins when no thread is inside SQLite, so that the child can use it at once."""
    code = """
from memoleo.metrics._ledger_file import LedgerFile, _gate
inside = threading.Event()

def write():
    with _gate.passed(30):
        inside.set()
        while not _gate._forking:
            time.sleep(0.001)

threading.Thread(target=write).start()
inside.wait(30)
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    work(0)
    get_metrics().flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
work(1)
"""
    worker = start(tmp_path, code)
    assert ended(worker) == 0
    assert read(tmp_path)["stats"]["work"]["count"] == 2 * CALLS
