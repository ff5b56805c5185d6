"""`Cache.export` and `Cache.load`: a cache as a file that can be carried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from memoleo import Cache, ConfigError, CorruptEntry, Metrics, content_cached
from memoleo.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "tiered"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Cache]:
    urls = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/cache.db?memory=0",
        "tiered": f"sqlite:///{tmp_path}/cache.db",
    }
    with Cache(urls[request.param], clock=clock, metrics=Metrics()) as opened:
        yield opened


@pytest.fixture
def other(clock: FakeClock) -> Cache:
    return Cache("memory://", clock=clock, metrics=Metrics())


def fill(cache: Cache, count: int) -> None:
    for number in range(count):
        cache.set(str(number), [number, "x" * number], type="ab"[number % 2], tags=["t"])


def values(cache: Cache) -> dict[str, Any]:
    return {str(number): cache.get(str(number)) for number in range(30)}


class TestCarrying:
    def test_everything_arrives(
        self, cache: Cache, other: Cache, tmp_path: Path, clock: FakeClock
    ) -> None:
        """Values, types, tags, times and costs are those of the first cache."""
        cache.set("a", {"x": (1.5, None)}, type="t", tags=["g"], ttl="1h")
        cache.set("b", [b"\x00" * 100_000], ttl="forever")
        assert cache.export(tmp_path / "out.memoleo") == 2
        clock.advance(60)
        loaded = other.load(tmp_path / "out.memoleo")
        assert (loaded, loaded.kept, loaded.expired, loaded.damaged) == (2, 0, 0, 0)
        assert other.get("a") == {"x": (1.5, None)}
        assert list(other.backend.entries()) == list(cache.backend.entries())
        [entry] = other.entries(tag="g")
        assert (entry.type, entry.age, entry.ttl) == ("t", 60.0, 3600.0)
        assert {entry.ttl for entry in other.entries()} == {3600.0, inf}

    def test_calls_hit_on_the_other_side(self, cache: Cache, other: Cache, tmp_path: Path) -> None:
        """Keys of calls hold in another cache; what is known of their arguments stays behind."""
        calls: list[int] = []

        def square(x: int) -> int:
            calls.append(x)
            return x * x

        content_cached(cache=cache)(square)(3)
        cache.export(tmp_path / "out")
        other.load(tmp_path / "out")
        assert content_cached(cache=other)(square)(3) == 9
        assert calls == [3]
        assert [entry.parts for _, entry in other.backend.entries()] == [b""]

    def test_an_empty_cache(self, cache: Cache, other: Cache, tmp_path: Path) -> None:
        """Nothing is a file as well."""
        assert cache.export(tmp_path / "out") == 0
        assert other.load(tmp_path / "out") == 0

    def test_only_what_is_chosen(self, cache: Cache, other: Cache, tmp_path: Path) -> None:
        """A type or a tag can be chosen on both sides."""
        fill(cache, 10)
        cache.set("mine", 1, tags=["special"])
        assert cache.export(tmp_path / "a", type="a") == 5
        assert cache.export(tmp_path / "special", tag="special") == 1
        assert cache.export(tmp_path / "nothing", type="a", tag="special") == 0
        cache.export(tmp_path / "all")
        assert other.load(tmp_path / "all", type="b") == 5
        assert other.load(tmp_path / "all", tag="special") == 1
        assert other.get_stats()["by_type"] == {"b": 5, "default": 1}

    def test_what_has_expired_stays_behind(
        self, cache: Cache, other: Cache, tmp_path: Path, clock: FakeClock
    ) -> None:
        """Entries that are of no use are neither written nor stored."""
        cache.set("short", 1, ttl="10s")
        cache.set("middle", 2, ttl="20s")
        cache.set("long", 3, ttl="1h")
        clock.advance(15)
        assert cache.export(tmp_path / "out") == 2
        clock.advance(15)
        loaded = other.load(tmp_path / "out")
        assert (loaded, loaded.expired) == (1, 1)

    @pytest.mark.parametrize(
        ("merge", "kept", "a", "b"),
        [("newer", 1, "new here", "new there"), ("keep", 2, "new here", "old here"),
         ("replace", 0, "old there", "new there")],
    )  # fmt: skip
    def test_which_of_two_stays(
        self, cache: Cache, other: Cache, tmp_path: Path, clock: FakeClock,
        merge: str, kept: int, a: str, b: str,
    ) -> None:  # fmt: skip
        """Of two entries with one key the policy says which stays."""
        cache.set("a", "old there")
        other.set("b", "old here")
        clock.advance(5)
        cache.set("b", "new there")
        other.set("a", "new here")
        cache.export(tmp_path / "out")
        loaded = other.load(tmp_path / "out", merge=merge)
        assert (loaded, loaded.kept) == (2 - kept, kept)
        assert (other.get("a"), other.get("b")) == (a, b)

    @pytest.mark.parametrize("wrong", [{"merge": "older"}, {"damaged": "ignore"}, {"type": 1}])
    def test_wrong_arguments(self, cache: Cache, tmp_path: Path, wrong: dict[str, Any]) -> None:
        """A policy that doesn't exist is refused before anything is read."""
        with pytest.raises(ConfigError):
            cache.load(tmp_path / "missing", **wrong)


class TestFiles:
    @pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
    def test_it_is_private(self, cache: Cache, tmp_path: Path) -> None:
        """Results may be private, so the file is its owner's alone, whatever stood there."""
        path = tmp_path / "out"
        path.touch(0o666)
        cache.export(path)
        assert path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no symbolic links for everybody")
    def test_a_link_is_replaced_and_not_followed(self, cache: Cache, tmp_path: Path) -> None:
        """A link at the path, dangling or not, leads nobody to another file."""
        precious = tmp_path / "precious"
        precious.write_text("keep")
        for target in (precious, tmp_path / "nowhere"):
            path = tmp_path / f"link-{target.name}"
            path.symlink_to(target)
            cache.export(path)
            assert not path.is_symlink()
        assert precious.read_text() == "keep"
        assert not (tmp_path / "nowhere").exists()

    def test_a_failure_leaves_the_old_file(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is full in the middle leaves what was there, and no rest."""
        fill(cache, 20)
        folder = tmp_path / "exports"
        folder.mkdir()
        cache.export(folder / "out")
        before = (folder / "out").read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            cache.export(folder / "out")
        assert (folder / "out").read_bytes() == before
        assert [path.name for path in folder.iterdir()] == ["out"]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
    def test_killed_in_the_middle(self, tmp_path: Path) -> None:
        """A process that is killed while it exports leaves the old file as it was."""
        path = tmp_path / "out"
        path.write_text("old")
        script = (
            "import os, signal, sys\n"
            "from memoleo import Cache\n"
            "from memoleo.backends import MemoryBackend\n"
            "class Slow(MemoryBackend):\n"
            "    def entries(self, **conditions):\n"
            "        yield from super().entries(**conditions)\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "cache = Cache(backend=Slow())\n"
            "for n in range(1000): cache.set(str(n), 'x' * 1000)\n"
            "cache.export(sys.argv[1])\n"
        )
        ran = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)
        assert ran.returncode == -signal.SIGKILL
        assert path.read_text() == "old"

    def test_while_others_write(self, tmp_path: Path) -> None:
        """An export of a cache in use is whole."""
        with Cache(f"sqlite:///{tmp_path}/busy.db") as cache:
            fill(cache, 30)
            over = threading.Event()

            def work() -> None:
                number = 0
                while not over.is_set():
                    number += 1
                    cache.set(f"more {number % 50}", number)

            thread = threading.Thread(target=work)
            thread.start()
            try:
                count = cache.export(tmp_path / "out")
            finally:
                over.set()
                thread.join()
        with Cache("memory://") as other:
            assert other.load(tmp_path / "out") == count >= 30
            assert other.get("29") == [29, "x" * 29]


class TestDamage:
    @pytest.fixture
    def path(self, cache: Cache, tmp_path: Path) -> Path:
        fill(cache, 30)
        cache.export(tmp_path / "out")
        return tmp_path / "out"

    def test_no_flipped_byte_passes(self, path: Path, other: Cache) -> None:
        """Wherever a byte is changed, the file is refused whole, and what is intact is not lost."""
        good = path.read_bytes()
        expected = {str(number): [number, "x" * number] for number in range(30)}
        for place in range(0, len(good), 97):
            data = bytearray(good)
            data[place] ^= 0x40
            path.write_bytes(data)
            with pytest.raises(CorruptEntry):
                other.load(path)
            assert other.get_stats()["total_entries"] == 0
            if place > good.index(b"ENT\0"):
                loaded = other.load(path, damaged="skip")
                assert loaded >= 29
                assert loaded + loaded.damaged >= 30
                assert all(value in (None, expected[key]) for key, value in values(other).items())
            other.clear()

    @pytest.mark.parametrize("cut", [1, 40, 60, 300])
    def test_cut_off(self, path: Path, other: Cache, cut: int) -> None:
        """A file that was cut off loads nothing, or what is whole in it."""
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(CorruptEntry):
            other.load(path)
        assert other.get_stats()["total_entries"] == 0
        assert 25 <= other.load(path, damaged="skip") <= 30

    def test_a_hole_in_the_middle(self, path: Path, other: Cache) -> None:
        """After a hole the next intact entry is found again."""
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 200] = os.urandom(200)
        path.write_bytes(data)
        loaded = other.load(path, damaged="skip")
        assert 26 <= loaded <= 29
        assert loaded.damaged >= 1

    @pytest.mark.parametrize(
        "content",
        [b"", b"hello\n", b"SQLite format 3\0", b"memoleo export 1\n", b"memoleo export 1\n{}\n",
         b"memoleo export x\n{}\n", b"memoleo export 1\nnot json\nENT\0", b"\0" * 10_000],
    )  # fmt: skip
    def test_other_files(self, other: Cache, tmp_path: Path, content: bytes) -> None:
        """What is no export says so, and is not taken for an empty one."""
        path = tmp_path / "other"
        path.write_bytes(content)
        with pytest.raises(CorruptEntry):
            other.load(path)

    def test_a_later_format(self, path: Path, other: Cache) -> None:
        """A file of a later memoleo asks for an upgrade, also when damage is to be skipped."""
        path.write_bytes(path.read_bytes().replace(b"memoleo export 1\n", b"memoleo export 2\n", 1))
        for damaged in ("refuse", "skip"):
            with pytest.raises(CorruptEntry, match="later memoleo"):
                other.load(path, damaged=damaged)

    def test_entries_out_of_order(self, path: Path, other: Cache) -> None:
        """An entry that was moved under another key doesn't verify."""
        data = path.read_bytes()
        first, second = (data.index(b"ENT\0"), data.index(b"ENT\0", data.index(b"ENT\0") + 4))
        key = first + 10
        swapped = bytearray(data)
        swapped[key : key + 32] = data[second + 10 : second + 42]
        path.write_bytes(swapped)
        loaded = other.load(path, damaged="skip")
        assert (loaded, loaded.damaged) == (29, 1)

    def test_missing_files(self, other: Cache, tmp_path: Path) -> None:
        """A file that isn't there is an OSError, as everywhere."""
        with pytest.raises(FileNotFoundError):
            other.load(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError):
            other.export(tmp_path / "no" / "folder")
