"""Where entries live: in memory, in an SQLite file, or in several stores behind one another.

A store of your own is any object that keeps the `Backend` contract;
`memoleo.testing.BackendContract` proves that it does.
"""

from memoleo.backends._protocol import Backend, BackendStats, Lease
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.backends.tiered import TieredBackend

__all__ = [
    "Backend",
    "BackendStats",
    "Lease",
    "MemoryBackend",
    "SQLiteBackend",
    "TieredBackend",
]
