"""The memory store: limits, recency, and what readers may rely on."""

from __future__ import annotations

import pytest

from memoleo._entry import Entry
from memoleo.backends.memory import MemoryBackend
from memoleo.errors import ConfigError


def entry(size: int = 0) -> Entry:
    return Entry(b"x" * size, "test", 1000.0)


def fill(backend: MemoryBackend, *names: str) -> None:
    for name in names:
        backend.set(name.encode(), entry())


def left(backend: MemoryBackend) -> str:
    return "".join(sorted(key.decode() for key in backend.live))


def test_the_least_recently_used_go_first() -> None:
    """Reading by `get`, and noting a key in `touched`, both keep an entry."""
    backend = MemoryBackend(max_entries=3)
    fill(backend, *"abc")
    backend.get(b"a")
    backend.touched.append(b"b")
    fill(backend, "d")
    assert left(backend) == "abd"
    fill(backend, "e")
    assert left(backend) == "bde"
    assert backend.stats().evicted == 2


def test_the_size_is_kept() -> None:
    """Entries go until the sum of their sizes fits, also when one is replaced by a larger one."""
    backend = MemoryBackend(max_bytes=1000)
    fill(backend, *"abcdefghij")
    assert left(backend) == "defghij"
    backend.set(b"j", entry(300))
    assert backend.stats().bytes <= 1000
    assert b"j" in backend.live
    backend.set(b"j", entry(2000))
    assert b"j" not in backend.live
    assert backend.stats().bytes == sum(one.size for one in backend.live.values())


def test_live_and_touched_stay_the_same_objects() -> None:
    """A reader may keep `live` and `touched`: clearing empties them, and never replaces them."""
    backend = MemoryBackend()
    live, touched = backend.live, backend.touched
    fill(backend, *"abc")
    assert len(live) == 3
    backend.clear()
    assert live == {}
    fill(backend, "d")
    backend._after_fork()
    fill(backend, "e")
    assert backend.live is live
    assert backend.touched is touched
    assert b"e" in live


def test_many_reads_between_two_writes() -> None:
    """The buffer of reads is bounded, and unknown keys in it do no harm."""
    backend = MemoryBackend(max_entries=2)
    fill(backend, *"ab")
    for _ in range(10_000):
        backend.get(b"a")
        backend.touched.append(b"never stored")
    assert len(backend.touched) <= 4096
    fill(backend, "c")
    assert left(backend) == "ac"
    assert set(backend.take_recent()) == {b"a"}
    assert backend.take_recent() == []


@pytest.mark.parametrize("arguments", [{"max_entries": 0}, {"max_bytes": "much"}])
def test_wrong_arguments(arguments: dict[str, object]) -> None:
    """What can't be meant is refused at once."""
    with pytest.raises(ConfigError):
        MemoryBackend(**arguments)  # type: ignore[arg-type]
