"""The bare floor, memoleo and its peers, each as the statement of one warm call.

The floor is what somebody would write by hand for one function: it takes the same arguments, and
makes a key, looks it up and decodes, without a thought for types, threads, ages or failures.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import itertools
import json
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from timeit import Timer
from typing import Any

import msgspec
import xxhash
from payloads import RESULTS, Payload

from memoleo import Cache, Metrics, content_cached

__all__ = ["cashews_hits", "in_memory", "misses", "numbered", "on_disk"]

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder().decode

Contenders = dict[str, Timer]


def in_memory(payload: Payload) -> Contenders:
    """Return what answers a warm call from memory, by name."""
    import cachebox
    import cachetools

    seed = secrets.randbits(64)
    values = _keyed_values(payload)
    stored = {xxhash.xxh3_128_digest(_encode(values), seed): _encode(payload.result)}
    floor = _by_hand(
        payload,
        "decode(stored[digest(encode(({keyed},)), seed)])",
        decode=_decode,
        stored=stored,
        digest=xxhash.xxh3_128_digest,
        encode=_encode,
        seed=seed,
    )
    contenders = {"floor": _call(payload, floor)}
    for name, options in (("memoleo", {}), ("memoleo, metrics shared", {"metrics": None})):
        cache = Cache("memory://", **{"metrics": Metrics(), **options})
        contenders[name] = _call(payload, content_cached(cache=cache))
    coroutine = functools.partial(_coroutine, Cache("memory://"))
    contenders["memoleo, async"] = _call(payload, coroutine, "run({call})", run=_run_through)
    result = payload.result

    def compute(text: str) -> Any:
        return result

    for name, decorate in (
        ("lru_cache", functools.lru_cache),
        ("cachetools", cachetools.cached(cachetools.LRUCache(1000))),
        ("cachebox", cachebox.cached(cachebox.LRUCache(1000))),
    ):
        by_json = _by_hand(
            payload,
            "by_text(dumps(({keyed},), sort_keys=True))",
            by_text=decorate(compute),
            dumps=json.dumps,
        )
        contenders[f"{name} + JSON key"] = _call(payload, by_json)
    return contenders


def on_disk(payload: Payload, folder: Path) -> Contenders:
    """Return what answers a warm call from a file, by name."""
    import diskcache
    import joblib

    values, result = _keyed_values(payload), payload.result
    connection = _floor_file(folder / "floor.db")
    digest = hashlib.sha256(_encode(values)).digest()
    connection.execute("INSERT OR REPLACE INTO c VALUES (?, ?)", (digest, _encode(result)))
    floor = _by_hand(
        payload,
        "decode(execute(select, (sha256(encode(({keyed},))).digest(),)).fetchone()[0])",
        decode=_decode,
        execute=connection.execute,
        select="SELECT v FROM c WHERE k = ?",
        sha256=hashlib.sha256,
        encode=_encode,
    )
    cache = Cache(f"sqlite:///{folder}/memoleo.db?memory=0", metrics=Metrics())
    disk = diskcache.Cache(str(folder / "diskcache"))
    disk[hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()] = result
    by_json = _by_hand(
        payload,
        "disk[sha256(dumps(({keyed},), sort_keys=True).encode()).hexdigest()]",
        disk=disk,
        sha256=hashlib.sha256,
        dumps=json.dumps,
    )
    memoized = diskcache.Cache(str(folder / "memoize")).memoize()(lambda *values: result)
    by_memoize = _by_hand(
        payload, "memoized(*map(hashable, ({keyed},)))", memoized=memoized, hashable=_hashable
    )
    remembered = joblib.Memory(str(folder / "joblib"), verbose=0).cache(_Result(result).compute)
    by_joblib = _by_hand(payload, "remembered({keyed})", remembered=remembered)
    return {
        "floor": _call(payload, floor),
        "memoleo": _call(payload, content_cached(cache=cache)),
        "diskcache + sha256(JSON)": _call(payload, by_json),
        "diskcache memoize": _call(payload, by_memoize),
        "joblib": _call(payload, by_joblib),
    }


def misses(payload: Payload, folder: Path) -> Contenders:
    """Return what answers a call that was never made before, by name."""
    connection = _floor_file(folder / "floor-miss.db")
    compute = _answer_of[payload.name]

    def floor(values: Any, number: int) -> Any:
        key = hashlib.sha256(_encode((values, number))).digest()
        if connection.execute("SELECT v FROM c WHERE k = ?", (key,)).fetchone() is None:
            result = compute(values, number)
            connection.execute("INSERT INTO c VALUES (?, ?)", (key, _encode(result)))
            return result

    cache = Cache(f"sqlite:///{folder}/memoleo-miss.db?memory=0", metrics=Metrics())
    values, counter = list(payload.arguments.values()), itertools.count()
    return {
        name: Timer("it(values, next(counter))", globals=scope)
        for name, scope in (
            ("floor", {"it": floor, "values": values, "counter": counter}),
            ("memoleo", {"it": content_cached(cache=cache)(compute), "values": values,
                         "counter": counter}),
        )
    }  # fmt: skip


def numbered(path: Path, count: int, compute: Callable[[int, str], Any]) -> Callable[[int], Any]:
    """Return a function that finds the results of so many numbers in a file, by hand."""
    connection = _floor_file(path)
    filling = "x" * 100

    def key(number: int) -> bytes:
        return hashlib.sha256(_encode((number, filling))).digest()

    rows = ((key(number), _encode(compute(number, filling))) for number in range(count))
    connection.executemany("INSERT INTO c VALUES (?, ?)", rows)
    execute = connection.execute

    def by_hand(number: int) -> Any:
        return _decode(execute("SELECT v FROM c WHERE k = ?", (key(number),)).fetchone()[0])

    return by_hand


def _call(
    payload: Payload, decorate: Callable[[Any], Any], statement: str = "{call}", **names: Any
) -> Timer:
    """Return the call of a decorated function, as a program would spell it."""
    scope = {**payload.arguments, **names, "it": payload.define(decorate)}
    return Timer(statement.format(call=payload.call), globals=scope)


def _by_hand(payload: Payload, expression: str, **names: Any) -> Callable[[Any], Any]:
    """Return a decorator that puts a function of one expression in the place of the payload's."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = ", ".join(inspect.signature(function).parameters)
        source = f"def by_hand({parameters}): return {expression.format(keyed=payload.keyed)}"
        exec(source, names)
        found: Callable[..., Any] = names["by_hand"]
        return found

    return decorate


def _keyed_values(payload: Payload) -> tuple[Any, ...]:
    found: list[tuple[Any, ...]] = []
    decorate = _by_hand(payload, "found.append(({keyed},))", found=found)
    _call(payload, decorate).timeit(1)
    return found[0]


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


def _coroutine(cache: Cache, function: Callable[..., Any]) -> Any:
    """Decorate a coroutine function of the same signature."""
    names = ", ".join(inspect.signature(function).parameters)
    namespace: dict[str, Any] = {"answer": function}
    arguments = ", ".join(f"{name}={name}" for name in names.split(", "))
    exec(f"async def wrapper({names}): return answer({arguments})", namespace)
    return content_cached(cache=cache)(namespace["wrapper"])


def _run_through(coroutine: Any) -> Any:
    """Run a coroutine that never waits: no loop, so that only memoleo is measured."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
