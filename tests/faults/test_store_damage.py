"""Damaged files: a cache on them gives no wrong value, and works again at once."""

from __future__ import annotations

import os
import pickle
import random
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from memoleo._entry import Entry
from memoleo.backends._sqlite_faults import classify
from memoleo.backends._sqlite_schema import hash_of
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.errors import BackendError, CorruptEntry


def entry(key: bytes, payload: bytes | None = None) -> Entry:
    return Entry(payload or key * 20, "test", time.time(), 3600.0)


def keys(count: int) -> list[bytes]:
    return [number.to_bytes(32, "little") for number in range(1, count + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of 100 entries, closed and written out to one file."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    for key in keys(100):
        backend.set(key, entry(key))
    backend.close()
    assert not path.with_name("store.db-wal").exists()
    return path


def use(path: Path) -> int:
    """Read everything as a cache does, then store; how many entries were found."""
    backend = SQLiteBackend(path)
    found = 0
    for key in keys(100):
        try:
            value = backend.get(key)
        except CorruptEntry:
            continue
        if value is not None:
            assert value.payload == key * 20
            found += 1
    extra = b"x" * 32
    backend.set(extra, entry(extra))
    value = backend.get(extra)
    assert value is not None
    assert value.payload == extra * 20
    backend.close()
    return found


@pytest.mark.parametrize("length", [0, 1, 100, 4096, 5000, 20_000])
def test_a_file_cut_short(path: Path, length: int) -> None:
    """Whatever is left of a file, there is no wrong value and no error, and storing works."""
    os.truncate(path, length)
    use(path)
    assert use(path) == 0 or length


@pytest.mark.parametrize("length", [0, 100, 4096, 20_000])
@pytest.mark.parametrize("logged", [False, True], ids=["checkpointed", "logged"])
def test_a_file_cut_short_while_it_is_open(tmp_path: Path, length: int, logged: bool) -> None:
    """A file that is mapped into memory and cut doesn't kill the process (SIGBUS)."""
    code = f"""
import os, time
from memoleo._entry import Entry
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.errors import BackendError
path = {str(tmp_path / "store.db")!r}
keys = [number.to_bytes(32, "little") for number in range(1, 301)]
writer = SQLiteBackend(path)
for key in keys:
    writer.set(key, Entry(key * 20, "test", time.time(), 3600.0))
if {not logged}:
    writer.close()
reader = SQLiteBackend(path)
assert all(reader.get(key).payload == key * 20 for key in keys)
os.truncate(path, {length})
for extra, backend in ((b"one", reader), (b"two", writer)):
    for _ in range(2):
        for key in keys:
            try:
                found = backend.get(key)
            except BackendError:
                continue
            assert found is None or found.payload == key * 20
    # What could not be opened is left alone for a moment.
    deadline = time.monotonic() + 30
    while True:
        try:
            backend.set(extra, Entry(b"new", "test", time.time(), 3600.0))
            break
        except BackendError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert backend.get(extra).payload == b"new"
print("survived")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "survived\n"


@pytest.mark.parametrize("start", [0, 16, 100, 4096, 8192])
def test_a_file_filled_with_garbage(path: Path, start: int) -> None:
    """Garbage from any place on costs entries, and nothing else."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(start).randbytes(size - start))
    use(path)
    use(path)


@pytest.mark.parametrize("content", [b"D", b"Dear Ada,\n", b"hello" * 1000], ids=len)
def test_a_file_that_never_was_a_store_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Somebody's letter is refused by every method, however often, and nothing stands beside it."""
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    for _ in range(2):
        backend = SQLiteBackend(path)
        lease = backend.lease(b"k")
        assert lease is not None
        lease.release()
        for action in (backend.get, backend.delete, partial(backend.set, entry=entry(b"k"))):
            with pytest.raises(BackendError, match=r"not a file of memoleo.*a file of its own"):
                action(b"k")
        assert not backend.check()["intact"]
        backend.close()
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_a_damaged_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Damage to somebody else's database is not for a cache to repair."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (data)")
    connection.commit()
    connection.close()
    damaged = bytearray(path.read_bytes())
    damaged[100:4096] = os.urandom(3996)
    path.write_bytes(damaged)
    backend = SQLiteBackend(path)
    with pytest.raises(BackendError):
        backend.set(b"k", entry(b"k"))
    backend.close()
    assert path.read_bytes() == damaged
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_garbage_where_a_store_was(path: Path) -> None:
    """What was a store is put aside, readable for whoever wants to look at it."""
    path.write_bytes(b"hello" * 1000)
    assert use(path) == 0
    (aside,) = path.parent.glob("store.db.corrupt-*")
    assert aside.read_bytes() == b"hello" * 1000


def test_flipped_bits(path: Path, tmp_path: Path) -> None:
    """A flipped bit anywhere in the file never becomes a wrong value, nor an error."""
    whole = path.read_bytes()
    chance = random.Random(7)
    for number in range(60):
        copy = tmp_path / f"{number}.db"
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30])):
            # The first page names the program that owns the file: see the tests of formats.
            damaged[chance.randrange(100, len(damaged))] ^= 1 << chance.randrange(8)
        copy.write_bytes(damaged)
        use(copy)


def test_a_damaged_log(path: Path) -> None:
    """A write-ahead log that was cut off or filled with garbage loses its entries only."""
    for damage in (b"", os.urandom(500), os.urandom(50_000)):
        backend = SQLiteBackend(path)
        backend.set(b"y" * 32, entry(b"y" * 32))
        log = path.with_name("store.db-wal")
        copy = path.with_name("copy.db")
        copy.write_bytes(path.read_bytes())
        copy.with_name("copy.db-wal").write_bytes(log.read_bytes()[:600] + damage)
        backend.close()
        assert use(copy) == 100
        for leftover in path.parent.glob("copy.db*"):
            leftover.unlink()


def test_damage_never_becomes_a_loop(path: Path) -> None:
    """A file that is damaged again and again is given up for a while, with an error."""
    backend = SQLiteBackend(path)
    failures = 0
    for _ in range(20):
        backend.close()
        path.write_bytes(b"garbage!" * 1000)
        try:
            backend.get(b"k" * 32)
        except BackendError:
            failures += 1
    assert failures >= 10
    assert len(list(path.parent.glob("store.db.corrupt-*"))) <= 2


def test_an_entry_under_another_key(path: Path) -> None:
    """A row that lies under another key than its own doesn't verify, and is removed."""
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE entries SET key = ?, hash = ? WHERE key = ?",
        (b"z" * 32, hash_of(b"z" * 32), keys(1)[0]),
    )
    connection.commit()
    connection.close()
    backend = SQLiteBackend(path)
    with pytest.raises(CorruptEntry):
        backend.get(b"z" * 32)
    assert backend.get(b"z" * 32) is None
    backend.close()


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_bomb_is_only_bytes(path: Path, tmp_path: Path) -> None:
    """Pickled code in the column of values is a corrupt entry, and is never run."""
    target = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(target))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entries SET block = ?", (bomb,))
    connection.commit()
    connection.close()
    backend = SQLiteBackend(path)
    for key in keys(100):
        with pytest.raises(CorruptEntry):
            backend.get(key)
    assert list(backend.entries()) == []
    assert backend.stats().entries == 0
    backend.close()
    assert not target.exists()


def test_a_newer_format_is_left_alone(path: Path) -> None:
    """A file that a later memoleo wrote is refused with a way out, and not touched."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    backend = SQLiteBackend(path)
    with pytest.raises(BackendError, match=r"format 99.*upgrade memoleo"):
        backend.get(keys(1)[0])
    with pytest.raises(BackendError, match="format 99"):
        backend.set(keys(1)[0], entry(keys(1)[0]))
    assert "format 99" in str(backend.check()["problems"])
    backend.close()
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A database with tables of somebody else is refused, and not touched."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (data)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    backend = SQLiteBackend(path)
    with pytest.raises(BackendError, match="another program"):
        backend.set(keys(1)[0], entry(keys(1)[0]))
    backend.close()
    assert path.read_bytes() == before
    assert sorted(tmp_path.glob("*.corrupt-*")) == []


def test_an_error_without_words_is_damage() -> None:
    """Python 3.10 tells neither code nor text of an error that quotes unreadable bytes."""
    assert classify(sqlite3.DatabaseError()) == "corrupt"
    assert classify(sqlite3.OperationalError()) == "other"
