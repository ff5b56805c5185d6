"""Many processes on one file: killed, forked, racing, holding leases."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memoleo._entry import Entry
from memoleo.backends._sqlite_leases import Leases
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.errors import BackendError

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
KEY = b"k" * 32
DATA = Path(__file__).parent.parent / "data"

PROLOGUE = """
import atexit, os, signal, sys, threading, time
from memoleo._entry import Entry
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.errors import BackendError
# A child ends within a second after its test, also if that was killed.
if hasattr(signal, "setitimer"):
    def watch(*_, parent=os.getppid()):
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGALRM, watch)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    # The interpreter takes its handlers down before it ends: a late alarm would kill it.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
KEY = b"k" * 32
path = sys.argv[1]
def entry(key, payload=None):
    return Entry(payload or key * 50, "test", time.time(), 3600.0)
def patiently(action, *arguments):
    for _ in range(200):
        try:
            return action(*arguments)
        except BackendError:
            time.sleep(0.01)
    return action(*arguments)
"""


def entry(key: bytes) -> Entry:
    return Entry(key * 50, "test", time.time(), 3600.0)


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    """End what a test that failed has left running."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def start(code: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def test_killed_while_writing_fifty_times(tmp_path: Path) -> None:
    """After each SIGKILL in the middle of writing, nothing is wrong and nothing is in the way."""
    path = tmp_path / "store.db"
    writer = """
backend = SQLiteBackend(path, max_bytes=3_000_000)
print("ready", flush=True)
number = int.from_bytes(os.urandom(3), "big")
while True:
    key = (number := number + 1).to_bytes(32, "big")
    backend.set(key, entry(key, key * (number % 700 + 1)))
    if number % 7 == 0:
        backend.delete(key)
    if number % 50 == 0:
        backend.clear(before=time.time() - 1)
"""
    chance = random.Random(11)
    reader = SQLiteBackend(path)
    processes = [start(writer, path) for _ in range(2)]
    for _ in range(50):
        victim = processes.pop(0)
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.01))
        victim.kill()
        processes.append(start(writer, path))
        for key, found in reader.entries():
            number = int.from_bytes(key, "big")
            assert found.payload == key * (number % 700 + 1)
        victim.communicate()
    for process in processes:
        process.kill()
        process.communicate()
    reader.set(KEY, entry(KEY))
    assert reader.get(KEY) is not None
    assert reader.check()["intact"]
    assert reader.stats().entries == len(list(reader.entries()))
    reader.close()


def test_four_processes_of_two_threads(tmp_path: Path) -> None:
    """Eight threads in four processes create one store at once and lose nothing."""
    path = tmp_path / "store.db"
    worker = """
backend = SQLiteBackend(path)
sys.stdin.readline()
part = int(sys.argv[2]) if len(sys.argv) > 2 else os.getpid()
def work(which):
    for number in range(60):
        key = f"{part}-{which}-{number}".encode().ljust(32)
        patiently(backend.set, key, entry(key))
        found = backend.get(key)
        assert found is not None and found.payload == key * 50, (key, found)
        patiently(backend.set, KEY, entry(KEY))
        found = backend.get(KEY)
        assert found is not None and found.payload == KEY * 50
failures = []
threading.excepthook = lambda details: failures.append(details)
threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
backend.close()
assert not failures, failures
"""
    processes = [start(worker, path) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        finish(process)
    backend = SQLiteBackend(path)
    assert backend.stats().entries == len(list(backend.entries())) == 4 * 2 * 60 + 1
    assert backend.check()["intact"]
    assert not list(tmp_path.glob("*.corrupt-*"))
    backend.close()


def test_many_processes_create_the_file(tmp_path: Path) -> None:
    """Processes that open a store that isn't there yet wait for one another, and all succeed.

    Where a disk is slow, one that ends holds the file for longer than the others wait.
    """
    creator = """
sys.stdin.readline()
key = sys.argv[1].encode() + str(os.getpid()).encode()
patiently(SQLiteBackend(path).set, key, entry(KEY))
"""
    for attempt in range(3):
        path = tmp_path / str(attempt) / "store.db"
        processes = [start(creator, path) for _ in range(6)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            finish(process)
        backend = SQLiteBackend(path)
        assert backend.stats().entries == 6
        backend.close()


def test_whoever_created_the_file_ended_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was locked until a moment ago is opened at the first attempt."""
    path = tmp_path / "store.db"
    creating = sqlite3.connect(path, isolation_level=None)
    creating.execute("BEGIN EXCLUSIVE")
    whole_file = Leases.whole_file

    def ended(self: Leases, *patience: float, **named: float) -> Any:
        creating.close()
        return whole_file(self, *patience, **named)

    backend = SQLiteBackend(path)
    monkeypatch.setattr(Leases, "whole_file", ended)
    backend.set(KEY, entry(KEY))
    assert backend.get(KEY) is not None
    backend.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("name", ["format1", "format2"])
def test_an_older_file_is_rewritten_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    """Processes that are killed while they rewrite it lose nothing; those that race all read it."""
    path = tmp_path / "store.db"
    shutil.copy(DATA / f"{name}.sqlite", path)
    opener = """
from memoleo.backends import _sqlite_schema as schema
original, seen = schema.hash_of, []
def killing(key):
    seen.append(key)
    if len(seen) == int(sys.stdin.readline()):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(key)
schema.hash_of = killing
SQLiteBackend(path).get(KEY)
"""
    for row in (1, 10, 20):
        victim = start(opener, path)
        _, errors = victim.communicate(f"{row}\n" * 20, timeout=60)
        assert victim.returncode == -signal.SIGKILL, errors
    reader = """
sys.stdin.readline()
backend = SQLiteBackend(path)
print(patiently(backend.get, (7).to_bytes(32, "big")).tokens, backend.stats().entries)
"""
    racing = [start(reader, path) for _ in range(4)]
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [finish(process) for process in racing] == ["7 20\n"] * 4
    backend = SQLiteBackend(path)
    assert backend.check()["intact"]
    assert backend.clear(tag="Ü") == 10
    assert backend.stats().entries == 10
    backend.close()


def test_a_lease_dies_with_its_owner(tmp_path: Path) -> None:
    """Another process can't lease the key while the owner lives, and can once it is killed."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    owner = start(
        "backend = SQLiteBackend(path)\n"
        "lease = backend.lease(KEY)\n"
        "print(lease is not None, flush=True)\n"
        "time.sleep(60)\n",
        path,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    assert backend.lease(KEY) is None
    other = backend.lease(b"other")
    assert other is not None
    other.release()
    assert backend.lease(KEY) is None
    owner.kill()
    owner.communicate()
    lease = backend.lease(KEY)
    assert lease is not None
    lease.release()
    backend.close()


@forks
def test_a_lease_dies_with_its_owner_though_a_child_lives_on(tmp_path: Path) -> None:
    """A child that was forked while its parent held a lease doesn't hold it, and can't free it."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    owner = start(
        "backend = SQLiteBackend(path)\n"
        "lease = backend.lease(KEY)\n"
        "assert lease is not None\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    free = backend.lease(KEY)\n"
        "    lease.release()\n"
        "    print(free is None, os.getpid(), flush=True)\n"
        "time.sleep(60)\n",
        path,
    )
    assert owner.stdout is not None
    answer, child = owner.stdout.readline().split()
    assert answer == "True"
    assert backend.lease(KEY) is None
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    lease = backend.lease(KEY)
    os.kill(int(child), signal.SIGKILL)
    owner.communicate()
    assert lease is not None
    lease.release()
    backend.close()


def test_two_objects_of_one_process_exclude_one_another(tmp_path: Path) -> None:
    """Closing one of them doesn't free what the other holds, as POSIX locks by themselves would."""
    path = tmp_path / "store.db"
    first, second = SQLiteBackend(path), SQLiteBackend(path)
    lease = first.lease(KEY)
    assert lease is not None
    assert second.lease(KEY) is None
    second.close()
    asked = start("print(SQLiteBackend(path).lease(KEY))", path)
    assert finish(asked) == "None\n"
    first.close()
    asked = start("print(SQLiteBackend(path).lease(KEY))", path)
    assert finish(asked) == "None\n"
    lease.release()
    asked = start("print(SQLiteBackend(path).lease(KEY) is not None)", path)
    assert finish(asked) == "True\n"


@forks
def test_fork_while_other_threads_are_inside(tmp_path: Path) -> None:
    """Children that are forked while threads read and write can use the store at once."""
    code = """
import warnings
warnings.simplefilter("ignore")
backend = SQLiteBackend(path)
tiered = TieredBackend(MemoryBackend(max_entries=50), backend)
over = threading.Event()
def churn(which):
    number = 0
    while not over.is_set():
        number += 1
        key = f"{which}-{number % 100}".encode().ljust(32)
        patiently(tiered.set, key, entry(key))
        found = backend.get(key)
        assert found is None or found.payload == key * 50
failures = []
threading.excepthook = lambda details: failures.append(details)
threads = [threading.Thread(target=churn, args=(which,)) for which in range(3)]
for thread in threads: thread.start()
backend.set(KEY, entry(KEY))
children = []
for number in range(20):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        status = 1
        try:
            assert tiered.get(KEY).payload == KEY * 50
            key = f"child-{number}".encode().ljust(32)
            patiently(tiered.set, key, entry(key))
            assert backend.get(key).payload == key * 50
            lease = backend.lease(key)
            lease.release()
            if number % 2:
                backend.close()
            status = 0
        finally:
            if number % 3 == 0 and status == 0:
                sys.exit(0)
            os._exit(status)
    children.append(child)
    time.sleep(0.005)
statuses = [os.waitpid(child, 0)[1] for child in children]
over.set()
for thread in threads: thread.join()
assert not failures, failures
assert statuses == [0] * 20, statuses
assert all(backend.get(f"child-{number}".encode().ljust(32)) for number in range(20))
assert backend.check()["intact"]
print("fine")
"""
    process = start(code, tmp_path / "store.db")
    assert finish(process) == "fine\n"


@forks
def test_a_child_leaves_the_connections_of_its_parent_alone(tmp_path: Path) -> None:
    """The child opens its own, and a child that ends normally takes nothing from its parent."""
    code = """
backend = SQLiteBackend(path)
backend.set(KEY, entry(KEY))
mine = backend._connections.link()
child = os.fork()
if child == 0:
    assert backend._connections.link() is not mine
    assert backend.get(KEY) is not None
    backend.set(b"child", entry(b"child"))
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert backend._connections.link() is mine
assert backend.get(b"child") is not None
backend.set(b"parent", entry(b"parent"))
assert os.path.exists(path + "-wal")
print(backend.check()["intact"])
"""
    assert finish(start(code, tmp_path / "store.db")) == "True\n"


def test_another_process_removes_what_is_in_memory(tmp_path: Path) -> None:
    """Memory before a shared file forgets within a moment what another process removed."""
    path = tmp_path / "store.db"
    now = [time.time()]
    tiered = TieredBackend(MemoryBackend(), SQLiteBackend(path), clock=lambda: now[0])
    for action in ("delete(KEY)", "clear()", "set(KEY, entry(KEY, b'newer'))"):
        tiered.set(KEY, Entry(b"old", "test", now[0], 1e9))
        assert tiered.get(KEY) is not None
        finish(start(f"SQLiteBackend(path).{action}", path))
        now[0] += 0.3
        found = tiered.get(KEY)
        assert found is None or found.payload == b"newer"
    tiered.close()


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Threads that ended, and the end of the program, leave no connection open behind."""
    code = """
import warnings
warnings.simplefilter("error")
import sqlite3, gc
backend = SQLiteBackend(path)
backend.set(KEY, entry(KEY))
for _ in range(20):
    thread = threading.Thread(target=backend.get, args=(KEY,))
    thread.start()
    thread.join()
assert len(list(backend._connections._links)) == 1
descriptors = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
assert len(descriptors) < 20, descriptors
"""
    process = start(code, tmp_path / "store.db")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert not (tmp_path / "store.db-wal").exists()


def test_close_while_other_threads_use_it(tmp_path: Path) -> None:
    """Closing from another thread breaks no call that is just being made."""
    backend = SQLiteBackend(tmp_path / "store.db")
    backend.set(KEY, entry(KEY))
    failures: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                found = backend.get(KEY)
                assert found is not None
                assert found.payload == KEY * 50
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        backend.close()
        assert backend.get(KEY) is not None
    over.set()
    for thread in threads:
        thread.join()
    backend.close()
    assert failures == []


def test_a_clear_lets_others_write(tmp_path: Path) -> None:
    """While one process clears a large store, another's writes go on."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    connection = sqlite3.connect(path)
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
        "INSERT INTO entries (hash, key, type, label, created, expires, used, block) "
        "SELECT random(), randomblob(32), 'bulk', '', 1, 2, 3, zeroblob(200) FROM n"
    )
    connection.commit()
    connection.close()
    clearing = threading.Thread(target=backend.clear, kwargs={"type": "bulk"})
    other = SQLiteBackend(path)
    stored = 0
    clearing.start()
    while clearing.is_alive():
        # On a busy machine one of its steps may take longer than a write waits.
        with contextlib.suppress(BackendError):
            other.set(b"during", entry(b"during"))
            stored += 1
    clearing.join()
    assert stored > 2
    assert backend.stats().entries == 2
    backend.close()
    other.close()
