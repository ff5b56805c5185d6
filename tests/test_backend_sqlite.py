"""The SQLite store: formats, limits, recency, epochs and places."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import sqlite3
import threading
import time
import weakref
from math import inf
from pathlib import Path

import pytest

from memoleo._entry import Entry
from memoleo.backends import _sqlite_schema as schema
from memoleo.backends._sqlite_statements import GET
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.errors import BackendError, ConfigError

DATA = Path(__file__).parent / "data"


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def entry(number: int, size: int = 872, **fields: object) -> Entry:
    fields = {"created": time.time(), "ttl": 3600.0, **fields}
    return Entry(bytes([number % 256]) * size, "test", **fields)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.parametrize("golden", sorted(DATA.glob("format*.sqlite")), ids=lambda path: path.stem)
def test_files_of_released_formats_are_read(golden: Path, path: Path) -> None:
    """Every entry of a file of an earlier format is read as it was written, and found by tag."""
    shutil.copy(golden, path)
    backend = SQLiteBackend(path)
    for number in range(20):
        assert backend.get(key(number)) == Entry(
            key(number) * number,
            "auto",
            1_700_000_000.0 + number,
            inf if number % 2 else 3600.0,
            60.0,
            f"type{number % 3}",
            ("odd", "Ü") if number % 2 else ("even",),
            number / 2,
            number,
            "module.function",
        )
    assert backend.stats().by_type == {"type0": 7, "type1": 7, "type2": 6}
    assert backend.clear(tag="Ü") == 10
    assert backend.clear_expired(1_800_000_000.0) == 10
    backend.close()


def test_others_go_on_while_an_older_file_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that needs another file meanwhile is told so, and doesn't wait for the end of it."""
    older = tmp_path / "older.db"
    shutil.copy(DATA / "format2.sqlite", older)
    inside, go_on = threading.Event(), threading.Event()

    def slowly(key: bytes) -> int:
        inside.set()
        assert go_on.wait(60)
        return schema.hash_of.__wrapped__(key)  # type: ignore[attr-defined]

    monkeypatch.setattr(schema, "hash_of", functools.wraps(schema.hash_of)(slowly))
    first, other = SQLiteBackend(older), SQLiteBackend(tmp_path / "other.db")
    found: list[Entry | None] = []
    opening = threading.Thread(target=lambda: found.append(first.get(key(7))))
    opening.start()
    try:
        assert inside.wait(60)
        with pytest.raises(BackendError, match="still opening"):
            other.get(key(1))
    finally:
        go_on.set()
        opening.join(60)
    assert [one and one.tokens for one in found] == [7]
    other.set(key(1), entry(1))
    assert other.get(key(1)) == entry(1, created=other.get(key(1)).created)  # type: ignore[union-attr]
    first.close()
    other.close()


def test_there_is_a_golden_file_of_every_format() -> None:
    """Whoever adds a migration adds a file of the new format."""
    names = {path.stem for path in DATA.glob("format*.sqlite")}
    assert names == {f"format{number}" for number in range(1, schema.FORMAT + 1)}


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps to a later format are taken all or none, and an older file keeps its entries."""
    backend = SQLiteBackend(path)
    backend.set(key(1), entry(1))
    backend.close()
    before = path.read_bytes()
    step = "CREATE TABLE extra (x);\nINSERT INTO extra VALUES (1);\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step + "SELECT nonsense();\n"))
    later_format = schema.FORMAT + 1
    monkeypatch.setattr(schema, "FORMAT", later_format)
    monkeypatch.setattr("memoleo.backends._sqlite_connections.FORMAT", later_format)
    with pytest.raises(BackendError):
        SQLiteBackend(path).get(key(1))
    assert path.read_bytes() == before
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], step))
    later = SQLiteBackend(path)
    assert later.get(key(1)) is not None
    assert later.check()["format"] == later_format
    later.close()


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "q?x=1#y.db", "märchen-日本.db", "it's.db"])
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    """A name means itself, whatever a URI would make of it."""
    path = tmp_path / name
    backend = SQLiteBackend(str(path))
    backend.set(key(1), entry(1))
    backend.close()
    assert {file.name for file in tmp_path.iterdir()} <= {name, f"{name}.lock"}
    assert SQLiteBackend(path).get(key(1)) is not None


def test_nothing_is_opened_before_it_is_used(path: Path) -> None:
    """Making a backend touches no file."""
    SQLiteBackend(path).close()
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": ""},
        {"path": ":memory:"},
        {"path": "a\0b"},
        {"path": "x", "max_entries": 0},
        {"path": "x", "max_entries": True},
        {"path": "x", "max_bytes": "lots"},
        {"path": "x", "timeout": -1},
    ],
)
def test_wrong_arguments(arguments: dict[str, object]) -> None:
    """What can't be meant is refused at once."""
    with pytest.raises(ConfigError):
        SQLiteBackend(**arguments)  # type: ignore[arg-type]


def test_the_least_recently_used_go_first(path: Path) -> None:
    """Reading an entry keeps it, without a write for each read."""
    backend = SQLiteBackend(path, max_entries=10)
    for number in range(10):
        backend.set(key(number), entry(number))
    before = path.with_name("store.db-wal").stat().st_size
    for _ in range(50):
        for number in (0, 3):
            assert backend.get(key(number)) is not None
    assert path.with_name("store.db-wal").stat().st_size == before
    for number in range(10, 18):
        backend.set(key(number), entry(number))
    left = [number for number in range(18) if backend.get(key(number)) is not None]
    assert left == [0, 3, *range(10, 18)]
    assert backend.stats().evicted == 8
    backend.close()


def test_use_is_remembered_across_processes(path: Path) -> None:
    """What was read before the store was closed is still the most recently used afterwards."""
    backend = SQLiteBackend(path)
    for number in range(4):
        backend.set(key(number), entry(number))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entries SET used = used - 10000")
    connection.commit()
    connection.close()
    backend.get(key(0))
    backend.close()
    small = SQLiteBackend(path, max_entries=2)
    small.set(key(9), entry(9))
    assert sorted(found for found, _ in small.entries()) == [key(0), key(9)]
    small.close()


def test_the_size_is_kept(path: Path) -> None:
    """The size never exceeds its limit after a store, and expired entries go first."""
    backend = SQLiteBackend(path, max_bytes=200_000)
    backend.set(key(0), entry(0))
    for number in range(1, 100):
        backend.set(key(number), entry(number, created=time.time() - 9999, ttl=1.0))
    for number in range(100, 600):
        backend.set(key(number), entry(number))
        stats = backend.stats()
        assert stats.bytes <= 200_000
        if number == 190:
            kept = {int.from_bytes(found, "big") for found, _ in backend.entries()}
            assert kept >= {0, *range(100, 191)}
    assert stats.entries > 80
    assert stats.evicted > 400
    assert backend.get(key(599)) is not None
    backend.close()
    # Room is made when the entry that lacks it has been stored.
    assert path.stat().st_size <= 200_000 + 2 * 4096


def test_a_file_of_others_counts_too(path: Path) -> None:
    """What another process added counts against the limits of this one."""
    mine, other = SQLiteBackend(path, max_entries=50), SQLiteBackend(path)
    mine.set(key(0), entry(0))
    for number in range(1, 200):
        other.set(key(number), entry(number))
    for number in range(200, 265):
        mine.set(key(number), entry(number))
    assert mine.stats().entries <= 50
    mine.close()
    other.close()


def test_a_large_store_makes_room_in_tenths(path: Path) -> None:
    """With many entries, several go at once, so that choosing them is rare."""
    backend = SQLiteBackend(path, max_entries=300)
    counts = []
    for number in range(700):
        backend.set(key(number), entry(number, 10))
        counts.append(backend.stats().entries)
    assert max(counts) == 300
    assert min(counts[300:]) >= 269
    assert counts[300:].count(300) < 50
    backend.close()


def test_what_is_too_large_replaces_nothing_and_leaves_nothing(path: Path) -> None:
    """An entry above the limit isn't stored, and the outdated one under its key is removed."""
    backend = SQLiteBackend(path, max_bytes=5000)
    backend.set(key(1), entry(1))
    backend.set(key(2), entry(2))
    backend.set(key(1), entry(1, 6000))
    assert backend.get(key(1)) is None
    assert backend.get(key(2)) is not None
    backend.close()


def test_the_epoch_moves_for_others_only(path: Path) -> None:
    """Others see removals and replacements of what was fresh; additions and own changes not."""
    mine, other = SQLiteBackend(path), SQLiteBackend(path)
    mine.set(key(1), entry(1))
    first = mine.epoch(), other.epoch()
    mine.set(key(2), entry(2))
    mine.set(key(3), entry(3, created=time.time() - 99, ttl=1.0))
    mine.set(key(3), entry(3))
    mine.clear_expired(time.time())
    assert (mine.epoch(), other.epoch()) == first
    seen = [first[1]]
    for change in (
        lambda: mine.delete(key(1)),
        lambda: mine.set(key(2), entry(2)),
        lambda: mine.clear(type="default"),
    ):
        change()
        assert mine.epoch() == first[0]
        seen.append(other.epoch())
    assert len(set(seen)) == 4
    mine.delete(b"not there")
    assert other.epoch() == seen[-1]
    mine.close()
    other.close()


def test_room_is_given_back(path: Path) -> None:
    """After clearing, the file becomes small again, by steps or by `vacuum`."""
    backend = SQLiteBackend(path)
    for number in range(100):
        backend.set(key(number), entry(number, 20_000))
    backend.close()
    full = path.stat().st_size
    assert backend.clear(before=time.time() - 3600) == 0
    assert backend.clear() == 100
    backend.close()
    assert path.stat().st_size < full
    backend.vacuum()
    backend.close()
    assert path.stat().st_size < full / 10
    for number in range(100):
        backend.set(key(number), entry(number, 3000))
    for number in range(0, 100, 2):
        backend.delete(key(number))
    assert backend.vacuum() > 0
    assert len(list(backend.entries())) == 50
    backend.close()


def test_check_describes_a_sound_file(path: Path) -> None:
    """`check` finds nothing wrong with a new file, and names what is wrong with another."""
    backend = SQLiteBackend(path)
    assert backend.check() == {"path": str(path), "exists": False, "problems": []}
    backend.set(key(1), entry(1))
    report = backend.check()
    assert report["problems"] == []
    assert (report["format"], report["journal"], report["intact"]) == (schema.FORMAT, "wal", True)
    assert report["entries"] == 1
    if os.name == "posix":
        path.chmod(0o644)
        assert "chmod 600" in backend.check()["problems"][0]
    backend.close()


def test_a_hit_is_found_through_the_index_alone(path: Path) -> None:
    """Looking up a key never scans, so that a hit costs the same among a million entries."""
    backend = SQLiteBackend(path)
    backend.set(key(1), entry(1))
    plan = backend._runner.run(
        lambda link: link.execute(f"EXPLAIN QUERY PLAN {GET}", (schema.hash_of(key(1)),)).fetchall()
    )
    assert [row[3] for row in plan] == [
        "SEARCH entries USING INDEX sqlite_autoindex_entries_1 (hash=?)"
    ]
    backend.close()


def test_keys_of_one_hash_are_told_apart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are found by a hash of their key, and one is never served for another."""
    monkeypatch.setattr("memoleo.backends.sqlite.hash_of", lambda key: 7)
    monkeypatch.setattr("memoleo.backends.sqlite._hash", lambda key: 14)
    monkeypatch.setattr("memoleo._entry._seed", lambda key: 14)
    backend = SQLiteBackend(path)
    one, other = key(1), key(2)
    backend.set(one, entry(1))
    assert backend.get(other) is None
    assert not backend.delete(other)
    backend.set(other, entry(2, tags=("x",)))
    found = backend.get(other)
    assert found is not None
    assert found.payload[0] == 2
    assert [found for found, _ in backend.entries(tag="x")] == [other]
    assert backend.get(one) is None
    backend.set(one, entry(3))
    assert backend.get(other) is None
    found = backend.get(one)
    assert found is not None
    assert found.payload[0] == 3
    backend.close()


@pytest.mark.parametrize(
    "change", ["RENAME TO store", "RENAME COLUMN hash TO mark", "ADD COLUMN extra"]
)
@pytest.mark.parametrize("writes", [False, True], ids=["get", "set"])
def test_a_file_that_a_later_memoleo_takes_over_is_let_go(
    path: Path, change: str, writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that gets a later format while it is open is not damaged, and is used no more."""
    backend = SQLiteBackend(path)
    backend.set(key(1), entry(1))
    later = sqlite3.connect(path, isolation_level=None)
    later.executescript(
        f"BEGIN; ALTER TABLE entries {change}; PRAGMA user_version = {schema.FORMAT + 1}; COMMIT"
    )
    later.close()
    if "ADD" in change:
        # Nothing that is asked of it fails, so that it shows only when the file is looked at.
        monkeypatch.setattr(backend._runner, "next_look", 0.0)
    for _ in range(2):
        with pytest.raises(BackendError, match="upgrade memoleo"):
            backend.set(key(2), entry(2)) if writes else backend.get(key(1))
    backend.close()
    assert not list(path.parent.glob("*.corrupt-*"))
    after = sqlite3.connect(path)
    (table,) = after.execute("SELECT max(name) FROM sqlite_master WHERE sql LIKE '%expires%'")
    assert after.execute(f"SELECT count(*) FROM {table[0]}").fetchone() == (1,)
    after.close()


def test_a_connection_that_another_thread_closed(path: Path) -> None:
    """Who still has it, while its file is gone, finds nothing, and has it opened anew."""
    store = SQLiteBackend(path)
    store.set(key(1), entry(1))
    link = store._connections.local.link
    path.unlink()
    link.close()
    assert store.get(key(1)) is None
    store.close()


def test_a_backend_that_is_forgotten_closes_itself(path: Path) -> None:
    """Nothing is left open, and nothing warned about, when nobody closed it."""
    backend = SQLiteBackend(path)
    backend.set(key(1), entry(1))
    backend.cycle = backend  # type: ignore[attr-defined]
    del backend
    gc.collect()
    assert not path.with_name("store.db-wal").exists()


def test_a_call_leaves_no_reference_cycle(path: Path) -> None:
    """A backend goes as soon as its last reference has gone, also after a failure."""
    backend = SQLiteBackend(path)
    backend.get(key(1))
    backend._runner.next_look = 0.0
    backend.get(key(1))
    backend.set(key(1), entry(1))
    gone = weakref.ref(backend)
    gc.disable()
    try:
        del backend
        assert gone() is None
    finally:
        gc.enable()


def fill(store: SQLiteBackend, count: int, size: int) -> None:
    """Store many entries quickly, each used at the second of its number."""
    store.set(key(0), entry(0))
    link = store._connections.local.link
    link.execute("BEGIN")
    link.cursor.executemany(
        "INSERT INTO entries (hash, key, type, label, created, expires, used, block) "
        "VALUES (?, ?, 't', '', ?, ?, ?, ?)",
        (
            (
                schema.hash_of(one),
                one,
                time.time(),
                time.time() + 3600.0,
                float(number),
                b"x" * size,
            )
            for number in range(1, count)
            for one in [b"%032d" % number]
        ),
    )
    link.execute("COMMIT")


def test_choosing_what_goes_from_a_large_store_looks_at_a_part(tmp_path: Path) -> None:
    """However large a store is, one call never looks at all of it to find what was used least."""
    steps: list[int] = []
    for count in (25_000, 100_000):
        store = SQLiteBackend(tmp_path / f"{count}.db")
        fill(store, count, 20)
        link = store._connections.local.link
        ticks: list[None] = []
        link.raw.set_progress_handler(lambda ticks=ticks: ticks.append(None), 1000)
        chosen = store._room._choose(link)
        link.raw.set_progress_handler(None, 1000)
        steps.append(len(ticks))
        assert 0 < len(chosen) <= 2048
        store.close()
    assert steps[1] <= 1.1 * steps[0]


def test_a_large_store_keeps_its_limit_and_what_is_in_use(tmp_path: Path) -> None:
    """Beyond its limit a store of many entries loses old ones, round by round, and none in use."""
    store = SQLiteBackend(tmp_path / "cache.db", max_bytes=8 * 1024**2)
    fill(store, 30_000, 200)
    link = store._connections.local.link
    kept = [b"%032d" % number for number in range(1, 30_000, 100)]
    link.cursor.executemany(
        "UPDATE entries SET used = ? WHERE key = ?", [(time.time(), one) for one in kept]
    )
    for number in range(100):
        store.set(key(1000 + number), entry(number, 20_000))
    assert store.stats().bytes <= 9 * 1024**2
    left = {row[0] for row in link.execute("SELECT key FROM entries").fetchall()}
    assert len(left & set(kept)) == len(kept)
    assert store.stats().evicted > 1000
    store.close()
