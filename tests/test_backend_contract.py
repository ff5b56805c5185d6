"""Every store of ours keeps the contract that is shipped for the stores of others."""

from __future__ import annotations

from pathlib import Path

from memoleo.backends import Backend, MemoryBackend, SQLiteBackend, TieredBackend
from memoleo.testing import BackendContract


class TestMemory(BackendContract):
    def make_backend(self, folder: Path) -> Backend:
        return MemoryBackend()


class TestSQLite(BackendContract):
    shared = True

    def make_backend(self, folder: Path) -> Backend:
        return SQLiteBackend(folder / "store.db")


class TestMemoryBeforeSQLite(BackendContract):
    shared = True

    def make_backend(self, folder: Path) -> Backend:
        # A clock that leaps makes every read compare its memory with the file.
        leaps = iter(range(2_000_000_000, 4_000_000_000, 10))
        far = SQLiteBackend(folder / "store.db")
        return TieredBackend(MemoryBackend(), far, clock=lambda: float(-next(leaps)))


class TestSQLiteBeforeSQLite(BackendContract):
    def make_backend(self, folder: Path) -> Backend:
        return TieredBackend(SQLiteBackend(folder / "near.db"), SQLiteBackend(folder / "far.db"))
