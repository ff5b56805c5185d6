"""The bare floor, memoleo and its peers, each as a function that answers one warm call."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import json
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import xxhash
from payloads import RESULTS, Payload

from memoleo import Cache, Metrics, content_cached

__all__ = ["in_memory", "misses", "on_disk"]

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder().decode

Hit = Callable[[], Any]


def in_memory(payload: Payload) -> dict[str, Hit]:
    """Return what answers a warm call from memory, by name."""
    import cachebox
    import cachetools

    arguments, result = payload.arguments, payload.result
    values = tuple(arguments.values())
    if payload.name == "P5":
        # What every contender must key: the instance's two attributes too.
        values = ("small", 0.5, *values)
    seed = secrets.randbits(64)
    stored = {xxhash.xxh3_128_digest(_encode(values), seed): _encode(result)}

    def floor() -> Any:
        return _decode(stored[xxhash.xxh3_128_digest(_encode(values), seed)])

    hits: dict[str, Hit] = {"floor": floor}
    for name, options in (("memoleo", {}), ("memoleo, metrics shared", {"metrics": None})):
        cache = Cache("memory://", **{"metrics": Metrics(), **options})
        function = payload.define(content_cached(cache=cache))
        hits[name] = functools.partial(_spread, function, arguments)
    function = payload.define(functools.partial(_coroutine, Cache("memory://")))
    asyncio.run(function(**arguments))
    hits["memoleo, async"] = functools.partial(_run_through, function, arguments)

    @functools.lru_cache
    def by_json(text: str) -> Any:
        return result

    hits["lru_cache + JSON key"] = lambda: by_json(json.dumps(values, sort_keys=True))
    for name, cache in (
        ("cachetools + JSON key", cachetools.LRUCache(1000)),
        ("cachebox + JSON key", cachebox.LRUCache(1000)),
    ):
        cached = _cached_by(cache, result)
        hits[name] = functools.partial(_by_json, cached, values)
    return hits


def on_disk(payload: Payload, folder: Path) -> dict[str, Hit]:
    """Return what answers a warm call from a file, by name."""
    import diskcache
    import joblib

    arguments, result = payload.arguments, payload.result
    values = tuple(arguments.values())
    if payload.name == "P5":
        values = ("small", 0.5, *values)
    connection = _floor_file(folder / "floor.db")
    digest = hashlib.sha256(_encode(values)).digest()
    connection.execute("INSERT OR REPLACE INTO c VALUES (?, ?)", (digest, _encode(result)))

    def floor() -> Any:
        key = hashlib.sha256(_encode(values)).digest()
        return _decode(connection.execute("SELECT v FROM c WHERE k = ?", (key,)).fetchone()[0])

    cache = Cache(f"sqlite:///{folder}/memoleo.db?memory=0", metrics=Metrics())
    function = payload.define(content_cached(cache=cache))
    disk = diskcache.Cache(str(folder / "diskcache"))
    disk[hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()] = result
    memoized = diskcache.Cache(str(folder / "memoize")).memoize()(lambda *values: result)
    remembered = joblib.Memory(str(folder / "joblib"), verbose=0).cache(_Result(result).compute)
    return {
        "floor": floor,
        "memoleo": functools.partial(_spread, function, arguments),
        "diskcache + sha256(JSON)": lambda: disk[
            hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        ],
        "diskcache memoize": lambda: memoized(*map(_hashable, values)),
        "joblib": lambda: remembered(*values),
    }


def misses(payload: Payload, folder: Path) -> dict[str, Hit]:
    """Return what answers a call that was never made before, by name."""
    connection = _floor_file(folder / "floor-miss.db")
    counter = iter(range(10**9))

    def floor() -> Any:
        values = (*payload.arguments.values(), next(counter))
        key = hashlib.sha256(_encode(values)).digest()
        if connection.execute("SELECT v FROM c WHERE k = ?", (key,)).fetchone() is None:
            connection.execute("INSERT INTO c VALUES (?, ?)", (key, _encode(payload.result)))

    cache = Cache(f"sqlite:///{folder}/memoleo-miss.db?memory=0", metrics=Metrics())

    function = content_cached(cache=cache)(_answer_of[payload.name])
    values = list(payload.arguments.values())
    return {"floor": floor, "memoleo": lambda: function(values, next(counter))}


def cashews_hits(payload: Payload, rounds: int) -> Callable[[], float] | None:
    """Return what measures a hit in cashews, which is asynchronous only, in seconds per hit."""
    from time import perf_counter

    from cashews.wrapper import Cache as CashewsCache

    async def measure() -> float:
        cache = CashewsCache()
        cache.setup("mem://")

        @cache(ttl="1h", key="{text}")
        async def function(text: str) -> Any:
            return payload.result

        values = tuple(payload.arguments.values())
        await function(json.dumps(values, sort_keys=True))
        started = perf_counter()
        for _ in range(rounds):
            await function(json.dumps(values, sort_keys=True))
        return (perf_counter() - started) / rounds

    return lambda: asyncio.run(measure())


def _answer_p1(values: Any, number: int) -> Any:
    return RESULTS["P1"]


def _answer_p2(values: Any, number: int) -> Any:
    return RESULTS["P2"]


def _answer_p5(values: Any, number: int) -> Any:
    return RESULTS["P5"]


_answer_of = {"P1": _answer_p1, "P2": _answer_p2, "P5": _answer_p5}


class _Result:
    def __init__(self, result: Any) -> None:
        self.result = result

    def compute(self, *values: Any) -> Any:
        return self.result


def _floor_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA mmap_size = 1073741824")
    connection.execute("CREATE TABLE IF NOT EXISTS c (k BLOB UNIQUE, v BLOB)")
    return connection


def _spread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return function(**arguments)


def _coroutine(cache: Cache, function: Callable[..., Any]) -> Any:
    """Decorate a coroutine function of the same signature."""
    names = ", ".join(inspect.signature(function).parameters)
    namespace: dict[str, Any] = {}
    exec(f"async def wrapper({names}): return None", namespace)
    return content_cached(cache=cache)(namespace["wrapper"])


def _run_through(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Run a coroutine that never waits: no loop, so that only memoleo is measured."""
    try:
        function(**arguments).send(None)
    except StopIteration as stop:
        return stop.value


def _cached_by(cache: Any, result: Any) -> Callable[[str], Any]:
    import cachetools

    @cachetools.cached(cache)
    def function(text: str) -> Any:
        return result

    return function


def _by_json(function: Callable[[str], Any], values: tuple[Any, ...]) -> Any:
    return function(json.dumps(values, sort_keys=True))


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
