"""The Redis and the Upstash store: the contract, expiry, leases, other clients, dead servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from redis_servers import TOKEN, RedisServer, RestFront, shared_front, shared_server

import memoleo
from memoleo import BackendError, Cache, ConfigError, CorruptEntry, Metrics, content_cached
from memoleo._entry import Entry
from memoleo.backends import Backend, MemoryBackend, RedisBackend, TieredBackend, UpstashBackend
from memoleo.backends._protocol import Notebook
from memoleo.backends._redis_leases import Leases
from memoleo.testing import BackendContract


class TestRedis(BackendContract):
    shared = True

    def make_backend(self, folder: Path) -> Backend:
        return RedisBackend(shared_server().url, prefix=f"t[{folder.name}", timeout=10)


class TestUpstash(BackendContract):
    shared = True

    def make_backend(self, folder: Path) -> Backend:
        return UpstashBackend(shared_front().url, token=TOKEN, prefix=folder.name, timeout=10)


class TestMemoryBeforeRedis(BackendContract):
    shared = True

    def make_backend(self, folder: Path) -> Backend:
        # A clock that leaps makes every read compare its memory with the server.
        leaps = iter(range(2_000_000_000, 4_000_000_000, 10))
        far = RedisBackend(shared_server().url, prefix=folder.name, timeout=10)
        far.epoch_holds = 0.0
        return TieredBackend(MemoryBackend(), far, clock=lambda: float(-next(leaps)))


def test_a_lease_that_is_dropped_at_any_moment() -> None:
    """The collector may come by while another lease is given back: nobody waits for ever."""
    leases = Leases(lambda command: b"OK", 10.0)

    def dropped(frame: object, event: str, arg: object) -> None:
        sys.setprofile(None)
        leases.take("dropped")
        sys.setprofile(dropped)

    def give_back() -> None:
        lease = leases.take("held")
        assert lease is not None
        sys.setprofile(dropped)
        try:
            lease.release()
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=give_back, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"t:{tmp_path.name}:{os.getpid()}"


@pytest.fixture(params=["redis", "upstash"])
def backend(request: pytest.FixtureRequest, prefix: str) -> Iterator[RedisBackend]:
    made = (
        RedisBackend(shared_server().url, prefix=prefix, timeout=10)
        if request.param == "redis"
        else UpstashBackend(shared_front().url, token=TOKEN, prefix=prefix, timeout=10)
    )
    yield made
    made.close()


def entry(text: bytes = b"x", **fields: Any) -> Entry:
    return Entry(text, "test", **{"created": time.time(), "ttl": 100.0, **fields})


KEY = bytes(range(32))


class TestEntries:
    def test_expiry_covers_the_stale_windows(self, backend: RedisBackend, prefix: str) -> None:
        """The server keeps an entry until it is of no use, and one that never expires for good."""
        client = shared_server().client()
        name = f"{prefix}:e:{KEY.hex()}"
        backend.set(KEY, entry(ttl=100.0, keep=1000.0))
        assert 1_000_000 < client.pttl(name) <= 1_160_000
        backend.set(KEY, entry(ttl=inf))
        assert client.pttl(name) == -1
        backend.set(KEY, entry(ttl=5.0))
        assert 0 < client.pttl(name) <= 65_000

    def test_both_ways_to_a_server_read_each_other(self, prefix: str) -> None:
        """What came by REST is read by Redis' protocol, and the other way round."""
        tcp = RedisBackend(shared_server().url, prefix=prefix, timeout=10)
        rest = UpstashBackend(shared_front().url, token=TOKEN, prefix=prefix, timeout=10)
        for one, other in ((tcp, rest), (rest, tcp)):
            stored = entry(bytes(range(256)), tags=("ü",))
            one.set(KEY, stored)
            assert other.get(KEY) == one.get(KEY) == stored
            assert [found for _, found in other.entries(tag="ü")] == [stored]

    def test_damage_is_found_and_removed(self, backend: RedisBackend, prefix: str) -> None:
        """A block that was changed, or put under another key, doesn't verify."""
        client = shared_server().client()
        name = f"{prefix}:e:{KEY.hex()}"
        backend.set(KEY, entry())
        field = "b" if client.hexists(name, "b") else "t"
        client.hset(name, field, client.hget(name, field)[:-4])
        assert list(backend.entries()) == []
        with pytest.raises(CorruptEntry):
            backend.get(KEY)
        assert backend.get(KEY) is None
        other = bytes(32)
        backend.set(other, entry())
        client.copy(f"{prefix}:e:{other.hex()}", name)
        with pytest.raises(CorruptEntry):
            backend.get(KEY)

    def test_others_on_the_same_server(self, backend: RedisBackend, prefix: str) -> None:
        """Another cache, and what other programs keep there, is left alone."""
        other = RedisBackend(shared_server().url, prefix=f"{prefix}*", timeout=10)
        client = shared_server().client()
        client.set(f"{prefix}-mine", "keep")
        backend.set(KEY, entry())
        other.set(KEY, entry())
        assert other.clear() == 1
        assert backend.get(KEY) is not None
        assert backend.clear() == 1
        assert client.get(f"{prefix}-mine") == b"keep"

    def test_thousands_of_entries(self, backend: RedisBackend) -> None:
        """Looking and clearing goes in steps, and misses nothing."""
        for number in range(1200):
            kind = "ab"[number % 2]
            backend.set(number.to_bytes(32, "big"), entry(type=kind, created=float(number) + 1e9))
        assert backend.stats().by_type == {"a": 600, "b": 600}
        assert next(iter(backend.entries()))[0] == (1199).to_bytes(32, "big")
        assert backend.clear(type="a") == 600
        assert len(list(backend.entries())) == 600

    def test_notes(self, backend: RedisBackend) -> None:
        """Notes come back, the last ones first, and clearing leaves them."""
        assert isinstance(backend, Notebook)
        for number in range(3):
            backend.note("room", bytes([number]), b"block %d" % number)
        backend.note("room", b"\0", b"again")
        backend.clear()
        assert dict(backend.notes("room")) == {
            b"\0": b"again",
            b"\1": b"block 1",
            b"\2": b"block 2",
        }
        assert backend.notes("other") == []
        assert backend.gone(KEY) is None


class TestLeases:
    def test_one_holder_on_all_machines(self, backend: RedisBackend, prefix: str) -> None:
        """A lease that another holds is not granted, and not released by anybody else."""
        other = RedisBackend(shared_server().url, prefix=prefix, timeout=10)
        lease = backend.lease(KEY)
        assert lease is not None
        assert other.lease(KEY) is None
        client = shared_server().client()
        name = f"{prefix}:l:{KEY.hex()}"
        client.set(name, "somebody else's by now")
        lease.release()
        assert client.get(name) == b"somebody else's by now"

    def test_it_is_renewed_while_it_is_held(self, prefix: str) -> None:
        """A computation that takes longer than a lease lives keeps it."""
        backend = RedisBackend(shared_server().url, prefix=prefix, timeout=10)
        backend._leases._life = 0.3
        lease = backend.lease(KEY)
        assert lease is not None
        client = shared_server().client()
        name = f"{prefix}:l:{KEY.hex()}"
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert client.get(name) is not None
            time.sleep(0.02)
        lease.release()
        assert client.get(name) is None

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
    def test_a_killed_holder(self, prefix: str) -> None:
        """The lease of a process that was killed ends by itself."""
        script = (
            "import sys, time\n"
            "from memoleo.backends import RedisBackend\n"
            "backend = RedisBackend(sys.argv[1], prefix=sys.argv[2], timeout=10)\n"
            "backend._leases._life = 0.5\n"
            "lease = backend.lease(bytes(range(32)))\n"
            "print('held', flush=True)\n"
            "time.sleep(60)\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", script, shared_server().url, prefix], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        backend = RedisBackend(shared_server().url, prefix=prefix, timeout=10)
        assert backend.lease(KEY) is None
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        child.stdout.close()
        deadline = time.monotonic() + 30
        while (lease := backend.lease(KEY)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lease.release()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_child_after_fork(self, prefix: str) -> None:
        """A child has connections of its own, and doesn't give back what its parent holds."""
        backend = RedisBackend(shared_server().url, prefix=prefix, timeout=10)
        backend.set(KEY, entry())
        lease = backend.lease(KEY)
        child = os.fork()
        if not child:
            status = 1
            try:
                backend.set(bytes(32), entry())
                good = backend.get(KEY) is not None and backend.lease(KEY) is None
                lease.release()  # type: ignore[union-attr]
                status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert backend.get(bytes(32)) is not None
        assert backend.lease(KEY) is None
        assert lease is not None
        lease.release()

    def test_a_task_that_is_cancelled_while_it_gets_one(
        self, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lease that comes too late is given back at once, and nobody waits for it."""
        take, asked, goes_on = backend.lease, threading.Event(), threading.Event()

        def late(key: bytes) -> Any:
            asked.set()
            assert goes_on.wait(30)
            return take(key)

        monkeypatch.setattr(backend, "lease", late)
        cache = Cache(backend=backend, metrics=Metrics())

        @content_cached(cache=cache)
        async def f(x: int) -> int:
            return x

        async def main() -> int:
            task = asyncio.create_task(f(1))
            await asyncio.to_thread(asked.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            goes_on.set()
            return await asyncio.wait_for(f(1), 30)

        assert asyncio.run(main()) == 1
        assert not backend._leases._held

    def test_one_that_is_dropped(self, backend: RedisBackend) -> None:
        """A lease that nobody holds any more is not renewed, and ends soon."""
        backend._leases._life = 0.3
        lease = backend.lease(KEY)
        assert lease is not None
        del lease
        deadline = time.monotonic() + 30
        while (lease := backend.lease(KEY)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lease.release()

    def test_processes_compute_once(self, prefix: str, tmp_path: Path) -> None:
        """Four processes that ask the same at once run the function once."""
        script = tmp_path / "p.py"
        script.write_text(
            "import os, sys, time\n"
            "from memoleo import Cache, content_cached\n"
            "cache = Cache(sys.argv[1])\n"
            "@content_cached(cache=cache, version=1)\n"
            "def f(x):\n"
            "    with open(sys.argv[2], 'a') as log: log.write('x')\n"
            "    time.sleep(0.5)\n"
            "    return x\n"
            "sys.stdin.readline()\n"
            "assert f(3) == 3\n"
        )
        url = f"{shared_server().url}?prefix={prefix}&timeout=10s"
        children = [
            subprocess.Popen(
                [sys.executable, str(script), url, str(tmp_path / "log")],
                stdin=subprocess.PIPE,
            )
            for _ in range(4)
        ]
        for child in children:
            child.communicate(b"\n", timeout=60)
            assert child.returncode == 0
        assert (tmp_path / "log").read_text() == "x"


class TestCaches:
    def test_calls_and_coroutines(self, prefix: str) -> None:
        """A cache on Redis serves functions and coroutine functions."""
        url = f"{shared_server().url}?prefix={prefix}&timeout=10"
        with Cache(url, metrics=Metrics()) as cache:
            calls: list[int] = []

            @content_cached("t", cache=cache, tags=["g"])
            def f(x: int) -> list[int]:
                calls.append(x)
                return [x]

            @content_cached("t", cache=cache)
            async def g(x: int) -> int:
                calls.append(x)
                return x

            assert [f(1), f(1)] == [[1], [1]]
            assert [asyncio.run(g(2)), asyncio.run(g(2))] == [2, 2]
            assert calls == [1, 2]
            stats = cache.get_stats()
            assert (stats["total_entries"], stats["by_type"]) == (2, {"t": 2})
            assert f.explain(2).nearest[0].differences[0].part == "x"
            assert cache.clear(tag="g") == 1
            f(1)
            assert calls == [1, 2, 1]

    def test_three_tiers(self, prefix: str, tmp_path: Path) -> None:
        """Memory before a file before Redis: what one machine computed another one is served."""
        redis = f"{shared_server().url}?prefix={prefix}&timeout=10"
        urls = ("memory://", f"sqlite:///{tmp_path}/a.db", redis)
        others = ("memory://", f"sqlite:///{tmp_path}/b.db", redis)
        with Cache.tiered(*urls) as here, Cache.tiered(*others) as there:
            here.set("k", [1])
            assert there.get("k") == [1]
            with Cache(others[1]) as near:
                assert near.get("k") == [1]
            assert here.delete("k")
            with Cache(redis) as far:
                assert far.get("k") is None

    def test_what_is_removed_elsewhere_is_not_served(self, prefix: str, tmp_path: Path) -> None:
        """A removal on another machine empties memory and file in front of the server."""
        redis = f"{shared_server().url}?prefix={prefix}&timeout=10"
        with Cache.tiered("memory://", f"sqlite:///{tmp_path}/a.db", redis) as here:
            here.backend._far.epoch_holds = 0.0  # type: ignore[attr-defined]
            here.set("k", 1)
            assert here.get("k") == 1
            with Cache(redis) as there:
                there.delete("k")
            deadline = time.monotonic() + 30
            while here.get("k") is not None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            here.set("j", 2)
        # A new process takes up where this one left: the file is not emptied for nothing.
        with Cache.tiered("memory://", f"sqlite:///{tmp_path}/a.db", redis) as again:
            again.get("j")
            with Cache(f"sqlite:///{tmp_path}/a.db?memory=0") as near:
                assert near.get("j") == 2


class TestFailing:
    @pytest.fixture
    def server(self) -> Iterator[RedisServer]:
        shared_server()
        server = RedisServer()
        yield server
        server.remove()

    def test_a_server_that_dies_and_comes_back(self, server: RedisServer) -> None:
        """Calls go on without it, and with it again once it is back."""
        cache = Cache(f"{server.url}?timeout=2", metrics=Metrics())
        backend: Any = cache.backend
        backend._breakers.policy = memoleo._breaker.BreakerPolicy(  # type: ignore[attr-defined]
            failures=2, open_for=0.05
        )
        calls: list[int] = []

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            return x

        assert (f(1), f(1), calls) == (1, 1, [1])
        server.stop()
        assert [f(1) for _ in range(20)] == [1] * 20
        assert len(calls) == 21
        with pytest.raises(BackendError):
            cache.clear()
        server.start()
        deadline = time.monotonic() + 30
        while True:
            before = len(calls)
            assert f(1) == 1
            if len(calls) == before:
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_a_dead_server_is_left_alone(self, server: RedisServer) -> None:
        """After two failures nobody waits for it, but for who asks for a removal."""
        backend = RedisBackend(server.url, timeout=2)
        server.stop()
        for _ in range(2):
            with pytest.raises(BackendError):
                backend.get(KEY)
        with pytest.raises(BackendError, match="left alone"):
            backend.get(KEY)
        with pytest.raises(BackendError) as told:
            backend.delete(KEY)
        assert "left alone" not in str(told.value)

    def test_a_server_that_hangs(self) -> None:
        """A server that accepts and never answers costs the timeout, and no more than twice."""
        import socket

        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            backend = RedisBackend(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
            begun = time.monotonic()
            for _ in range(50):
                with pytest.raises(BackendError):
                    backend.get(KEY)
            assert time.monotonic() - begun < 5

    def test_connections_that_were_cut(self, server: RedisServer) -> None:
        """A connection that the server closed while it was idle costs nothing."""
        backend = RedisBackend(server.url, timeout=10)
        backend.set(KEY, entry())
        for _ in range(3):
            server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert backend.get(KEY) is not None
            server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            backend.set(KEY, entry())

    def test_passwords_are_not_shown(self) -> None:
        """Neither an error nor a report shows what stands before the @."""
        server = RedisServer("--requirepass", "geheim")
        try:
            cache = Cache(f"redis://user:falsch@127.0.0.1:{server.port}/0?timeout=5")
            texts = [repr(cache), repr(cache.backend)]
            with pytest.raises(BackendError) as told:
                cache.get_stats()
            texts.append(str(told.value))
            with pytest.raises(ConfigError) as refused:
                Cache("redis://user:falsch@127.0.0.1:1/0?prefx=1")
            texts.append(str(refused.value))
            assert "falsch" not in "".join(texts)
            with Cache(f"redis://:geheim@127.0.0.1:{server.port}/0?timeout=5") as good:
                good.set("k", 1)
                assert good.get("k") == 1
                assert "geheim" not in repr(good.get_stats())
        finally:
            server.remove()

    @pytest.mark.parametrize("fault", ["status", "html", "list", "token", "gone"])
    def test_rest_that_fails(self, prefix: str, fault: str) -> None:
        """Whatever a REST interface answers instead is a BackendError without the token."""
        front = RestFront(shared_server())
        token = "another" if fault == "token" else TOKEN
        backend = UpstashBackend(front.url, token=token, prefix=prefix, timeout=5)
        if fault == "status":
            front.status = 503
        elif fault == "html":
            front.body = b"<html>"
        elif fault == "list":
            front.body = b'[{"result": "not base64!"}]'
        elif fault == "gone":
            front.http.shutdown()
            front.http.server_close()
        with pytest.raises(BackendError) as told:
            backend.get(KEY)
        assert token not in str(told.value)
        backend.close()
        front.http.shutdown()
        front.http.server_close()


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("redis://127.0.0.1:x/0", "not understood"),
            ("redis://127.0.0.1/0?timeout=never", "timeout"),
            ("redis://127.0.0.1/0?prefix=", "prefix is empty"),
            ("redis://127.0.0.1/0?max_bytes=3", "unknown option 'max_bytes'"),
            ("upstash+https://", "upstash.io"),
            ("upstash+https://x.upstash.io", "UPSTASH_REDIS_REST_TOKEN"),
            ("upstash+https://:secret@x.upstash.io", "holds no credentials"),
            ("upstash://x", "begins with"),
        ],
    )
    def test_wrong_urls(self, url: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wrong URL says what is wrong with it, when the cache is made."""
        monkeypatch.delenv("UPSTASH_REDIS_REST_TOKEN", raising=False)
        with pytest.raises(ConfigError, match=words) as told:
            Cache(url)
        assert "secret" not in str(told.value)

    def test_upstash_by_url(self, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The token comes from the environment."""
        monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
        url = shared_front().url.replace("http://", "upstash+http://")
        with Cache(f"{url}?prefix={prefix}&timeout=10s") as cache:
            cache.set("k", {"a": (1, b"x")}, tags=["g"])
            assert cache.get("k") == {"a": (1, b"x")}
            assert cache.clear(tag="g") == 1

    def test_many_threads_on_one_client(self, prefix: str) -> None:
        """A single-flight across threads works by REST."""
        cache = Cache(
            backend=UpstashBackend(shared_front().url, token=TOKEN, prefix=prefix, timeout=10)
        )
        calls: list[int] = []
        gate = threading.Barrier(6)

        @content_cached(cache=cache)
        def f(x: int) -> int:
            calls.append(x)
            return x

        def ask() -> None:
            gate.wait(30)
            assert f(1) == 1

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == [1]
