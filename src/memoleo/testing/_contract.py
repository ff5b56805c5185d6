"""What every store must do, as tests that anybody's store can be put through."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from memoleo._entry import Entry
from memoleo.backends._protocol import Backend, BackendStats, Notebook
from memoleo.errors import BackendError

__all__ = ["BackendContract"]


class BackendContract:
    """Proves that a store keeps the `Backend` contract, under pytest or any runner like it.

    ::

        class TestMyBackend(BackendContract):
            def make_backend(self, folder):
                return MyBackend(folder / "store")

    Attributes
    ----------
    shared
        whether two objects that `make_backend` returns for one folder are the same store
    """

    shared = False

    def make_backend(self, folder: Path) -> Backend:
        """Return a new backend; it may keep its files in `folder`, which is empty at first."""
        raise NotImplementedError("make_backend(self, folder) should return the store to test")

    def setup_method(self) -> None:
        """Make a store in an empty folder, before each test."""
        self.folder = Path(tempfile.mkdtemp(prefix="memoleo-contract-"))
        self._made: list[Backend] = []
        self.backend = self._make()

    def teardown_method(self) -> None:
        """Close what was made, after each test."""
        for backend in self._made:
            backend.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def test_it_has_every_method(self) -> None:
        """It is a `Backend`, and says whether it is remote."""
        assert isinstance(self.backend, Backend)
        assert self.backend.remote in (True, False)

    def test_an_unknown_key_is_absent(self) -> None:
        """`get` answers `None`, and `delete` says that there was nothing."""
        assert self.backend.get(_key(1)) is None
        assert self.backend.delete(_key(1)) is False

    def test_an_entry_comes_back_whole(self) -> None:
        """Every field of an entry survives, under the key that it was stored under only."""
        entry = _entry(
            _key(1),
            payload=bytes(range(256)) * 3,
            ttl=12.5,
            keep=3.25,
            type="märchen",
            tags=("a", "b c"),
            cost_ms=1.5,
            tokens=7,
            label="m.f",
        )
        self.backend.set(_key(1), entry)
        found = self.backend.get(_key(1))
        assert found == entry
        assert self.backend.get(_key(2)) is None

    def test_awkward_keys_and_payloads(self) -> None:
        """Keys may hold any bytes, and payloads may be empty or large."""
        keys = [b"\0", b"\xff" * 64, b"a", b"A", b"a\0", b"a b/../c'\"%\n", _key(3)]
        payloads = [b"", b"\0", b"\xff" * 1_000_000, b"x", b"y", b"z", b"\r\n"]
        for key, payload in zip(keys, payloads, strict=True):
            self.backend.set(key, _entry(key, payload=payload))
        for key, payload in zip(keys, payloads, strict=True):
            found = self.backend.get(key)
            assert found is not None
            assert found.payload == payload

    def test_an_entry_that_never_expires(self) -> None:
        """An infinite TTL stays infinite, and is never swept."""
        self.backend.set(_key(1), _entry(_key(1), ttl=inf))
        assert self.backend.clear_expired(4e9) == 0
        found = self.backend.get(_key(1))
        assert found is not None
        assert found.ttl == inf

    def test_the_last_one_stored_wins(self) -> None:
        """Storing under a key again replaces the entry, and there is still one."""
        for text in (b"old", b"new"):
            self.backend.set(_key(1), _entry(_key(1), payload=text))
        found = self.backend.get(_key(1))
        assert found is not None
        assert found.payload == b"new"
        assert self.backend.stats().entries == 1

    def test_expired_entries_are_still_handed_out(self) -> None:
        """Freshness is judged by the reader, not by the store."""
        self.backend.set(_key(1), _entry(_key(1), created=time.time() - 100, ttl=1.0, keep=1e6))
        assert self.backend.get(_key(1)) is not None

    def test_delete_removes_one(self) -> None:
        """`delete` says that it was there, and leaves the others."""
        self._fill(3)
        assert self.backend.delete(_key(1)) is True
        assert self.backend.get(_key(1)) is None
        assert self.backend.delete(_key(1)) is False
        assert self.backend.get(_key(2)) is not None

    def test_clear_removes_all(self) -> None:
        """`clear` without a condition empties the store, and counts."""
        self._fill(5)
        assert self.backend.clear() == 5
        assert self.backend.clear() == 0
        assert [self.backend.get(_key(n)) for n in range(5)] == [None] * 5
        assert self.backend.stats().entries == 0

    def test_clear_by_type_tag_and_age(self) -> None:
        """`clear` removes what matches all conditions, and only that."""
        now = time.time()
        kinds = [("x", ("t",), 0), ("x", (), 50), ("y", ("t", "u"), 100), ("y", ("tt",), 150)]
        for number, (type, tags, age) in enumerate(kinds):
            entry = _entry(_key(number), type=type, tags=tags, created=now - age)
            self.backend.set(_key(number), entry)
        assert self.backend.clear(type="z") == 0
        assert self.backend.clear(type="y", tag="u", before=now - 120) == 0
        assert self.backend.clear(tag="tt") == 1
        assert self.backend.clear(type="x", before=now - 20) == 1
        assert self._present(4) == [0, 2]
        assert self.backend.clear(tag="t") == 2
        assert self._present(4) == []

    def test_a_replaced_entry_leaves_its_tags(self) -> None:
        """Clearing by a tag that only the replaced entry had removes nothing."""
        self.backend.set(_key(1), _entry(_key(1), tags=("old",)))
        self.backend.set(_key(1), _entry(_key(1), tags=("new",)))
        assert self.backend.clear(tag="old") == 0
        assert self.backend.clear(tag="new") == 1

    def test_clear_expired(self) -> None:
        """What is past its TTL and the time that it may be served stale goes; the rest stays."""
        now = time.time()
        lives = [(10.0, 0.0), (10.0, 50.0), (200.0, 0.0)]
        for number, (ttl, keep) in enumerate(lives):
            entry = _entry(_key(number), created=now - 20, ttl=ttl, keep=keep)
            self.backend.set(_key(number), entry)
        assert self.backend.clear_expired(now) == 1
        assert self._present(3) == [1, 2]
        assert self.backend.clear_expired(now + 1000) == 2

    def test_entries_newest_first(self) -> None:
        """`entries` yields the most recently created first, and can be narrowed down."""
        now = time.time()
        order = [3, 0, 4, 1, 2]
        for number in order:
            entry = _entry(
                _key(number), created=now - number, type=f"t{number % 2}", tags=(f"g{number // 3}",)
            )
            self.backend.set(_key(number), entry)
        assert [key for key, _ in self.backend.entries()] == [_key(n) for n in range(5)]
        assert [key for key, _ in self.backend.entries(type="t1")] == [_key(1), _key(3)]
        assert [key for key, _ in self.backend.entries(tag="g1")] == [_key(3), _key(4)]
        assert [key for key, _ in self.backend.entries(type="t0", tag="g1")] == [_key(4)]

    def test_entries_may_change_meanwhile(self) -> None:
        """Storing and removing during an iteration works, also of what is to come."""
        self._fill(200)
        seen = 0
        for key, _ in self.backend.entries():
            seen += 1
            self.backend.delete(key)
            self.backend.set(_key(1000 + seen), _entry(_key(1000 + seen), created=1.0))
        assert seen >= 200

    def test_stats_count(self) -> None:
        """`stats` knows the number of entries, per type too, and their size."""
        assert self.backend.stats().entries == 0
        for number in range(6):
            self.backend.set(_key(number), _entry(_key(number), type="ab"[number % 2]))
        stats = self.backend.stats()
        assert isinstance(stats, BackendStats)
        assert stats.entries == 6
        assert stats.by_type == {"a": 3, "b": 3}
        assert stats.bytes > 0

    def test_notes_are_no_entries(self) -> None:
        """A store that keeps notes returns them, the last one of a name, and counts none."""
        if not isinstance(self.backend, Notebook):
            return
        for block in (b"old", b"new"):
            self.backend.note("room", b"name", block)
        self.backend.note("other", b"name", b"apart")
        assert self.backend.notes("room") == [(b"name", b"new")]
        assert self.backend.notes("empty") == []
        assert self.backend.stats().entries == 0
        assert self.backend.clear() == 0
        assert self.backend.gone(_key(1)) is None

    def test_a_lease_can_be_released_twice(self) -> None:
        """A free key is granted, and again after its release."""
        for _ in range(3):
            lease = self.backend.lease(_key(1))
            assert lease is not None
            lease.release()
            lease.release()

    def test_leases_of_two_keys(self) -> None:
        """Different keys don't stand in one another's way."""
        leases = [self.backend.lease(_key(number)) for number in range(20)]
        assert None not in leases
        for lease in leases:
            assert lease is not None
            lease.release()

    def test_it_can_be_used_after_close(self) -> None:
        """`close` twice is harmless, and a later use opens again."""
        self._fill(2)
        self.backend.close()
        self.backend.close()
        self.backend.set(_key(5), _entry(_key(5)))
        assert self.backend.get(_key(5)) is not None
        assert self.backend.delete(_key(5)) is True

    def test_many_threads(self) -> None:
        """Eight threads at once lose nothing and get nothing wrong."""

        def work(part: int) -> None:
            for number in range(part * 100, part * 100 + 40):
                key = _key(number)
                _patiently(self.backend.set, key, _entry(key, payload=key * 5))
                found = self.backend.get(key)
                assert found is not None
                assert found.payload == key * 5
                assert self.backend.get(_key(number + 50)) is None

        _in_threads([partial(work, part) for part in range(8)])
        assert self.backend.stats().entries == 8 * 40

    def test_one_key_from_many_threads(self) -> None:
        """Readers of a key that is being replaced and removed see one whole entry or none."""
        key, over = _key(1), threading.Event()

        def write() -> None:
            for number in range(60):
                payload = bytes([number]) * 2000
                _patiently(self.backend.set, key, _entry(key, payload=payload))
                if number % 10 == 0:
                    _patiently(self.backend.delete, key)
            over.set()

        def read() -> None:
            while not over.is_set():
                found = self.backend.get(key)
                assert found is None or len(set(found.payload)) == 1

        _in_threads([write, read, read])

    def test_two_objects_are_one_store(self) -> None:
        """What one stores, the other finds, removes, and can't lease at the same time."""
        if not self.shared:
            return
        other = self._make()
        self.backend.set(_key(1), _entry(_key(1)))
        assert other.get(_key(1)) == self.backend.get(_key(1)) is not None
        assert other.delete(_key(1)) is True
        assert self.backend.get(_key(1)) is None
        lease = self.backend.lease(_key(1))
        assert lease is not None
        assert other.lease(_key(1)) is None
        lease.release()
        again = other.lease(_key(1))
        assert again is not None
        again.release()

    def test_entries_outlive_the_object(self) -> None:
        """After `close`, another object for the same folder finds what was stored."""
        if not self.shared:
            return
        self._fill(3)
        self.backend.close()
        assert len(list(self._make().entries())) == 3

    def _make(self) -> Backend:
        backend = self.make_backend(self.folder)
        self._made.append(backend)
        return backend

    def _fill(self, count: int) -> None:
        for number in range(count):
            self.backend.set(_key(number), _entry(_key(number)))

    def _present(self, count: int) -> list[int]:
        return [number for number in range(count) if self.backend.get(_key(number)) is not None]


def _key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def _entry(key: bytes, payload: bytes = b"payload", **fields: Any) -> Entry:
    fields = {"created": time.time(), "ttl": 3600.0, **fields}
    return Entry(payload, "test", **fields)


def _patiently(action: Callable[..., Any], *arguments: Any) -> None:
    # A store may refuse to wait; the contract only says that it must say so.
    for _ in range(100):
        try:
            action(*arguments)
        except BackendError:
            time.sleep(0.01)
        else:
            return
    action(*arguments)


def _in_threads(jobs: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
