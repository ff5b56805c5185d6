"""Whatever happens to the store, the user's function returns the right answer."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memoleo import Cache, Metrics, content_cached

posix = pytest.mark.skipif(os.name == "nt", reason="a matter of POSIX")

CALLS = 40


def answer(x: int) -> dict[str, Any]:
    return {"x": x, "text": f"answer {x} " * 20, "pair": (x, str(x))}


def run(path: Path, **options: Any) -> list[int]:
    """Ask for every answer twice through a fresh cache; return what was computed."""
    computed: list[int] = []
    with Cache(f"sqlite:///{path}?memory=0", metrics=Metrics(), **options) as cache:

        @content_cached(cache=cache, version=1)
        def ask(x: int) -> dict[str, Any]:
            computed.append(x)
            return answer(x)

        for _ in range(2):
            for x in range(CALLS):
                assert ask(x) == answer(x)
    return computed


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_bits(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 97):
        data[place] ^= 1 << place % 8
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pretend_a_newer_schema(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def drop_a_column(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE entries RENAME TO other")
    connection.close()


def plant_pickles(path: Path) -> None:
    """Put a pickle that would run a command where the values are."""

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {path}.exploded",)

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET block = ?", (pickle.dumps(Bomb()),))
    connection.close()


def swap_values(path: Path) -> None:
    """Give each key the value of another: whole, but not its own."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT rowid, block FROM entries ORDER BY rowid").fetchall()
        for (rowid, _), (_, payload) in zip(rows, rows[1:] + rows[:1], strict=True):
            connection.execute("UPDATE entries SET block = ? WHERE rowid = ?", (payload, rowid))
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        fill_with_garbage,
        empty,
        flip_bits,
        delete,
        make_a_folder,
        pretend_a_newer_schema,
        drop_a_column,
        plant_pickles,
        swap_values,
    ],
)
def test_damaged_file(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A file that was damaged while nobody used it gives no error and no wrong value."""
    path = tmp_path / "cache.db"
    assert run(path) == list(range(CALLS))
    damage(path)
    run(path)
    assert not Path(f"{path}.exploded").exists()


@pytest.mark.parametrize(
    "damage", [truncate, fill_with_garbage, flip_bits, delete, plant_pickles, swap_values]
)
def test_file_damaged_while_open(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A file that is damaged under an open cache gives no error and no wrong value."""
    path = tmp_path / "cache.db"
    with Cache(f"sqlite:///{path}?memory=0", metrics=Metrics()) as cache:
        ask = content_cached(cache=cache, version=1)(answer)
        for _ in range(3):
            for x in range(CALLS):
                assert ask(x) == answer(x)
            if path.exists():
                damage(path)
    assert not Path(f"{path}.exploded").exists()


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"BEGIN {sys.argv[2]}")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("warm", [True, False])
def test_lock_held_elsewhere(tmp_path: Path, kind: str, warm: bool) -> None:
    """Calls go on while another process holds the file's lock for as long as it likes."""
    path = tmp_path / "cache.db"
    run(path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with Cache(f"sqlite:///{path}?memory=0", metrics=Metrics()) as cache:
            ask = content_cached(cache=cache, version=1)(answer)
            for x in range(5) if warm else range(1000, 1005):
                assert ask(x) == answer(x)
        assert holder.poll() is None, "the lock was given up, so this proves nothing"
    finally:
        holder.communicate("\n", timeout=30)
    assert run(path) == []


CHILD = """
import json, os, sys, tempfile
from memoleo import Cache, Metrics, content_cached
# What is imported on first use may lie where the other user can't read.
with tempfile.TemporaryDirectory() as folder, Cache(f"sqlite:///{folder}/a.db") as first:
    content_cached(cache=first, version=1)(len)([])
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
cache = Cache(f"sqlite:///{sys.argv[1]}?memory=0", metrics=Metrics())
calls = []

@content_cached(cache=cache, version=1)
def ask(x):
    calls.append(x)
    return [x]

answers = [ask(x)[0] for x in list(range(5)) * 2]
print(json.dumps([answers, calls]))
"""


def ask_without_privileges(path: Path) -> tuple[list[int], list[int]]:
    """Run the calls as a user who may only read what this one owns."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers, calls = json.loads(done.stdout)
    return answers, calls


@posix
@pytest.mark.parametrize("what", ["file", "folder", "both"])
def test_read_only(what: str) -> None:
    """A store that can't be written serves what it has, and calls whose answers it lacks run."""
    import tempfile

    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        path = folder / "cache.db"
        with Cache(f"sqlite:///{path}", metrics=Metrics()) as cache:
            content_cached(cache=cache, version=1)(answer)(0)
        for file in folder.iterdir():
            os.chmod(file, 0o444 if what != "folder" else 0o666)
        os.chmod(folder, 0o555 if what != "file" else 0o777)
        answers, calls = ask_without_privileges(path)
        assert answers == [0, 1, 2, 3, 4] * 2
        assert set(calls) == {0, 1, 2, 3, 4}
        os.chmod(folder, 0o755)


@posix
def test_dangling_symlink_in_a_shared_folder(tmp_path: Path) -> None:
    """A link that somebody planted is not followed; the calls run."""
    target = tmp_path / "victim"
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o1777)
    (shared / "cache.db").symlink_to(target)
    run(shared / "cache.db")
    assert not target.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only a privileged user may mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is a file system of Linux")
@pytest.mark.parametrize("when", ["before", "during", "then freed"])
def test_full_disk(small_disk: Path, when: str) -> None:
    """A full disk costs the entries, not the answers."""
    filler = small_disk / "filler"

    def fill() -> None:
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                pass

    if when == "before":
        fill()
    with Cache(f"sqlite:///{small_disk}/cache.db?memory=0", metrics=Metrics()) as cache:
        ask = content_cached(cache=cache, version=1)(answer)
        for x in range(CALLS):
            assert ask(x) == answer(x)
            if x == 10 and when != "before":
                fill()
        for x in range(CALLS):
            assert ask(x) == answer(x)
        if when == "then freed":
            filler.unlink()
            cache.close()
            ask(1)
            assert ask.cache_info().hits > 0


KILLING = """
import os, signal, sys
from memoleo import Cache, Metrics, content_cached

def answer(x):
    return {"x": x, "text": f"answer {x} " * 20, "pair": (x, str(x))}

def opened():
    cache = Cache(f"sqlite:///{sys.argv[1]}?memory=0", metrics=Metrics())
    return content_cached(cache=cache, version=1)(answer)

for round in range(50):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        ask = opened()
        for x in range(round * 3, 1_000_000):
            assert ask(x) == answer(x)
            os.write(writing, b".")
    for _ in range(5 + round % 7):
        os.read(reading, 1)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(reading), os.close(writing)
ask = opened()
print(all(ask(x) == answer(x) for x in range(155)), ask.cache_info().misses)
"""


@posix
def test_killed_while_writing(tmp_path: Path) -> None:
    """Fifty kills in the middle of writing leave no error, no wrong value and no loss."""
    path = tmp_path / "cache.db"
    done = subprocess.run(
        [sys.executable, "-c", KILLING, str(path)], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("True 0\n", "")
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


FORKING = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from memoleo import Cache, Metrics, content_cached
cache = Cache(f"sqlite:///{sys.argv[1]}", metrics=Metrics())
entered, leave = threading.Event(), threading.Event()

@content_cached(cache=cache, version=1)
def ask(x):
    if x == "slow" and not entered.is_set():
        entered.set()
        leave.wait(60)
    return [x]

def busy():
    number = 0
    while not leave.is_set():
        ask(number)
        number += 1

ask("warm")
threads = [threading.Thread(target=ask, args=("slow",)), threading.Thread(target=busy)]
for thread in threads:
    thread.start()
entered.wait(60)
children = []
for _ in range(20):
    child = os.fork()
    if not child:
        right = ask("warm") == ["warm"] and ask("new") == ["new"]
        os._exit(0 if right else 1)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
leave.set()
for thread in threads:
    thread.join()
print(statuses == [0] * 20 and ask("slow") == ["slow"])
"""


FORKING_IN_AN_IMPORT = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
from memoleo import Cache, content_cached

@content_cached(cache=Cache("sqlite:///" + sys.argv[1]))
def double(x):
    return 2 * x

inside, forking = threading.Event(), threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "memoleo.keys._source":
            inside.set()
            forking.wait(30)

sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=double, args=(1,))
thread.start()
inside.wait(30)
os.register_at_fork(before=forking.set)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if double(1) == 2 else 1)
thread.join()
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_fork_while_another_thread_imports(tmp_path: Path) -> None:
    """A child made while a first call imports what it needs can make its own first call."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING_IN_AN_IMPORT, str(tmp_path / "cache.db")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


FORKING_TOGETHER = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
sys.setswitchinterval(1000)  # a thread goes on until it waits for something
from memoleo import Cache, content_cached

@content_cached(cache=Cache("sqlite:///" + sys.argv[1]))
def double(x):
    return 2 * x

inside, forking = threading.Event(), threading.Barrier(3)

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "memoleo.keys._source":
            inside.set()
            forking.wait(30)

def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if double(1) == 2 else 1)
    statuses.append(os.waitpid(child, 0)[1])

statuses = []
sys.meta_path.insert(0, Slow())
first = threading.Thread(target=double, args=(1,))
first.start()
inside.wait(30)
os.register_at_fork(before=lambda: forking.wait(30))
threads = [first, *(threading.Thread(target=fork) for _ in range(2))]
for thread in threads[1:]:
    thread.start()
for thread in threads:
    thread.join()
print(statuses, double(1))
"""

FORKING_IMPATIENTLY = """
import os, signal, threading, warnings
warnings.simplefilter("ignore")
at_the_fork, forked = threading.Event(), threading.Event()

def before():
    if threading.current_thread() is slow:
        at_the_fork.set()
        forked.wait(30)

os.register_at_fork(before=before)  # ahead of memoleo's, so called after it
from memoleo._platform import importing
importing._PATIENCE = 0.05

def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with importing.importing:
            os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])

statuses = []
slow, hasty = threading.Thread(target=fork), threading.Thread(target=fork)
slow.start()
at_the_fork.wait(30)
hasty.start()
hasty.join()
forked.set()
slow.join()
signal.alarm(20)
with importing.importing:
    print(statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_two_forks_while_another_thread_imports(tmp_path: Path) -> None:
    """Both wait for the import: their children, and the parent, go on with what it brought."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING_TOGETHER, str(tmp_path / "cache.db")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("[0, 0] 2\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_fork_that_waits_no_longer_for_another() -> None:
    """One that gave up waiting opens no lock of the other's, which opens its own in the end."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING_IMPATIENTLY], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 0]\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_fork_while_another_thread_is_inside(tmp_path: Path) -> None:
    """Children made in the middle of calls and writes neither hang nor answer wrongly."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "cache.db")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


CROWD = """
import sys, threading
from memoleo import Cache, Metrics, content_cached
cache = Cache(f"sqlite:///{sys.argv[1]}", metrics=Metrics())

@content_cached(cache=cache, version=1)
def ask(x):
    return {"x": x, "text": f"answer {x} " * 20}

wrong = []

def work():
    for x in list(range(300)) * 2:
        if ask(x) != {"x": x, "text": f"answer {x} " * 20}:
            wrong.append(x)

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(wrong)
"""


def test_four_processes_with_two_threads_each(tmp_path: Path) -> None:
    """Eight writers on one file: no error, no wrong value, nothing locked."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(tmp_path / "cache.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [one.communicate(timeout=120) for one in crowd] == [("[]\n", "")] * 4


def test_hooks_and_threads_survive_a_store_that_fails_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A spell of failures is logged once when it begins and once when it ends."""
    from memoleo.backends import MemoryBackend

    class Moody(MemoryBackend):
        broken = False

        def get(self, key: bytes) -> Any:
            if self.broken:
                raise OSError("the disk is gone")
            return super().get(key)

    backend = Moody()
    cache = Cache(backend=backend, metrics=Metrics())
    ask = content_cached("t", cache=cache, version=1)(answer)
    # Without the hot path, which looks into memory itself.
    keys = [f"k{number}" for number in range(10)]
    backend.broken = True
    for key in keys:
        assert cache.get_or_compute(key, lambda: 1, type="t") == 1
    backend.broken = False
    for key in keys:
        assert cache.get_or_compute(key, lambda: 1, type="t") == 1
    assert ask(1) == answer(1)
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if "the disk is gone" in message]) == 1
    assert len([message for message in messages if "works again" in message]) == 1
    assert cache.metrics.get_stats()["cache"]["t"]["failures"] > 5
