"""Stores behind one another: order, failures, and copies that must not outlive a removal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memoleo._entry import Entry
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.errors import BackendError, ConfigError

KEY = b"k"


def entry(payload: bytes = b"x", **fields: float) -> Entry:
    fields = {"created": time.time(), "ttl": 3600.0, **fields}
    return Entry(payload, "test", **fields)


class Meddling(MemoryBackend):
    """A store in which something happens during a call, or which fails."""

    meanwhile: Callable[[], object] | None = None
    failing = False

    def _meddle(self) -> None:
        if self.failing:
            raise BackendError("out of order")
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def get(self, key: bytes) -> Entry | None:
        found = super().get(key)
        self._meddle()
        return found

    def set(self, key: bytes, entry: Entry) -> None:
        super().set(key, entry)
        self._meddle()


@pytest.fixture
def near() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def far() -> Meddling:
    return Meddling()


def test_what_only_the_far_one_has_is_copied(near: MemoryBackend, far: Meddling) -> None:
    """The second look finds it near."""
    far.set(KEY, entry())
    tiered = TieredBackend(near, far)
    assert tiered.get(KEY) == far.live[KEY]
    assert near.live[KEY] is far.live[KEY]


def test_three_tiers(near: MemoryBackend, far: Meddling) -> None:
    """An entry of the farthest is copied into all nearer ones, and removed from all."""
    middle = MemoryBackend()
    tiered = TieredBackend(near, middle, far)
    far.set(KEY, entry())
    assert tiered.get(KEY) is not None
    assert KEY in near.live
    assert KEY in middle.live
    assert tiered.delete(KEY) is True
    assert [near.live, middle.live, far.live] == [{}, {}, {}]


@pytest.mark.parametrize("removal", ["delete", "clear", "set"])
@pytest.mark.parametrize("during", ["get", "set"])
def test_a_removal_during_a_copy(
    near: MemoryBackend, far: Meddling, during: str, removal: str
) -> None:
    """What is removed or replaced while it is being copied is not found near afterwards."""
    tiered = TieredBackend(near, far)
    newer = entry(b"newer")
    changes: dict[str, Callable[[], object]] = {
        "delete": lambda: tiered.delete(KEY),
        "clear": lambda: tiered.clear(),
        "set": lambda: tiered.set(KEY, newer),
    }
    if during == "get":
        far.set(KEY, entry(b"older"))
    far.meanwhile = changes[removal]
    if during == "get":
        tiered.get(KEY)
    else:
        tiered.set(KEY, entry(b"older"))
    assert near.live.get(KEY) in (None, newer)
    assert tiered.get(KEY) in (None, newer)


def test_a_fresher_one_farther_away(near: MemoryBackend, far: Meddling) -> None:
    """An outdated copy doesn't hide the fresh entry that another process stored."""
    stale = entry(b"stale", created=time.time() - 7200)
    near.set(KEY, stale)
    tiered = TieredBackend(near, far)
    assert tiered.get(KEY) == stale
    far.set(KEY, entry(b"fresh"))
    found = tiered.get(KEY)
    assert found is not None
    assert found.payload == b"fresh"
    assert near.live[KEY] == found


def test_a_far_store_that_fails(near: MemoryBackend, far: Meddling) -> None:
    """The near one still stores and answers, and the failure is reported in the end."""
    tiered = TieredBackend(near, far)
    far.failing = True
    with pytest.raises(BackendError, match="out of order"):
        tiered.set(KEY, entry())
    assert tiered.get(KEY) is not None
    with pytest.raises(BackendError, match="out of order"):
        tiered.get(b"unknown")


def test_a_near_store_that_fails(near: MemoryBackend, far: Meddling) -> None:
    """The far one answers instead."""
    far.failing = True
    near.set(KEY, entry())
    assert TieredBackend(far, near).get(KEY) is not None


def test_it_knows_its_memory(near: MemoryBackend, tmp_path: Path) -> None:
    """`memory` is the nearest store if it is one, and may be read until `next_sync`."""
    far = SQLiteBackend(tmp_path / "store.db")
    tiered = TieredBackend(near, far)
    assert tiered.memory is near
    assert TieredBackend(far, near).memory is None
    now = 1_000_000.0
    tiered.sync(now)
    assert tiered.last_sync == now < tiered.next_sync <= now + 0.5
    far.close()


def test_memory_follows_the_file(near: MemoryBackend, tmp_path: Path) -> None:
    """A removal by somebody else empties the memory at the next sync, also after a leap back."""
    path = tmp_path / "store.db"
    tiered, other = TieredBackend(near, SQLiteBackend(path)), SQLiteBackend(path)
    now = time.time()
    tiered.sync(now)
    for leap in (1.0, -5000.0):
        tiered.set(KEY, entry())
        tiered.sync(now)
        assert KEY in near.live
        other.delete(KEY)
        now += leap
        assert not tiered.last_sync <= now < tiered.next_sync
        tiered.sync(now)
        assert near.live == {}
    tiered.close()
    other.close()


def test_what_memory_answers_counts_as_used(near: MemoryBackend, tmp_path: Path) -> None:
    """The file behind memory doesn't evict what is read all the time, though it is never asked."""
    far = SQLiteBackend(tmp_path / "store.db", max_entries=3)
    tiered = TieredBackend(near, far)
    for name in (KEY, b"b", b"c"):
        tiered.set(name, Entry(name, "test", time.time()))
    for _ in range(5):
        assert tiered.get(KEY) is not None
    tiered.sync(time.time() + 60)
    tiered.set(b"d", Entry(b"d", "test", time.time()))
    assert sorted(key for key, _ in far.entries()) == [b"c", b"d", KEY]
    tiered.close()


def test_one_store_is_not_enough(near: MemoryBackend) -> None:
    """It says so when it is made."""
    with pytest.raises(ConfigError):
        TieredBackend(near)
