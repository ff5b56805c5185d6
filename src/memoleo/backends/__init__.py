"""Where entries live: in memory, in an SQLite file, or in several stores behind one another.

A store of your own is any object that keeps the `Backend` contract;
`memoleo.testing.BackendContract` proves that it does. Every name is imported on first use, so that
memory alone never loads SQLite.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoleo.backends._protocol import Backend, BackendStats, Lease, Notebook
    from memoleo.backends.memory import MemoryBackend
    from memoleo.backends.redis import RedisBackend
    from memoleo.backends.sqlite import SQLiteBackend
    from memoleo.backends.tiered import TieredBackend
    from memoleo.backends.upstash import UpstashBackend

_HOMES = {
    "Backend": "_protocol",
    "BackendStats": "_protocol",
    "Lease": "_protocol",
    "MemoryBackend": "memory",
    "Notebook": "_protocol",
    "RedisBackend": "redis",
    "SQLiteBackend": "sqlite",
    "TieredBackend": "tiered",
    "UpstashBackend": "upstash",
}

__all__ = [
    "Backend",
    "BackendStats",
    "Lease",
    "MemoryBackend",
    "Notebook",
    "RedisBackend",
    "SQLiteBackend",
    "TieredBackend",
    "UpstashBackend",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
