"""A read that stays open while many others are made costs nobody anything."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoleo._entry import Entry
from memoleo.backends.sqlite import SQLiteBackend

KEYS = [hashlib.sha256(b"%d" % number).digest() for number in range(10)]


def entry(text: bytes = b"x") -> Entry:
    return Entry(text, "auto", time.time(), 3600.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteBackend]:
    store = SQLiteBackend(tmp_path / "cache.db")
    store.set(KEYS[0], entry())
    yield store
    store.close()


@contextlib.contextmanager
def anchored(store: SQLiteBackend) -> Iterator[None]:
    """Keep reading, so that the anchor stays for as long as it may."""
    anchor, stop = store._anchor, threading.Event()
    anchor._since -= 60

    def read() -> None:
        while not stop.is_set():
            anchor.reads += 1_000_000
            store.get(KEYS[0])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while not anchor._busy.locked():
            anchor.consider()
        yield
    finally:
        stop.set()
        reader.join()


def until_gone(store: SQLiteBackend) -> None:
    with store._anchor._busy:
        pass


def test_what_others_store_is_seen_at_once(store: SQLiteBackend) -> None:
    """Reads of other connections are as fresh as ever while one stays open."""
    other = SQLiteBackend(store.path)
    with anchored(store):
        for number in range(20):
            other.set(KEYS[1], entry(b"%d" % number))
            found = store.get(KEYS[1])
            assert found is not None
            assert found.payload == b"%d" % number
            assert other.delete(KEYS[1])
            assert store.get(KEYS[1]) is None
    other.close()


def test_it_ends_when_nobody_reads_any_more(store: SQLiteBackend) -> None:
    """A moment after the last read, the log can be cut to nothing by anybody."""
    with anchored(store):
        pass
    until_gone(store)
    raw = sqlite3.connect(store.path)
    assert raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    raw.close()
    assert os.path.getsize(f"{store.path}-wal") == 0


def test_it_gives_way_to_those_who_write(store: SQLiteBackend) -> None:
    """As soon as somebody writes it ends, although reads go on; it isn't begun again at once."""
    with anchored(store):
        other = SQLiteBackend(store.path)
        while not store._anchor._not_before:
            other.set(KEYS[2], entry())
            store._anchor.consider()
        other.close()
        until_gone(store)
        store._anchor.consider()
        assert not store._anchor._busy.locked()


def test_closing_and_replacing_the_file_work_in_the_middle_of_it(store: SQLiteBackend) -> None:
    """The file can be closed, deleted and made anew while a read is open."""
    with anchored(store):
        store.close()
        assert store.get(KEYS[0]) is not None
    until_gone(store)
    os.unlink(store.path)
    while store.get(KEYS[3]) is None:
        store.set(KEYS[3], entry())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_takes_locks_of_its_own(store: SQLiteBackend) -> None:
    """A fork in the middle of it: SQLite in the child doesn't believe that it holds the lock."""
    with anchored(store):
        child = os.fork()
        if not child:
            # A checkpoint that waits for nobody must find the child's own read in its way.
            right = False
            with contextlib.suppress(BaseException):
                store.get(KEYS[0])
                link = store._connections.local.link
                link.execute("BEGIN")
                link.execute("SELECT epoch FROM state").fetchone()
                right = bool(_locks_of(os.getpid()))
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0


def _locks_of(pid: int) -> list[str]:
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ["unknown"]
    return [line for line in lines if f" {pid} " in line]
